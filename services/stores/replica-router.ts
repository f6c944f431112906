import { steadyNow } from '../shared/clock.ts'
import type { Database } from './database.ts'
import { ApiError } from '../shared/errors.ts'

export interface ReplicaRouterOptions {
  primary: Database
  replica: Database
  /** Maximum replication lag in milliseconds; beyond it the primary is read. */
  maxLagMs?: number
  /** Milliseconds between two measurements of the lag. */
  periodMs?: number
  onChange?: (isUsed: boolean, lagMs: number) => void
}

/** A database for reads that may be slightly stale. */
export interface ReadDatabase extends Database {
  /** Maximum age of the data that is read, in milliseconds; 0 for the primary. */
  readonly maxAgeMs: number
}

const positionOfPrimary = {
  name: 'position_of_primary',
  text: 'select pg_current_wal_lsn()::text as position'
}

// A server that is not a replica has no lag.
const reachedByReplica = {
  name: 'reached_by_replica',
  text: `
    select count(*) filter (where not pg_is_in_recovery() or p <= pg_last_wal_replay_lsn())::int as reached
    from unnest($1::pg_lsn[]) as p`
}

/** Positions of the primary that the replica has not reached yet, at the most; older ones are dropped. */
const maxMarks = 50

export type ReplicaRouter = ReturnType<typeof createReplicaRouter>

/**
 * Reads from a streaming replica while it is close behind its primary, and from the primary otherwise.
 *
 * The replica cannot tell its own lag, because it does not know what it has not received. So the primary is asked for
 * its WAL position, and the replica, later, whether it has reached it.
 */
export function createReplicaRouter (
  { primary, replica, maxLagMs = 500, periodMs = 150, onChange = () => {} }: ReplicaRouterOptions
) {
  let marks: { at: number, position: string }[] = []
  let reachedAt = -Infinity
  let isUsed = false
  let timer: NodeJS.Timeout | undefined
  let isClosed = false

  const lagMs = (): number => steadyNow() - reachedAt

  function judge (): boolean {
    const isNear = lagMs() < maxLagMs
    if (isNear !== isUsed) {
      isUsed = isNear
      onChange(isUsed, lagMs())
    }
    return isUsed
  }

  async function measure (): Promise<void> {
    const at = steadyNow()
    const [row] = await primary.query<{ position: string }>(positionOfPrimary)
    marks = [...marks, { at, position: row!.position }].slice(-maxMarks)
    const [answer] = await replica.query<{ reached: number }>(reachedByReplica, [marks.map(mark => mark.position)])
    // Positions only grow: the reached ones are the first ones.
    const reached = marks[answer!.reached - 1]
    if (reached) {
      reachedAt = reached.at
      marks = marks.slice(answer!.reached)
    }
  }

  function schedule (): void {
    if (isClosed) return
    timer = setTimeout(() => {
      measure().catch(() => {}).finally(() => {
        judge()
        schedule()
      })
    }, periodMs)
  }

  return {
    start: schedule,

    get stats () {
      return { isUsed, lagMs: lagMs() }
    },

    get maxAgeMs (): number {
      return isUsed ? maxLagMs : 0
    },

    /** As Database.query. A statement that fails on the replica is retried on the primary. */
    async query<Row> (
      statement: Parameters<Database['query']>[0],
      values?: unknown[],
      signal?: AbortSignal
    ): Promise<Row[]> {
      if (!judge()) return await primary.query<Row>(statement, values, signal)
      try {
        return await replica.query<Row>(statement, values, signal)
      } catch (error) {
        if (!(error instanceof ApiError) || error.statusCode < 500 || signal?.aborted) throw error
        reachedAt = -Infinity
        judge()
        return await primary.query<Row>(statement, values, signal)
      }
    },

    close (): void {
      isClosed = true
      clearTimeout(timer)
    }
  }
}

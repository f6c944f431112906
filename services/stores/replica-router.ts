import { steadyNow } from '../shared/clock.ts'
import type { Database } from './database.ts'
import { ApiError } from '../shared/errors.ts'

export interface ReplicaRouterOptions {
  primary: Database
  replica: Database
  /** Milliseconds by which the replica may lie behind; beyond them the primary is read. */
  maxLagMs?: number
  /** Milliseconds between two looks at how far it is. */
  periodMs?: number
  onChange?: (isUsed: boolean, lagMs: number) => void
}

/** A database for reads that may be a moment old. */
export interface ReadDatabase extends Database {
  /** Milliseconds by which what is read may be older than it says; 0 where the primary is read. */
  readonly maxAgeMs: number
}

const positionOfPrimary = {
  name: 'position_of_primary',
  text: 'select pg_current_wal_lsn()::text as position'
}

// A server that is no replica is never behind.
const reachedByReplica = {
  name: 'reached_by_replica',
  text: `
    select count(*) filter (where not pg_is_in_recovery() or p <= pg_last_wal_replay_lsn())::int as reached
    from unnest($1::pg_lsn[]) as p`
}

/** Positions that are waited for at once; a replica that is further behind is far behind. */
const maxMarks = 50

export type ReplicaRouter = ReturnType<typeof createReplicaRouter>

/**
 * Reads from a streaming replica while it is close behind its primary, and from the primary otherwise.
 *
 * How far it is behind is not asked of the replica, which cannot know what it has not heard of: the primary is
 * asked where it stands, and the replica later whether it has come so far.
 */
export function createReplicaRouter ({ primary, replica, maxLagMs = 500, periodMs = 150, onChange = () => {} }: ReplicaRouterOptions) {
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

  async function look (): Promise<void> {
    const at = steadyNow()
    const [row] = await primary.query<{ position: string }>(positionOfPrimary)
    marks = [...marks, { at, position: row!.position }].slice(-maxMarks)
    const [answer] = await replica.query<{ reached: number }>(reachedByReplica, [marks.map(mark => mark.position)])
    // Positions only grow: the first so many are those that were reached.
    const reached = marks[answer!.reached - 1]
    if (reached) {
      reachedAt = reached.at
      marks = marks.slice(answer!.reached)
    }
  }

  function schedule (): void {
    if (isClosed) return
    timer = setTimeout(() => {
      look().catch(() => {}).finally(() => {
        judge()
        schedule()
      })
    }, periodMs)
  }

  return {
    start: schedule,

    get stats () { return { isUsed, lagMs: lagMs() } },

    get maxAgeMs (): number { return isUsed ? maxLagMs : 0 },

    /** As Database.query. A replica that dies in the middle of it costs a second try, on the primary. */
    async query<Row> (statement: Parameters<Database['query']>[0], values?: unknown[], signal?: AbortSignal): Promise<Row[]> {
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

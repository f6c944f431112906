import type { Claims } from './access-tokens.ts'
import type { Database } from './database.ts'

export interface RevocationsOptions {
  database: Database
  /** Seconds after which every token that could be revoked has expired by itself. */
  lifetimeSeconds: number
  /** Milliseconds between two looks: with the time that one takes, every process knows within a second. */
  periodMs?: number
  /** They cannot be read for a while, or can again. */
  onChange?: (isCurrent: boolean, cause?: unknown) => void
}

interface RevocationRow {
  watermark: string
  session_id: string | null
  user_id: number | null
  revoked_seconds: number | null
}

// Not what was written since the last look, but what was written by transactions that had not ended at it: one that
// began earlier may end later. What is read twice changes nothing. One row is there in any case, for the watermark.
const readSince = {
  name: 'read_revocations',
  text: `
    select pg_snapshot_xmin(pg_current_snapshot())::text as watermark,
      r.session_id, r.user_id, extract(epoch from r.revoked_at)::float8 as revoked_seconds
    from (values (1)) as always left join revocations r
      on r.transaction_id >= $1::text::xid8 and r.revoked_at > now() - $2 * interval '1 second'`
}

const purge = {
  name: 'purge_revocations',
  text: `
    with old_revocations as (delete from revocations where revoked_at < now() - ($1 + 3600) * interval '1 second'),
      old_attempts as (delete from login_attempts where last_at < now() - interval '1 day')
    delete from sessions where expires_at < now()`
}

/** Milliseconds after which who operates the service hears that revocations cannot be read. */
const alarmingMs = 2000

const purgeMs = 10 * 60_000

export type Revocations = ReturnType<typeof createRevocations>

/**
 * Which access tokens do not count any more although they have not expired, as this process knows it: no request
 * asks a store. PostgreSQL is asked for what is new twice a second. While it is away nobody can be logged out, and
 * what is known goes on to count; Redis has no part in it.
 */
export function createRevocations ({ database, lifetimeSeconds, periodMs = 400, onChange = () => {} }: RevocationsOptions) {
  // Maps keep the order of insertion: what was revoked first is forgotten first.
  const sessions = new Map<string, number>()
  /** By user: until which second their tokens of the Go service do not count. */
  const users = new Map<number, { until: number, at: number }>()
  let watermark = '0'
  let isLoaded = false
  let currentAt = performance.now()
  let isAlarmed = false
  let purgedAt = performance.now()
  let timer: NodeJS.Timeout | undefined
  let isClosed = false

  function add (sid: string): void {
    if (!sessions.has(sid)) sessions.set(sid, performance.now())
  }

  function addUser (userId: number, until: number): void {
    const before = users.get(userId)
    if (before && before.until >= until) return
    users.delete(userId)
    users.set(userId, { until, at: performance.now() })
  }

  function forgetExpired (): void {
    const oldest = performance.now() - lifetimeSeconds * 1000
    for (const [sid, at] of sessions) {
      if (at > oldest) break
      sessions.delete(sid)
    }
    for (const [userId, { at }] of users) {
      if (at > oldest) break
      users.delete(userId)
    }
  }

  async function look (): Promise<void> {
    const startedAt = performance.now()
    const rows = await database.query<RevocationRow>(readSince, [watermark, lifetimeSeconds])
    for (const row of rows) {
      if (row.session_id !== null) add(row.session_id)
      else if (row.user_id !== null) addUser(row.user_id, row.revoked_seconds!)
    }
    watermark = rows[0]!.watermark
    isLoaded = true
    currentAt = startedAt
    forgetExpired()
    if (performance.now() - purgedAt > purgeMs) {
      purgedAt = performance.now()
      await database.query(purge, [lifetimeSeconds])
    }
  }

  async function tick (): Promise<void> {
    let cause: unknown
    await look().catch((error: unknown) => { cause = error })
    const isLate = performance.now() - currentAt > alarmingMs
    if (isLate === isAlarmed) return
    isAlarmed = isLate
    onChange(!isLate, cause)
  }

  function schedule (): void {
    if (isClosed) return
    timer = setTimeout(() => { tick().finally(schedule) }, periodMs)
  }

  return {
    /** Looks for the first time, and from then on again and again. Never rejects. */
    async start (): Promise<void> {
      await tick()
      schedule()
    },

    close (): void {
      isClosed = true
      clearTimeout(timer)
    },

    /** False until it was read once who was logged out before this process began. */
    get isLoaded (): boolean { return isLoaded },

    /** How many sessions and users are remembered. */
    get size (): number { return sessions.size + users.size },

    /** A session has ended here; the others learn of it from PostgreSQL. */
    add,

    isRevoked: ({ sid, isLegacy, user_id: userId, iat }: Claims): boolean =>
      sessions.has(sid) || (isLegacy && iat <= (users.get(userId)?.until ?? -1))
  }
}

import type { Claims } from './access-tokens.ts'
import type { Database } from '../stores/database.ts'

export interface RevocationsOptions {
  /** Asked for what is new. */
  database: Database
  /** Where what is over is deleted. */
  background: Database
  /** Milliseconds between two looks: with the time that one takes, every process knows within a second. */
  periodMs?: number
  /** They cannot be read for a while, or can again. */
  onChange?: (isCurrent: boolean, cause?: unknown) => void
  /** Called for each full page that was read, with the number of revocations that are known. */
  onProgress?: (known: number) => void
}

interface RevocationRow {
  watermark: string
  id: number | null
  transaction_id: string | null
  session_id: string | null
  except_session_id: string | null
  user_id: number | null
  revoked_seconds: number | null
  seconds_left: number | null
}

// Not what was written since the last look, but what was written by transactions that had not ended at it: one that
// began earlier may end later. What is read twice changes nothing. One row is there in any case, for the watermark.
const readPage = {
  name: 'read_revocations',
  text: `
    select pg_snapshot_xmin(pg_current_snapshot())::text as watermark, r.id, r.transaction_id::text as transaction_id,
      r.session_id, r.except_session_id, r.user_id, extract(epoch from r.revoked_at)::float8 as revoked_seconds,
      extract(epoch from r.until - now())::float8 as seconds_left
    from (values (1)) as always left join (
      select * from revocations where (transaction_id, id) > ($1::text::xid8, $2::bigint) order by transaction_id, id limit $3
    ) r on true`
}

/** Rows of one page: a statement for all of them would meet its time limit when there are hundreds of thousands. */
const pageSize = 20_000

// One process at a time, and some rows at a time: nobody waits for it.
const purge = {
  name: 'purge_sessions',
  text: `
    with mine as (select where pg_try_advisory_xact_lock(4242006)),
      old_revocations as (delete from revocations where id = any(array(
        select r.id from mine, revocations r where r.until < now() limit 5000))),
      old_attempts as (delete from login_attempts where key = any(array(
        select a.key from mine, login_attempts a where greatest(a.last_at, a.running_at) < now() - interval '1 day' limit 5000))),
      old_addresses as (delete from known_addresses where ctid = any(array(
        select k.ctid from mine, known_addresses k where k.last_at < now() - interval '90 days' limit 5000)))
    delete from sessions where id = any(array(select s.id from mine, sessions s where s.expires_at < now() limit 5000))`
}

/** Milliseconds after which who operates the service hears that revocations cannot be read. */
const alarmingMs = 2000

const purgeMs = 60_000

/** Seconds for which what ended here is remembered at least, until PostgreSQL tells for how long. */
const localSeconds = 60

export type Revocations = ReturnType<typeof createRevocations>

/**
 * Which access tokens do not count any more although they have not expired, as this process knows it: no request
 * asks a store. PostgreSQL is asked for what is new twice a second. While it is away nobody can be logged out, and
 * what is known goes on to count; Redis has no part in it.
 */
export function createRevocations ({ database, background, periodMs = 400, onChange = () => {}, onProgress = () => {} }: RevocationsOptions) {
  /** By session: until when it has to be remembered. */
  const sessions = new Map<string, number>()
  /** By user: until which second their tokens of the Go service do not count, but one. */
  const users = new Map<number, { issuedUntil: number, exceptSid: string | null, until: number }>()
  let watermark = '0'
  let progress: { cursor: { transactionId: string, id: number }, watermark: string | undefined } | undefined
  let isLoaded = false
  let currentAt = performance.now()
  let isAlarmed = false
  let purgedAt = performance.now()
  let timer: NodeJS.Timeout | undefined
  let isClosed = false

  function add (sid: string, secondsLeft = localSeconds): void {
    sessions.set(sid, Math.max(sessions.get(sid) ?? 0, performance.now() + secondsLeft * 1000))
  }

  function addUser (userId: number, issuedUntil: number, exceptSid: string | null, secondsLeft: number): void {
    const before = users.get(userId)
    if (!before || before.issuedUntil < issuedUntil) users.set(userId, { issuedUntil, exceptSid, until: performance.now() + secondsLeft * 1000 })
  }

  function forgetExpired (): void {
    const now = performance.now()
    for (const [sid, until] of sessions) if (until < now) sessions.delete(sid)
    for (const [userId, { until }] of users) if (until < now) users.delete(userId)
  }

  /** Takes up one page. @returns the cursor of the next one; undefined when it was the last */
  function takeUp (rows: RevocationRow[]): { transactionId: string, id: number } | undefined {
    for (const row of rows) {
      if (row.seconds_left === null || row.seconds_left <= 0) continue
      if (row.session_id !== null) add(row.session_id, row.seconds_left)
      else if (row.user_id !== null) addUser(row.user_id, row.revoked_seconds!, row.except_session_id, row.seconds_left)
    }
    const last = rows.at(-1)!
    return rows.length < pageSize || last.id === null ? undefined : { transactionId: last.transaction_id!, id: last.id }
  }

  async function look (): Promise<void> {
    const startedAt = performance.now()
    // A look that failed in the middle goes on where it stood.
    progress ??= { cursor: { transactionId: watermark, id: 0 }, watermark: undefined }
    for (let isLast = false; !isLast;) {
      const rows: RevocationRow[] = await database.query<RevocationRow>(readPage, [progress.cursor.transactionId, progress.cursor.id, pageSize])
      // That of the first page: what was written later is read once more by the next look.
      progress.watermark ??= rows[0]!.watermark
      const next = takeUp(rows)
      if (next) {
        progress.cursor = next
        onProgress(sessions.size + users.size)
      } else isLast = true
    }
    watermark = progress.watermark!
    progress = undefined
    isLoaded = true
    currentAt = startedAt
    if (performance.now() - purgedAt > purgeMs) {
      purgedAt = performance.now()
      forgetExpired()
      // The next look does not wait for it, and another purge makes good what this one could not.
      background.query(purge).catch(() => {})
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

    /** A session has ended here; the others learn of it from PostgreSQL. */
    add,

    isRevoked ({ sid, isLegacy, user_id: userId, iat }: Claims): boolean {
      if (sessions.has(sid)) return true
      const user = isLegacy ? users.get(userId) : undefined
      return user !== undefined && iat <= user.issuedUntil && sid !== user.exceptSid
    }
  }
}

import type { Claims } from './access-tokens.ts'
import type { Database } from '../stores/database.ts'

export interface RevocationsOptions {
  /** Reads new revocations. */
  database: Database
  /** Milliseconds between two reads: every process knows a revocation within a second. */
  periodMs?: number
  /** Called when the revocations cannot be read for a while, and when they can be again. */
  onChange?: (isCurrent: boolean, cause?: unknown) => void
  /** Called for each full page that was read, with the number of revocations in memory. */
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

// Reads the rows of all transactions that had not ended at the last read: a transaction that began earlier may commit
// later. Reading a row twice changes nothing. The left join returns one row in any case, for the watermark.
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

/** Rows per page: one statement for hundreds of thousands of rows would exceed its time limit. */
const pageSize = 20_000

/** Milliseconds without a successful read after which `onChange` is called. */
const staleMs = 2000

/** Milliseconds between two removals of expired entries from memory. */
const forgetMs = 60_000

/**
 * Seconds for which a session that ended on this process is kept at least, until its expiry is read from PostgreSQL.
 */
const localSeconds = 60

export type Revocations = ReturnType<typeof createRevocations>

/**
 * Revoked access tokens that have not expired, in memory: no request reads a store for them. New revocations are read
 * from PostgreSQL twice a second. While it is unavailable no session can be ended, and known revocations stay in
 * force. Redis is not involved.
 */
export function createRevocations (
  { database, periodMs = 400, onChange = () => {}, onProgress = () => {} }: RevocationsOptions
) {
  /** By session id: until when it is kept, by the monotonic clock. */
  const sessions = new Map<string, number>()
  /** By user: tokens of the Go service that were issued until a second are revoked, except those of one session. */
  const users = new Map<number, { issuedUntil: number, exceptSid: string | null, until: number }>()
  let watermark = '0'
  let progress: { cursor: { transactionId: string, id: number }, watermark: string | undefined } | undefined
  let isLoaded = false
  let currentAt = performance.now()
  let isAlarmed = false
  let forgotAt = performance.now()
  let timer: NodeJS.Timeout | undefined
  let isClosed = false

  function add (sid: string, secondsLeft = localSeconds): void {
    sessions.set(sid, Math.max(sessions.get(sid) ?? 0, performance.now() + secondsLeft * 1000))
  }

  function addUser (userId: number, issuedUntil: number, exceptSid: string | null, secondsLeft: number): void {
    const before = users.get(userId)
    if (!before || before.issuedUntil < issuedUntil) {
      users.set(userId, { issuedUntil, exceptSid, until: performance.now() + secondsLeft * 1000 })
    }
  }

  function forgetExpired (): void {
    const now = performance.now()
    for (const [sid, until] of sessions) if (until < now) sessions.delete(sid)
    for (const [userId, { until }] of users) if (until < now) users.delete(userId)
  }

  /** Adds one page. @returns the cursor of the next page; undefined after the last */
  function addPage (rows: RevocationRow[]): { transactionId: string, id: number } | undefined {
    for (const row of rows) {
      if (row.seconds_left === null || row.seconds_left <= 0) continue
      if (row.session_id !== null) add(row.session_id, row.seconds_left)
      else if (row.user_id !== null) addUser(row.user_id, row.revoked_seconds!, row.except_session_id, row.seconds_left)
    }
    const last = rows.at(-1)!
    return rows.length < pageSize || last.id === null ? undefined : { transactionId: last.transaction_id!, id: last.id }
  }

  async function readNew (): Promise<void> {
    const startedAt = performance.now()
    // A read that failed half-way continues where it stopped.
    progress ??= { cursor: { transactionId: watermark, id: 0 }, watermark: undefined }
    for (let isLast = false; !isLast;) {
      const rows: RevocationRow[] = await database.query<RevocationRow>(readPage, [
        progress.cursor.transactionId,
        progress.cursor.id,
        pageSize
      ])
      // The watermark of the first page: rows that were written later are read again next time.
      progress.watermark ??= rows[0]!.watermark
      const next = addPage(rows)
      if (next) {
        progress.cursor = next
        onProgress(sessions.size + users.size)
      } else isLast = true
    }
    watermark = progress.watermark!
    progress = undefined
    isLoaded = true
    currentAt = startedAt
    if (performance.now() - forgotAt > forgetMs) {
      forgotAt = performance.now()
      forgetExpired()
    }
  }

  async function tick (): Promise<void> {
    let cause: unknown
    await readNew().catch((error: unknown) => {
      cause = error
    })
    const isLate = performance.now() - currentAt > staleMs
    if (isLate === isAlarmed) return
    isAlarmed = isLate
    onChange(!isLate, cause)
  }

  function schedule (): void {
    if (isClosed) return
    timer = setTimeout(() => {
      tick().finally(schedule)
    }, periodMs)
  }

  return {
    /** Reads for the first time, and periodically from then on. Never rejects. */
    async start (): Promise<void> {
      await tick()
      schedule()
    },

    close (): void {
      isClosed = true
      clearTimeout(timer)
    },

    /** False until the revocations from before the start of this process have been read. */
    get isLoaded (): boolean {
      return isLoaded
    },

    /** Adds a session that ended on this process; other processes read it from PostgreSQL. */
    add,

    isRevoked ({ sid, isLegacy, user_id: userId, iat }: Claims): boolean {
      if (sessions.has(sid)) return true
      const user = isLegacy ? users.get(userId) : undefined
      return user !== undefined && iat <= user.issuedUntil && sid !== user.exceptSid
    }
  }
}

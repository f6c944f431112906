import type { SessionService } from './sessions.ts'

/** Milliseconds between two writes. */
const periodMs = 60_000

/** Sessions per statement. */
const batchSize = 1000
/** Sessions that are kept in memory until the next write; further ones are not recorded. */
const maxKept = 100_000

export type SessionActivity = ReturnType<typeof createSessionActivity>

/** Records when sessions were last used: in memory for each request, in PostgreSQL once a minute. */
export function createSessionActivity (sessions: Pick<SessionService, 'noteUse'>) {
  let used = new Map<string, number>()

  async function write (): Promise<void> {
    const all = [...used]
    used = new Map()
    for (let start = 0; start < all.length; start += batchSize) {
      await sessions.noteUse(new Map(all.slice(start, start + batchSize).map(([sid, at]) => [sid, new Date(at)])))
    }
  }

  const timer = setInterval(() => {
    // A session that could not be written is written after its next use.
    write().catch(() => {})
  }, periodMs)
  timer.unref()

  return {
    note (sid: string): void {
      if (used.size < maxKept || used.has(sid)) used.set(sid, Date.now())
    },

    get size () {
      return used.size
    },

    write,

    async close (): Promise<void> {
      clearInterval(timer)
      await write().catch(() => {})
    }
  }
}

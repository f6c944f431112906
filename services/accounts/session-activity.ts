import type { SessionService } from './sessions.ts'

/** Milliseconds between two writings. */
const periodMs = 60_000

/** Sessions that are written down by one statement, and kept at most until then. */
const maxTogether = 1000
const maxKept = 100_000

export type SessionActivity = ReturnType<typeof createSessionActivity>

/** When sessions were used, noted in memory at each request and written down once a minute. */
export function createSessionActivity (sessions: Pick<SessionService, 'noteUse'>) {
  let used = new Map<string, number>()

  async function write (): Promise<void> {
    const all = [...used]
    used = new Map()
    for (let start = 0; start < all.length; start += maxTogether) {
      await sessions.noteUse(new Map(all.slice(start, start + maxTogether).map(([sid, at]) => [sid, new Date(at)])))
    }
  }

  const timer = setInterval(() => {
    // What could not be written is written with the next use.
    write().catch(() => {})
  }, periodMs)
  timer.unref()

  return {
    note (sid: string): void {
      if (used.size < maxKept || used.has(sid)) used.set(sid, Date.now())
    },

    get size () { return used.size },

    write,

    async close (): Promise<void> {
      clearInterval(timer)
      await write().catch(() => {})
    }
  }
}

import { ExpiringMap } from '../shared/expiring-map.ts'

/** Milliseconds for which whoever has written reads past the cache: longer than anything stays in it. */
const ownWriteMs = 1000

/** Writers per generation of the map: far more than one process serves in a second. */
const maxWriters = 100_000

/** Milliseconds between two announcements. */
const announceMs = 3

export interface RecentWritersOptions {
  /** Tells the other processes who has written. */
  announce?: ((userIds: number[]) => void) | undefined
}

export type RecentWriters = ReturnType<typeof createRecentWriters>

/** Users who wrote a moment ago, here or at another process. */
export function createRecentWriters ({ announce }: RecentWritersOptions = {}) {
  const writers = new ExpiringMap<number, true>({ maxAgeMs: ownWriteMs, maxSize: maxWriters })
  let unannounced = new Set<number>()
  let timer: NodeJS.Timeout | undefined

  function announceAll (): void {
    timer = undefined
    if (unannounced.size === 0) return
    const userIds = [...unannounced]
    unannounced = new Set()
    announce?.(userIds)
    // The first goes at once, those right after it go together.
    timer = setTimeout(announceAll, announceMs)
  }

  return {
    /** A user has written here. */
    add (userId: number): void {
      writers.set(userId, true)
      if (!announce) return
      unannounced.add(userId)
      if (!timer) announceAll()
    },

    /** A user has written at another process. */
    hear (userId: number): void { writers.set(userId, true) },

    has: (userId: number): boolean => writers.get(userId) !== undefined,

    get size () { return writers.size }
  }
}

import { ExpiringMap } from '../shared/expiring-map.ts'

/** Milliseconds for which an author's reads bypass the response cache: longer than a response is fresh. */
const ownWriteMs = 1000

/** Writers per generation of the map: far more than one process serves in a second. */
const maxWriters = 100_000

/** Milliseconds between two announcements. */
const announceMs = 3

export interface RecentWritersOptions {
  /** Announces writers to the other processes. */
  announce?: ((userIds: number[]) => void) | undefined
}

export type RecentWriters = ReturnType<typeof createRecentWriters>

/** Read-your-writes: the users who have written within the last second, on this or another process. */
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
    // The first writer is announced at once, the following ones in batches.
    timer = setTimeout(announceAll, announceMs)
  }

  return {
    /** Records a user who has written on this process. */
    add (userId: number): void {
      writers.set(userId, true)
      if (!announce) return
      unannounced.add(userId)
      if (!timer) announceAll()
    },

    /** Records a user who has written on another process. */
    hear (userId: number): void {
      writers.set(userId, true)
    },

    has: (userId: number): boolean => writers.get(userId) !== undefined,

    get size () {
      return writers.size
    }
  }
}

import { RecentMap } from './recent-map.ts'

/** Milliseconds for which whoever has written reads past the cache: longer than anything stays in it. */
const ownWriteMs = 1000

export type RecentWriters = ReturnType<typeof createRecentWriters>

/** Users who wrote a moment ago. */
export function createRecentWriters () {
  const writers = new RecentMap<number, true>({ maxAgeMs: ownWriteMs })
  return {
    add (userId: number): void { writers.set(userId, true) },
    has: (userId: number): boolean => writers.get(userId) !== undefined
  }
}

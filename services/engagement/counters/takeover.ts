import { Cluster, type Redis } from 'ioredis'
import type { Ledger } from './ledger.ts'
import { legacyPattern, parseLegacyKey, takeoverKey } from './redis-keys.ts'

export interface TakeoverResult {
  /** Videos whose counts were imported. */
  videos: number
  /** Keys that are not a count: another type, not a number, negative, or of a video that does not exist. */
  skipped: number
}

/**
 * Imports the likes and comments that the Go service has counted in `video:{id}:likes` and `:comments`. They have no
 * users, so they become a base that is added to the counts with users. Its live viewers are not imported: every
 * client that watches sends a heartbeat within 15 seconds.
 *
 * Counts are merged by maximum, so that the import may be repeated, interrupted, and run by several processes at
 * once. The keys stay: the Go service may still be running, and a rollback to it finds its counts.
 *
 * @param force repeats the import, after the last instance of the Go service was stopped
 * @returns undefined when it was done before
 */
export async function takeOver (
  redis: Redis | Cluster,
  ledger: Ledger,
  { force = false } = {}
): Promise<TakeoverResult | undefined> {
  if (!force && await redis.exists(takeoverKey)) return undefined
  const result: TakeoverResult = { videos: 0, skipped: 0 }
  for (const node of redis instanceof Cluster ? redis.nodes('master') : [redis]) {
    for (let cursor = '0', isFirst = true; isFirst || cursor !== '0'; isFirst = false) {
      const [next, keys] = await node.scan(cursor, 'MATCH', legacyPattern, 'COUNT', 1000)
      cursor = next
      await mergePage(redis, ledger, keys, result)
    }
  }
  await redis.set(takeoverKey, new Date().toISOString())
  return result
}

async function mergePage (
  redis: Redis | Cluster,
  ledger: Ledger,
  keys: string[],
  result: TakeoverResult
): Promise<void> {
  const counts = new Map<number, { videoId: number, likes: number, comments: number }>()
  await Promise.all(keys.map(async key => {
    const legacy = parseLegacyKey(key)
    if (!legacy) return
    // One by one and not by MGET: in a cluster they are in many slots, and a key of another type must not fail the
    // others.
    const value = await redis.get(key).catch((error: Error) => {
      if (error.message.startsWith('WRONGTYPE')) return null
      throw error
    })
    if (value === null || !/^\d{1,15}$/.test(value)) {
      result.skipped++
      return
    }
    const count = counts.get(legacy.videoId) ?? { videoId: legacy.videoId, likes: 0, comments: 0 }
    count[legacy.metric] = Number(value)
    counts.set(legacy.videoId, count)
  }))
  if (counts.size === 0) return
  const taken = await ledger.takeOver([...counts.values()])
  result.videos += taken
  result.skipped += counts.size - taken
}

import { Cluster, type Redis } from 'ioredis'
import type { Ledger } from './ledger.ts'
import { legacyPattern, parseLegacyKey, takeoverKey } from './redis-keys.ts'

export interface TakeoverResult {
  /** Videos whose counts were taken over. */
  videos: number
  /** Keys that are no count: another type, no number, below zero, or a video that does not exist. */
  skipped: number
}

/**
 * Takes over the likes and comments that the Go service had counted in `video:{id}:likes` and `:comments`. They
 * have no names, so they become a base below those that do. Its live viewers are left: they were a number
 * that went up and down by hand, and every client that watches sends a heartbeat within 15 seconds.
 *
 * Merged by maximum, so that it may be repeated, stopped anywhere, and done by several at once. The keys stay
 * as they are: the Go service may still be running, and whoever goes back to it finds its counts.
 *
 * @param force repeats it although it was done: after the last instance of the Go service has been stopped
 * @returns undefined when it was done before
 */
export async function takeOver (redis: Redis | Cluster, ledger: Ledger, { force = false } = {}): Promise<TakeoverResult | undefined> {
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

async function mergePage (redis: Redis | Cluster, ledger: Ledger, keys: string[], result: TakeoverResult): Promise<void> {
  const counts = new Map<number, { videoId: number, likes: number, comments: number }>()
  await Promise.all(keys.map(async key => {
    const legacy = parseLegacyKey(key)
    if (!legacy) return
    // One by one and not by MGET: in a cluster they lie in many slots, and a key of another type is no error for the rest.
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

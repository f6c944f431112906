import type { Redis } from 'ioredis'
import { metrics, type Metric } from '../schemas/engagement.ts'
import type { CounterStore, StoredCounters } from './engagement.ts'

/** The keys of the Go service, which its Redis still holds. */
const keyOf = (videoId: number, metric: Metric): string => `video:${videoId}:${metric}`

const keysOf = (videoId: number): string[] => metrics.map(metric => keyOf(videoId, metric))

/** Counters in Redis, where all processes share them. */
export function createRedisCounters (redis: Redis): CounterStore {
  return {
    async increment (videoId, metric) {
      // Both commands leave in one packet, and Redis runs them in this order.
      const [, values] = await Promise.all([
        redis.incr(keyOf(videoId, metric)),
        redis.mget(keysOf(videoId))
      ])
      return toCounters(values)
    },

    async read (videoIds) {
      const values = await redis.mget(videoIds.flatMap(keysOf))
      return videoIds.map((_, index) => toCounters(values.slice(index * metrics.length)))
    }
  }
}

function toCounters ([likes, comments, liveViewers]: (string | null)[]): StoredCounters {
  return {
    live_viewers: toCount(liveViewers),
    like_count: toCount(likes),
    comment_count: toCount(comments)
  }
}

/** The Go service let viewers go below zero; nobody is shown that. */
const toCount = (value: string | null | undefined): number => Math.max(0, Math.trunc(Number(value ?? 0)) || 0)

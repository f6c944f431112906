import type { Metric } from '../schemas/engagement.ts'
import type { CounterStore, StoredCounters } from './engagement.ts'

const fieldOf = {
  likes: 'like_count',
  comments: 'comment_count',
  live_viewers: 'live_viewers'
} as const satisfies Record<Metric, keyof StoredCounters>

/** Counters in this process, for development without Redis. They end with the process. */
export function createMemoryCounters (): CounterStore {
  const counters = new Map<number, StoredCounters>()
  const none: StoredCounters = { live_viewers: 0, like_count: 0, comment_count: 0 }

  return {
    async increment (videoId, metric) {
      const entry = counters.get(videoId) ?? { ...none }
      entry[fieldOf[metric]]++
      counters.set(videoId, entry)
      return { ...entry }
    },

    async read (videoIds) {
      return videoIds.map(id => ({ ...(counters.get(id) ?? none) }))
    }
  }
}

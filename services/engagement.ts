import type { Counters, Metric } from '../schemas/engagement.ts'
import type { Database } from './database.ts'
import { ApiError } from './errors.ts'

/** The counters of one video as a store keeps them. */
export interface StoredCounters {
  live_viewers: number
  like_count: number
  comment_count: number
}

/** Where counters live: Redis, or this process. */
export interface CounterStore {
  /** Counts one up and answers with all counters of the video. Rejects when the store is away. */
  increment (videoId: number, metric: Metric): Promise<StoredCounters>
  /** The counters of each video, in the order of the ids. Rejects when the store is away. */
  read (videoIds: number[]): Promise<StoredCounters[]>
}

/** The columns of a video that its counters need. */
interface CountedVideo {
  id: number
  view_count: number
}

const viewsOfVideo = {
  name: 'views_of_video',
  text: 'select id, view_count from videos where id = $1'
}

const unknown = { live_viewers: null, like_count: null, comment_count: null }

export type EngagementService = ReturnType<typeof createEngagementService>

export function createEngagementService (database: Database, store: CounterStore) {
  return {
    /**
     * Counts one like, comment or viewer of a video.
     *
     * @throws ApiError `not_found` for a video that does not exist, which is never counted;
     *   `engagement_unavailable` when the store is away
     */
    async record (videoId: number, metric: Metric): Promise<Counters> {
      const [video] = await database.query<CountedVideo>(viewsOfVideo, [videoId])
      if (!video) throw new ApiError('not_found', { message: `There is no video ${videoId}` })
      try {
        const stored = await store.increment(videoId, metric)
        return { ...stored, view_count: video.view_count }
      } catch (error) {
        throw new ApiError('engagement_unavailable', { cause: error })
      }
    },

    /** The counters of some videos in one round trip. A number that the store cannot tell is null, not 0. */
    async read (videos: CountedVideo[]): Promise<Counters[]> {
      if (videos.length === 0) return []
      const stored = await store.read(videos.map(video => video.id)).catch(() => undefined)
      return videos.map((video, index) => ({ ...(stored?.[index] ?? unknown), view_count: video.view_count }))
    }
  }
}

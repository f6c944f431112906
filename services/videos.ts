import type { Counters } from '../schemas/engagement.ts'
import type { Video } from '../schemas/video.ts'
import { ledgerColumns, type LedgerRow } from './counters/ledger.ts'
import type { Database } from './database.ts'
import type { EngagementService } from './engagement.ts'
import { ApiError } from './errors.ts'

interface VideoRow extends LedgerRow {
  user_id: number
  title: string
  description: string
  thumbnail_url: string
  stream_url: string
  is_live: boolean
  is_adult_content: boolean
  created_at: Date
  updated_at: Date
}

export interface VideoPage {
  limit: number
  offset: number
}

const select = `
  select v.id as video_id, v.user_id, v.title, v.description, v.thumbnail_url, v.stream_url, v.is_live, v.is_adult_content,
    v.created_at, v.updated_at, ${ledgerColumns}
  from videos v left join video_counters c on c.video_id = v.id`

const newestFirst = 'order by v.created_at desc, v.id desc limit $1 offset $2'

const videoById = {
  name: 'video_by_id',
  text: `${select} where v.id = $1`
}

// One statement for each filter, so that each plan uses the index made for it.
const listAll = {
  name: 'list_videos',
  text: `${select} ${newestFirst}`
}
const listLive = {
  name: 'list_live_videos',
  text: `${select} where v.is_live ${newestFirst}`
}
const listRecorded = {
  name: 'list_recorded_videos',
  text: `${select} where not v.is_live ${newestFirst}`
}
const listOfUser = {
  name: 'list_videos_of_user',
  text: `${select} where v.user_id = $3 ${newestFirst}`
}

export type VideoService = ReturnType<typeof createVideoService>

export function createVideoService (database: Database, engagement: EngagementService) {
  /** One statement and one round trip to the counters, however many videos. */
  async function list (statement: typeof listAll, values: unknown[]): Promise<Video[]> {
    const readAt = Date.now()
    const rows = await database.query<VideoRow>(statement, values)
    const counters = await engagement.read(rows, readAt)
    return rows.map((row, index) => toVideo(row, counters[index]!))
  }

  return {
    /** @throws ApiError `not_found` */
    async get (id: number): Promise<Video> {
      const [video] = await list(videoById, [id])
      if (!video) throw new ApiError('not_found', { message: `There is no video ${id}` })
      return video
    },

    /** Newest first; `live` left out lists live and recorded videos alike. */
    list: ({ limit, offset }: VideoPage, live?: boolean): Promise<Video[]> =>
      list(live === undefined ? listAll : live ? listLive : listRecorded, [limit, offset]),

    /** Newest first; a user that does not exist has no videos. */
    listOfUser: (userId: number, { limit, offset }: VideoPage): Promise<Video[]> =>
      list(listOfUser, [limit, offset, userId])
  }
}

function toVideo (row: VideoRow, counters: Counters): Video {
  return {
    id: row.video_id,
    user_id: row.user_id,
    title: row.title,
    description: row.description,
    thumbnail_url: row.thumbnail_url,
    stream_url: row.stream_url,
    is_live: row.is_live,
    is_adult_content: row.is_adult_content,
    ...counters,
    created_at: row.created_at.toISOString(),
    updated_at: row.updated_at.toISOString()
  }
}

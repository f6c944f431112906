import type { Counters } from '../../schemas/engagement.ts'
import type { NewVideo, Video, VideoListQuery, VideoPatch } from '../../schemas/video.ts'
import { steadyNow } from '../shared/clock.ts'
import { ledgerColumns, type LedgerRow } from '../engagement/counters/ledger.ts'
import { createBatcher } from '../engagement/counters/batcher.ts'
import { timestampOf, type Cursors, type Position } from './cursors.ts'
import { createOnce } from '../stores/creation-receipts.ts'
import type { Database, Statement } from '../stores/database.ts'
import type { EngagementService } from '../engagement/engagement.ts'
import { ApiError } from '../shared/errors.ts'
import { useOf, type IdempotentUse } from '../shared/idempotency.ts'
import type { ReadDatabase } from '../stores/replica-router.ts'
import { serializeUrl } from '../http/urls.ts'
import { isActive } from '../accounts/account-row.ts'
import { isShown, type AdultView } from '../accounts/adult-access.ts'

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
  /** Microseconds since 1970, as text: more than a number holds exactly. */
  created_micros: string
  /** Changes with each update of the content. */
  version: number
}

/** A video and the version of its content: two versions of a video never have the same number. */
export interface StoredVideo extends Video {
  version: number
}

export interface VideoPage {
  videos: Video[]
  /** Goes on after the last of the videos; undefined on the last page. */
  nextCursor: string | undefined
}

/** Filters of a list. */
export interface VideoFilters extends Omit<VideoListQuery, 'limit' | 'offset' | 'cursor'> {
  userId?: number
}

/** Which page of a list. */
export type PageRequest = Pick<VideoListQuery, 'limit' | 'offset' | 'cursor'>

/** The version of a video's content: milliseconds since 1970, which grow by one at least with each update. */
const version = (table: string): string => `floor(extract(epoch from ${table}.updated_at) * 1000)::bigint`

const columns = `
  select v.id as video_id, v.user_id, v.title, v.description, v.thumbnail_url, v.stream_url, v.is_live, v.is_adult_content,
    v.created_at, v.updated_at, (extract(epoch from v.created_at) * 1000000)::bigint::text as created_micros,
    ${version('v')} as version, ${ledgerColumns}`

const select = `${columns} from videos v left join video_counters c on c.video_id = v.id`

/** One video with its row of the ledger. */
export const videoById = {
  name: 'video_by_id',
  text: `${select} where v.id = $1 and ${isActive('v.user_id')}`
}

/** Several videos; missing ones are left out. */
const videosByIds = {
  name: 'videos_by_ids',
  text: `${select} where v.id = any($1::bigint[]) and ${isActive('v.user_id')}`
}

/** Videos that are read by one statement when many are asked for at once. */
const maxTogether = 100

// live_videos_of (migration 007) locks the user and counts in a snapshot of its own: two at once do not both get the
// last place.
const insertVideo = {
  name: 'insert_video',
  text: `
    with owner as (
      select id, not $6::boolean or live_videos_of(id) < $8::int as has_room, is_adult or not ($7::boolean and $9::boolean) as may_publish
      from users where id = $1 and ${isActive('users.id')}
    ), added as (
      insert into videos (user_id, title, description, thumbnail_url, stream_url, is_live, is_adult_content)
      select id, $2, $3, $4, $5, $6, $7 from owner where has_room and may_publish
      returning id
    ), receipt as (
      insert into creation_receipts (use, fingerprint, created_id)
      select $10::text, $11::text, id from added where $10::text is not null
    )
    select has_room, may_publish, (select id from added) as id from owner`
}

// A column that was not named keeps its value: two changes at once of different columns both stay. Of
// two concurrent conditional changes the second waits for the row and sees the new version. updated_at grows by a
// millisecond at least, the unit of versions (the clock may be behind it, for a row that waited or is from the future).
const updateVideo = {
  name: 'update_video',
  text: `
    with own as materialized (
      select v.id, v.is_live or not coalesce($7, false) or live_videos_of(v.user_id) < $9::int as has_room,
        v.is_adult_content or u.is_adult or not (coalesce($8, false) and $10::boolean) as may_publish,
        $11::bigint[] is null or ${version('v')} = any($11::bigint[]) as is_expected
      from videos v join users u on u.id = v.user_id where v.id = $1 and v.user_id = $2
    ), updated as (
      update videos set
        title = coalesce($3, title), description = coalesce($4, description), thumbnail_url = coalesce($5, thumbnail_url),
        stream_url = coalesce($6, stream_url), is_live = coalesce($7, is_live),
        is_adult_content = coalesce($8, is_adult_content),
        updated_at = greatest(clock_timestamp(),
          least(updated_at, clock_timestamp() + interval '1 hour') + interval '1 millisecond')
      where id in (select id from own where has_room and may_publish) and user_id = $2
        and ($11::bigint[] is null or ${version('videos')} = any($11::bigint[]))
      returning id
    )
    select exists (select from updated) as is_done, user_id = $2 as is_own, coalesce((select has_room from own), true) as has_room,
      coalesce((select may_publish from own), true) as may_publish, coalesce((select is_expected from own), true) as is_expected
    from videos where id = $1`
}

const deleteVideo = {
  name: 'delete_video',
  text: `
    with deleted as (delete from videos where id = $1 and user_id = $2 returning id)
    select exists (select from deleted) as is_done, user_id = $2 as is_own, true as has_room, true as may_publish, true as is_expected
    from videos where id = $1`
}

/**
 * One statement for each combination of filters, so that each plan uses the index made for it. $1 is the limit,
 * $2 and $3 the position after which the page begins (or $2 the offset), then the user whose videos are listed and the
 * owner whose adult content is shown, where there is one.
 */
export function createListStatement (
  { live, adult, userId, ownerId }: VideoFilters & { ownerId?: number | undefined },
  isKeyset: boolean
): Statement {
  const conditions = [
    isActive('v.user_id'),
    live === undefined ? '' : live ? 'v.is_live' : 'not v.is_live',
    adult === 'exclude' ? 'not v.is_adult_content' : adult === 'only' ? 'v.is_adult_content' : '',
    ownerId === undefined
      ? ''
      : `(not v.is_adult_content or v.user_id = $${2 + Number(isKeyset) + 1 + Number(userId !== undefined)})`,
    isKeyset ? '(v.created_at, v.id) < ($2::timestamptz, $3)' : '',
    userId === undefined ? '' : `v.user_id = $${isKeyset ? 4 : 3}`
  ].filter(Boolean)
  // The page first, then its counters: counters of rows that `offset` skips are not read.
  return {
    name: [
      'list_videos',
      live ?? 'any',
      adult ?? 'include',
      userId === undefined ? 'all' : 'user',
      ...ownerId === undefined ? [] : ['own'],
      isKeyset ? 'keyset' : 'offset'
    ].join('_'),
    text: `${columns}
      from (select * from videos v where ${conditions.join(' and ')}
        order by v.created_at desc, v.id desc limit $1 ${isKeyset ? '' : 'offset $2'}) v
      left join video_counters c on c.video_id = v.id
      order by v.created_at desc, v.id desc`
  }
}

export interface VideoDatabases {
  /** For writes, and for reads of users who have just written. */
  database: Database
  /** For all other reads. */
  readDatabase: ReadDatabase
}

/** The reader of videos. */
export interface Reader {
  /** Which adult content is shown. */
  view: AdultView
  /** Whether the primary must be read, because the reader has just written. */
  isFresh?: boolean
  /** Aborted when no client waits for the result any more. */
  signal?: AbortSignal
}

export type VideoService = ReturnType<typeof createVideoService>

export function createVideoService (
  { database, readDatabase }: VideoDatabases,
  engagement: EngagementService,
  cursors: Cursors,
  { maxLive, gate }: { maxLive: number, gate: 'server' | 'client' }
) {
  /** One statement and one round trip to the counters, however many videos. */
  async function read (
    statement: Statement,
    values: unknown[],
    { source = readDatabase, signal }: { source?: ReadDatabase, signal?: AbortSignal | undefined } = {}
  ): Promise<{ rows: VideoRow[], videos: StoredVideo[] }> {
    const readAt = steadyNow() - source.maxAgeMs
    const rows = await source.query<VideoRow>(statement, values, signal)
    const counters = await engagement.read(rows, readAt)
    return { rows, videos: rows.map((row, index) => toVideo(row, counters[index]!)) }
  }

  const tooManyLive = (): ApiError =>
    new ApiError('too_many_live_videos', {
      message: `${maxLive} of your videos are live already: end one of them first`
    })

  const primary: ReadDatabase = {
    maxAgeMs: 0,
    query: (statement, values, signal) => database.query(statement, values, signal)
  }

  const sourceFor = ({ isFresh = false }: Reader): ReadDatabase => isFresh ? primary : readDatabase

  /** Reads the videos of all requests of one turn of the event loop by one statement and one read of the counters. */
  const readTogether = createBatcher<{ videoId: number }, StoredVideo | undefined>({
    shardOf: () => 0,
    maxSize: maxTogether,
    send: async (shard, wanted) => {
      const { videos } = await read(videosByIds, [wanted.map(({ videoId }) => videoId)])
      const found = new Map(videos.map(video => [video.id, video]))
      return wanted.map(({ videoId }) => found.get(videoId))
    }
  })

  async function get (id: number): Promise<StoredVideo> {
    const { videos: [video] } = await read(videoById, [id], { source: primary })
    if (!video) throw missing(id)
    return video
  }

  /** Changes or deletes a video of a user. The statement checks the ownership and tells the refusals apart. */
  async function change (
    statement: Statement,
    id: number,
    userId: number,
    { values = [], isConditional = false }: { values?: unknown[], isConditional?: boolean } = {}
  ): Promise<void> {
    interface Row {
      is_done: boolean
      is_own: boolean
      has_room: boolean
      may_publish: boolean
      is_expected: boolean
    }
    const [row] = await database.query<Row>(statement, [id, userId, ...values])
    if (row?.is_own && !row.is_expected) throw new ApiError('precondition_failed')
    if (row?.is_own && !row.may_publish) throw notAnAdult()
    if (row?.is_own && !row.has_room) throw tooManyLive()
    if (row?.is_own && !row.is_done && isConditional) throw new ApiError('precondition_failed')
    // The user's own video that was not changed was deleted at the same moment.
    if (!row || (row.is_own && !row.is_done)) throw missing(id)
    if (!row.is_done) throw new ApiError('forbidden', { message: `Video ${id} belongs to somebody else` })
  }

  /** @returns the id of the video */
  async function insert (userId: number, video: NewVideo, once: IdempotentUse | undefined): Promise<number> {
    const [row] = await database.query<{ id: number | null, has_room: boolean, may_publish: boolean }>(insertVideo, [
      userId,
      video.title,
      video.description ?? '',
      serializeUrl(video.thumbnail_url ?? ''),
      serializeUrl(video.stream_url ?? ''),
      video.is_live ?? false,
      video.is_adult_content ?? false,
      maxLive,
      gate === 'server',
      once?.use,
      once?.fingerprint
    ])
    if (!row) throw new ApiError('unauthorized', { message: 'The user of this token no longer exists' })
    if (!row.may_publish) throw notAnAdult()
    if (row.id === null) throw tooManyLive()
    return row.id
  }

  return {
    /**
     * @throws ApiError `not_found`; `adult_content_restricted`
     */
    async get (id: number, reader: Reader): Promise<StoredVideo> {
      const video = reader.isFresh ? await get(id) : await readTogether({ videoId: id })
      if (!video) throw missing(id)
      if (!isShown(video, reader.view)) throw new ApiError('adult_content_restricted')
      return video
    },

    /**
     * Returns a page of videos, newest first. Following the cursors shows each video that exists all the time exactly
     * once, whatever is added and deleted meanwhile. A user who does not exist has no videos.
     *
     * @throws ApiError `invalid_cursor`; `invalid_request` for an offset together with a cursor
     */
    async list (filters: VideoFilters, { limit, offset, cursor }: PageRequest, reader: Reader): Promise<VideoPage> {
      const { view: { seesAll, ownerId } } = reader
      const scope = JSON.stringify([filters.userId ?? null, filters.live ?? null, filters.adult ?? null])
      if (cursor !== undefined && offset > 0) {
        throw new ApiError('invalid_request', {
          message: 'offset and cursor both say where a page begins: send one of them'
        })
      }
      const after = cursor === undefined ? undefined : cursors.decode(cursor, scope)
      if (!seesAll && ownerId === undefined && filters.adult === 'only') return { videos: [], nextCursor: undefined }
      const shown = seesAll || filters.adult === 'exclude'
        ? filters
        : ownerId === undefined
          ? { ...filters, adult: 'exclude' as const }
          : { ...filters, ownerId }
      // One row more than requested shows whether there is a next page.
      const { rows, videos } = await read(createListStatement(shown, after !== undefined), [
        limit + 1,
        ...(after ? [timestampOf(after.createdMicros), after.id] : [offset]),
        ...(filters.userId === undefined ? [] : [filters.userId]),
        ...('ownerId' in shown ? [shown.ownerId] : [])
      ], { source: sourceFor(reader), signal: reader.signal })
      const last = rows.length > limit ? rows[limit - 1] : undefined
      return { videos: videos.slice(0, limit), nextCursor: last && cursors.encode(positionOf(last), scope) }
    },

    /**
     * Publishes a video; with an Idempotency-Key once, however often it is sent.
     *
     * @throws ApiError `unauthorized` when the user is no longer there; `too_many_live_videos`; `not_an_adult`;
     *   `idempotency_key_reused`; `not_found` when the video of the key was deleted
     */
    async create (
      userId: number,
      video: NewVideo,
      key: string | undefined
    ): Promise<{ video: StoredVideo, isReplay: boolean }> {
      const once = key === undefined ? undefined : useOf(`video:${userId}`, key, video)
      const result = await createOnce(database, once, () => insert(userId, video, once))
      return 'created' in result
        ? { video: await get(result.created), isReplay: false }
        : { video: await get(result.replayedId), isReplay: true }
    },

    /**
     * Changes the given members.
     *
     * @param versions of which the video must have one; any when left out
     * @throws ApiError `not_found`; `forbidden`; `precondition_failed`; `too_many_live_videos`; `not_an_adult`
     */
    async update (id: number, userId: number, patch: VideoPatch, versions?: number[]): Promise<StoredVideo> {
      const values = [
        patch.title,
        patch.description,
        patch.thumbnail_url === undefined ? undefined : serializeUrl(patch.thumbnail_url),
        patch.stream_url === undefined ? undefined : serializeUrl(patch.stream_url),
        patch.is_live,
        patch.is_adult_content,
        maxLive,
        gate === 'server',
        versions
      ]
      await change(updateVideo, id, userId, { values, isConditional: versions !== undefined })
      engagement.refresh(id)
      return await get(id)
    },

    /** Deletes a video and its counters. @throws ApiError `not_found`; `forbidden` */
    async remove (id: number, userId: number): Promise<void> {
      await change(deleteVideo, id, userId)
      await engagement.forget(id)
    }
  }
}

const notAnAdult = (): ApiError =>
  new ApiError('not_an_adult', { message: 'Only adults publish adult content: set is_adult first' })

const missing = (id: number): ApiError => new ApiError('not_found', { message: `There is no video ${id}` })

const positionOf = (row: VideoRow): Position => ({ createdMicros: BigInt(row.created_micros), id: row.video_id })

function toVideo (row: VideoRow, counters: Counters): StoredVideo {
  return {
    version: row.version,
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

import type { Counters, CountersOfVideo, Engagement } from '../../schemas/engagement.ts'
import type { Durability } from './counters/durability.ts'
import type { KnownVideo, KnownVideos } from './counters/known-videos.ts'
import type { Ledger, LedgerRow } from './counters/ledger.ts'
import type { CheckedUse, CounterStore, Replay, StoredCounters } from './counters/store.ts'
import { ApiError } from '../shared/errors.ts'
import { useOf, type IdempotentUse } from '../shared/idempotency.ts'
import { ExpiringMap } from '../shared/expiring-map.ts'
import { isShown, type AdultAccess } from '../accounts/adult-access.ts'

export interface EngagementOptions {
  store: CounterStore
  ledger: Ledger
  known: KnownVideos
  /** Users engage only with videos that they may see. */
  adultAccess: Pick<AdultAccess, 'viewOf'>
  /** When writes are acknowledged. */
  durability: Durability
  /** Time up to which the ledger is complete, in milliseconds since 1970; undefined while unknown. */
  flushedUntil: () => number | undefined
}

/** The request of a comment. */
export interface CommentRequest {
  /** The client's Idempotency-Key. */
  key?: string | undefined
  payload: unknown
}

/** Milliseconds for which the response to a heartbeat is reused for the viewer's next ones. */
const repeatMs = 1000

/**
 * Milliseconds after which the first use of a key, if it has no response, is not in flight any more: its process has
 * died.
 */
const inFlightMs = 2000

/**
 * Heartbeat responses that are kept, per generation of the map; heartbeats beyond them cost a call of the store each.
 */
const maxRecent = 50_000

/** The response of a write. */
export const recorded = (data: Counters): Engagement => ({ message: 'Engagement recorded', data })

export type EngagementService = ReturnType<typeof createEngagementService>

/**
 * Likes, comments, heartbeats, and the counters of videos: the ledger's totals plus what the store has counted since.
 */
export function createEngagementService (options: EngagementOptions) {
  const { store, ledger, known, adultAccess, durability, flushedUntil } = options
  const beats = createRecent<StoredCounters>(repeatMs)
  const inFlight = new Map<string, string>()

  /**
   * Returns the row of a video that exists and that a user may see.
   *
   * @throws ApiError `not_found`; `adult_content_restricted`
   */
  async function existing (videoId: number, userId: number | undefined): Promise<KnownVideo> {
    const row = known.peek(videoId) ?? (await known.get([videoId])).get(videoId)
    if (!row) throw new ApiError('not_found', { message: `There is no video ${videoId}` })
    if (row.is_adult_content && !await isShownTo(row, userId)) throw new ApiError('adult_content_restricted')
    return row
  }

  const isShownTo = async (row: KnownVideo, userId: number | undefined): Promise<boolean> =>
    row.user_id === userId || isShown(row, await adultAccess.viewOf(userId))

  /** Whether a row was read before the store's generation began: then it may lack counts of the generation before. */
  const isEarly = (row: LedgerRow, readAt: number): boolean => readAt <= store.generationSeenAt(row.video_id)

  /** Re-reads the rows that are too early. */
  async function current<Row extends LedgerRow> (
    rows: Row[],
    readAt: (row: Row) => number
  ): Promise<(Row | KnownVideo)[]> {
    const early = rows.filter(row => isEarly(row, readAt(row)))
    if (early.length === 0) return rows
    const again = await known.reload(early.map(row => row.video_id)).catch(() => new Map<number, KnownVideo>())
    return rows.map(row => again.get(row.video_id) ?? row)
  }

  async function answer (row: KnownVideo, stored: StoredCounters, userId: number): Promise<Counters> {
    const base = isEarly(row, row.readAt) ? (await current([row], ({ readAt }) => readAt))[0]! : row
    const counters: Counters = add(base, stored)
    counters.liked = stored.isLiked ?? (counters.like_count === 0 ? false : await isLikedBy(userId, row.video_id))
    return counters
  }

  const likedBy = (userId: number, videoIds: number[]): Promise<Set<number> | undefined> =>
    videoIds.length === 0 ? Promise.resolve(new Set()) : ledger.likedBy(userId, videoIds).catch(() => undefined)

  const isLikedBy = async (userId: number, videoId: number): Promise<boolean | null> =>
    (await likedBy(userId, [videoId]))?.has(videoId) ?? null

  async function setLike (videoId: number, userId: number, isLiked: boolean): Promise<Counters> {
    const row = await existing(videoId, userId)
    beats.delete(`${videoId}:${userId}`)
    const stored = await available(async () => {
      for (;;) {
        const stored = await store.setLike(videoId, userId, isLiked)
        if (stored !== 'cold') return stored
        await store.warm(videoId, () => ledger.likersOf(videoId))
      }
    })
    await durability.like(videoId, userId, stored)
    return await answer(row, stored, userId)
  }

  /** Counts a comment with an Idempotency-Key: once, however often it is sent. */
  async function commentOnce (
    row: KnownVideo,
    userId: number,
    key: string,
    payload: unknown
  ): Promise<{ body: Engagement, isReplay: boolean }> {
    const videoId = row.video_id
    const once = useOf(String(userId), key, payload)
    const claim = `${videoId}:${once.use}`
    const claimed = inFlight.get(claim)
    if (claimed !== undefined) {
      throw claimed === once.fingerprint
        ? new ApiError('idempotency_in_flight', { retryAfter: 1 })
        : new ApiError('idempotency_key_reused')
    }
    inFlight.set(claim, once.fingerprint)
    try {
      const used = await countOnce(videoId, userId, once)
      if ('fingerprint' in used) {
        if (used.fingerprint !== once.fingerprint) throw new ApiError('idempotency_key_reused')
        if (used.answer !== undefined) return { body: JSON.parse(used.answer) as Engagement, isReplay: true }
        if (used.ageMs < inFlightMs) throw new ApiError('idempotency_in_flight', { retryAfter: 1 })
      }
      const stored = 'fingerprint' in used ? (await available(() => store.read([videoId], userId)))[0]! : used
      const body = recorded(await answer(row, stored, userId))
      // Before the answer is kept: kept in a store that has lost the comment meanwhile, it would be given again.
      await durability.comment(videoId, used)
      await available(() => store.keepAnswer(videoId, once, JSON.stringify(body)))
      return { body, isReplay: 'fingerprint' in used }
    } finally {
      inFlight.delete(claim)
    }
  }

  /** A store whose generation is younger than a day may have lost the key: then the ledger is checked first. */
  async function countOnce (videoId: number, userId: number, once: IdempotentUse): Promise<StoredCounters | Replay> {
    for (let checked: CheckedUse = once; ;) {
      const counted = await available(() => store.addComment(videoId, userId, checked))
      if (!('uncheckedIn' in counted)) return counted
      const receipt = await ledger.findReceipt(videoId, once.use)
      if (receipt) {
        return {
          fingerprint: receipt.fingerprint,
          answer: await available(() => store.answerOf(videoId, once.use)),
          ageMs: Date.now() - receipt.countedAt.getTime(),
          generation: counted.uncheckedIn,
          comments: 0
        }
      }
      checked = { ...once, checkedIn: counted.uncheckedIn }
    }
  }

  /** Returns the counters of rows that were just read from the ledger. While Redis is unavailable, they are stale. */
  async function read (rows: LedgerRow[], readAt: number): Promise<Counters[]> {
    if (rows.length === 0) return []
    const stored = await store.read(rows.map(row => row.video_id)).catch(() => undefined)
    if (!stored) return rows.map(row => stale(row, readAt, flushedUntil()))
    return (await current(rows, () => readAt)).map((row, index) => add(row, stored[index]!))
  }

  return {
    like: (videoId: number, userId: number): Promise<Counters> => setLike(videoId, userId, true),

    unlike: (videoId: number, userId: number): Promise<Counters> => setLike(videoId, userId, false),

    /**
     * Counts a comment.
     *
     * @throws ApiError `not_found`; `engagement_unavailable`; with a key also `idempotency_key_reused` and
     *   `idempotency_in_flight`
     */
    async comment (
      videoId: number,
      userId: number,
      { key, payload }: CommentRequest
    ): Promise<{ body: Engagement, isReplay: boolean }> {
      const row = await existing(videoId, userId)
      beats.delete(`${videoId}:${userId}`)
      if (key !== undefined) return await commentOnce(row, userId, key, payload)
      const stored = await available(() => store.addComment(videoId, userId))
      if (!('views' in stored)) throw new Error('A comment without a key was not counted')
      await durability.comment(videoId, stored)
      return { body: recorded(await answer(row, stored, userId)), isReplay: false }
    },

    /** Records a heartbeat. Repeated heartbeats of one client within a second are answered from memory. */
    async heartbeat (videoId: number, userId: number, client: string): Promise<Counters> {
      const row = await existing(videoId, userId)
      const stored = beats.get(`${videoId}:${userId}`, client, () => store.heartbeat(videoId, userId, client))
      return await answer(row, await available(() => stored), userId)
    },

    /** Ends the part of one client in the presence of a viewer. */
    async leave (videoId: number, userId: number, client: string): Promise<Counters> {
      const row = await existing(videoId, userId)
      beats.delete(`${videoId}:${userId}`)
      return await answer(row, await available(() => store.leave(videoId, userId, client)), userId)
    },

    /** Returns the counters of one video. @throws ApiError `not_found`; `adult_content_restricted` */
    async countersOf (videoId: number, userId: number | undefined): Promise<CountersOfVideo> {
      await existing(videoId, userId)
      const [counters] = await this.counters([videoId], userId)
      if (!counters) throw new ApiError('not_found', { message: `There is no video ${videoId}` })
      return counters
    },

    /** Returns the counters of the videos that exist and that a user may see, in the order of the ids; each id once. */
    async countersShown (videoIds: number[], userId: number | undefined): Promise<CountersOfVideo[]> {
      const rows = await known.get([...new Set(videoIds)])
      const shown = await Promise.all(videoIds.map(async id => {
        const row = rows.get(id)
        return row !== undefined && (!row.is_adult_content || await isShownTo(row, userId))
      }))
      return await this.counters(videoIds.filter((id, index) => shown[index]), userId)
    },

    /**
     * Returns the counters of the videos that exist, whatever the user may see, in the order of the ids; each id
     * once.
     */
    async counters (videoIds: number[], userId?: number): Promise<CountersOfVideo[]> {
      if (videoIds.length === 0) return []
      const wanted = [...new Set(videoIds)]
      const [found, answers] = await Promise.all([known.get(wanted), store.read(wanted, userId).catch(() => undefined)])
      const stored = new Map(wanted.map((id, index) => [id, answers?.[index]]))
      const ids = wanted.filter(id => found.has(id))
      const rows: KnownVideo[] = answers
        ? await current(ids.map(id => found.get(id)!), ({ readAt }) => readAt)
        : await known.reload(ids).then(
          rows => ids.flatMap(id => rows.get(id) ?? []),
          () => ids.map(id => found.get(id)!)
        )
      const cold = userId === undefined ? [] : ids.filter(id => stored.get(id)?.isLiked == null)
      const liked = userId === undefined ? undefined : await likedBy(userId, cold)
      return rows.map(row => {
        const id = row.video_id
        const one = stored.get(id)
        return {
          video_id: id,
          ...one ? add(row, one) : stale(row, row.readAt, flushedUntil()),
          ...userId === undefined ? {} : { liked: one?.isLiked ?? liked?.has(id) ?? null }
        }
      })
    },

    read,

    /** Re-reads a changed video: this process at once, the others within ten seconds. */
    refresh (videoId: number): void {
      known.forget(videoId)
    },

    /** Forgets a deleted account: its videos take no engagement any more, and its presence ends. */
    async forgetUser (userId: number): Promise<void> {
      known.forgetOwner(userId)
      await store.leaveAll(userId)
    },

    /** Forgets a deleted video: this process at once, the others within a second. */
    async forget (videoId: number): Promise<void> {
      known.forget(videoId)
      // The tombstone in PostgreSQL does the same a moment later, so a failure of Redis does not fail the deletion.
      await store.forget([{ videoId, userId: null }]).catch(() => {})
    }
  }
}

/** Adds what the store has counted to the ledger's totals. */
function add (row: LedgerRow, stored: StoredCounters): Counters {
  const beyond = (total: number, known: number): number =>
    stored.generation === row.generation ? Math.max(0, total - known) : stored.generation > row.generation ? total : 0
  return {
    live_viewers: stored.liveViewers,
    like_count: row.legacy_likes + (stored.likes ?? row.like_count),
    comment_count: row.comment_base + row.comment_n + beyond(stored.comments, row.comment_n),
    view_count: row.view_count + beyond(stored.views, row.view_n),
    counters: { stale: false, as_of: new Date().toISOString() }
  }
}

/**
 * The ledger's totals alone: exact up to the last flush, or up to the read if that was earlier. The number of live
 * viewers is unknown then (`null`, not zero).
 */
function stale (row: LedgerRow, readAt: number, flushedUntil: number | undefined): Counters {
  return {
    live_viewers: null,
    like_count: row.legacy_likes + row.like_count,
    comment_count: row.comment_base + row.comment_n,
    view_count: row.view_count,
    counters: {
      stale: true,
      as_of: flushedUntil === undefined ? null : new Date(Math.min(flushedUntil, readAt)).toISOString()
    }
  }
}

/** Runs a call of the store. @throws ApiError `engagement_unavailable` when the store is unavailable or full */
async function available<T> (work: () => Promise<T>): Promise<T> {
  try {
    return await work()
  } catch (cause) {
    throw new ApiError('engagement_unavailable', { cause })
  }
}

/** Reuses the result of a call for the next calls with the same key and variant, for `maxAgeMs`. */
export function createRecent<T> (maxAgeMs: number) {
  const answers = new ExpiringMap<string, { at: number, variant: string, answer: Promise<T> }>({
    maxAgeMs,
    maxSize: maxRecent
  })
  return {
    get (key: string, variant: string, ask: () => Promise<T>): Promise<T> {
      const at = performance.now()
      const last = answers.get(key)
      if (last && last.variant === variant && at - last.at < maxAgeMs) return last.answer
      const answer = ask()
      answers.set(key, { at, variant, answer })
      // A failure is not reused.
      answer.catch(() => answers.delete(key))
      return answer
    },
    delete (key: string): void {
      answers.delete(key)
    },
    get size () {
      return answers.size
    }
  }
}

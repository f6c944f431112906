import { steadyNow } from '../../shared/clock.ts'
import {
  BacklogError,
  counterLimits,
  counterTimes,
  memoryShard,
  type Batch,
  type CounterLimits,
  type CounterStore,
  type CounterTimes,
  type PendingLike,
  type PendingReceipt,
  type RecoveryLedger,
  type StoredCounters,
  type StoreStats,
  type TombstoneCursor
} from './store.ts'

export interface MemoryStoreOptions {
  recovery: RecoveryLedger
  times?: Partial<CounterTimes>
  limits?: Partial<CounterLimits>
  /** Milliseconds since 1970. */
  now?: () => number
}

interface Pending {
  isLiked: boolean
  version: number
}

interface Receipt {
  fingerprint: string
  at: number
  answer: string | undefined
}

/** The state of one video. */
interface VideoState {
  views: number
  comments: number
  peak: number
  /** The users who like it; undefined while the video is cold. */
  likes: Set<number> | undefined
  /** The load of its likes in flight. */
  loading: Promise<void> | undefined
  /** Likes that were removed because their user was deleted. */
  removals: number
  /** When its likes last changed. */
  likesChangedAt: number
  pending: Map<number, Pending>
  /** Viewer → last heartbeat. */
  viewers: Map<number, number>
  /** Viewer → their clients, oldest first, and the last heartbeat of each; for viewers with a named client. */
  clients: Map<number, Map<string, number>>
  /** Viewer → since when they watch, or (below zero) when their view was counted. */
  sessions: Map<number, number>
  receipts: Map<string, Receipt>
  unflushedReceipts: Map<string, string>
}

/**
 * Counters in the memory of one process, without Redis. They behave as those in Redis: the life of the process is a
 * generation, and changes reach the ledger within a second.
 */
export function createMemoryStore (options: MemoryStoreOptions): CounterStore {
  const { recovery, now = steadyNow } = options
  const times = { ...counterTimes, ...options.times }
  const limits = { ...counterLimits, ...options.limits }
  const videos = new Map<number, VideoState>()
  const dirty = new Set<number>()
  const withPending = new Set<number>()
  const withReceipts = new Set<number>()
  const stats: StoreStats = { pending: 0, recoveries: 0, flushedUntil: undefined }
  let burial: TombstoneCursor = { transactionId: 0, id: 0 }
  let generation = 0
  let since = 0
  let seenAt = 0
  let beginning: Promise<void> | undefined
  let version = 0
  let waiting = 0

  /** The first write begins the generation of this process. */
  async function begin (): Promise<void> {
    if (generation > 0) return
    beginning ??= recovery.nextGeneration(0).then(async next => {
      // Waits for a flush of an earlier process in flight.
      await recovery.fence(memoryShard, next)
      generation = next
      since = now()
      seenAt = steadyNow()
    }).finally(() => {
      beginning = undefined
    })
    await beginning
  }

  function stateOf (videoId: number): VideoState {
    let state = videos.get(videoId)
    if (!state) {
      state = {
        views: 0,
        comments: 0,
        peak: 0,
        likes: undefined,
        loading: undefined,
        removals: 0,
        likesChangedAt: 0,
        pending: new Map(),
        viewers: new Map(),
        clients: new Map(),
        sessions: new Map(),
        receipts: new Map(),
        unflushedReceipts: new Map()
      }
      videos.set(videoId, state)
    }
    return state
  }

  function countersOf (state: VideoState | undefined, userId: number | undefined): StoredCounters {
    if (!state) return { generation, views: 0, comments: 0, likes: null, liveViewers: 0, isLiked: null }
    prune(state)
    return {
      generation,
      views: state.views,
      comments: state.comments,
      likes: state.likes ? state.likes.size : null,
      liveViewers: state.viewers.size,
      isLiked: state.likes && userId !== undefined ? state.likes.has(userId) : null
    }
  }

  function prune ({ viewers, clients, sessions }: VideoState): void {
    const at = now()
    // Heartbeats are in order of time: the oldest are first, unless the clock was set back.
    for (const [viewer, last] of viewers) {
      if (last > at - times.presenceMs && last <= at + times.presenceMs) break
      viewers.delete(viewer)
      clients.delete(viewer)
    }
    for (const [viewer, session] of sessions) {
      if (Math.abs(session) > at - times.viewWindowMs) break
      sessions.delete(viewer)
    }
  }

  /** The present clients of a viewer, oldest first, but one. */
  function otherClients ({ viewers, clients }: VideoState, viewer: number, client: string): Map<string, number> {
    const last = viewers.get(viewer)
    const all = clients.get(viewer) ?? new Map(last === undefined ? [] : [['', last]])
    return new Map([...all].filter(([name, at]) => name !== client && at > now() - times.presenceMs))
  }

  function noteClient (state: VideoState, viewer: number, client: string): void {
    if (client === '' && !state.clients.has(viewer)) return
    const list = [...otherClients(state, viewer, client), [client, now()] as const]
    state.clients.set(viewer, new Map(list.slice(-limits.maxClients)))
  }

  function setSession ({ sessions }: VideoState, viewer: number, value: number): void {
    sessions.delete(viewer)
    sessions.set(viewer, value)
  }

  function beat (videoId: number, state: VideoState, viewer: number): void {
    const at = now()
    const last = state.viewers.get(viewer) ?? 0
    state.viewers.delete(viewer)
    state.viewers.set(viewer, at)
    let session = state.sessions.get(viewer) ?? 0
    if (session < 0 && -session <= at - times.viewWindowMs) session = 0
    if (session < 0) return
    if (session === 0 && at >= since && at < since + times.presenceMs) {
      // The viewer may have been watching, and been counted, before this process began.
      setSession(state, viewer, -at)
    } else if (session === 0 || session > at || last <= at - times.presenceMs) {
      setSession(state, viewer, at)
    } else if (at - session >= times.watchedMs) {
      state.views++
      dirty.add(videoId)
      setSession(state, viewer, -at)
    }
  }

  async function load (state: VideoState, pages: () => AsyncIterable<number[]>): Promise<void> {
    while (!state.likes) {
      const { removals } = state
      const users = new Set<number>()
      for await (const page of pages()) {
        for (const user of page) users.add(user)
      }
      // A user who was deleted meanwhile may be among them: read the page again.
      if (state.removals !== removals) continue
      state.likes = users
      state.likesChangedAt = now()
    }
  }

  function * pendingLikes (): Generator<PendingLike> {
    for (const videoId of withPending) {
      for (const [userId, change] of stateOf(videoId).pending) yield { videoId, userId, ...change }
    }
  }

  function * pendingReceipts (): Generator<PendingReceipt> {
    for (const videoId of withReceipts) {
      for (const [use, fingerprint] of stateOf(videoId).unflushedReceipts) yield { videoId, use, fingerprint }
    }
  }

  /** Removes videos that have not changed for a long time and are in the ledger. */
  function cool (): void {
    for (const [videoId, state] of videos) {
      if (state.likes && state.pending.size === 0 && state.likesChangedAt < now() - times.warmMs) {
        state.likes = undefined
      }
      for (const [use, receipt] of state.receipts) {
        if (receipt.at > now() - times.receiptMs) break
        state.receipts.delete(use)
      }
      prune(state)
      const isQuiet = !state.likes && state.viewers.size + state.sessions.size + state.receipts.size === 0
      if (isQuiet && state.views + state.comments + state.peak === 0 && !dirty.has(videoId)) videos.delete(videoId)
    }
  }
  let cooledAt = now()

  return {
    stats,

    async setLike (videoId, userId, isLiked) {
      await begin()
      const state = stateOf(videoId)
      if (!state.likes) return 'cold'
      if (state.likes.has(userId) !== isLiked) {
        if (waiting >= limits.maxWaiting && !state.pending.has(userId)) {
          throw new BacklogError('Too many likes wait for the ledger')
        }
        if (isLiked) state.likes.add(userId)
        else state.likes.delete(userId)
        if (!state.pending.has(userId)) waiting++
        state.pending.set(userId, { isLiked, version: ++version })
        state.likesChangedAt = now()
        withPending.add(videoId)
      }
      return { ...countersOf(state, userId), version: state.pending.get(userId)?.version ?? 0 }
    },

    async warm (videoId, pages) {
      const state = stateOf(videoId)
      state.loading ??= load(state, pages).finally(() => {
        state.loading = undefined
      })
      await state.loading
    },

    async addComment (videoId, userId, use) {
      await begin()
      const state = stateOf(videoId)
      if (use) {
        const used = state.receipts.get(use.use)
        if (used) {
          const { fingerprint, answer, at } = used
          return { fingerprint, answer, ageMs: now() - at, generation, comments: state.comments }
        }
        if (now() < since + times.receiptMs && use.checkedIn !== generation) return { uncheckedIn: generation }
        if (waiting >= limits.maxWaiting) throw new BacklogError('Too many receipts wait for the ledger')
        state.receipts.set(use.use, { fingerprint: use.fingerprint, at: now(), answer: undefined })
        state.unflushedReceipts.set(use.use, use.fingerprint)
        withReceipts.add(videoId)
        waiting++
      }
      state.comments++
      dirty.add(videoId)
      return countersOf(state, userId)
    },

    async keepAnswer (videoId, { use, fingerprint }, answer) {
      stateOf(videoId).receipts.set(use, { fingerprint, at: now(), answer })
    },

    async heartbeat (videoId, userId, client = '') {
      await begin()
      const state = stateOf(videoId)
      prune(state)
      noteClient(state, userId, client)
      beat(videoId, state, userId)
      if (state.viewers.size > state.peak) {
        state.peak = state.viewers.size
        dirty.add(videoId)
      }
      return countersOf(state, userId)
    },

    async leave (videoId, userId, client = '') {
      const state = stateOf(videoId)
      prune(state)
      const others = otherClients(state, userId, client)
      const last = [...others.values()].at(-1)
      state.viewers.delete(userId)
      if (last === undefined) {
        state.clients.delete(userId)
      } else {
        putInOrder(state.viewers, userId, last)
        state.clients.set(userId, others)
      }
      return countersOf(state, userId)
    },

    async read (videoIds, userId) {
      return videoIds.map(id => countersOf(videos.get(id), userId))
    },

    async collect () {
      if (now() - cooledAt > times.warmMs / 60) {
        cooledAt = now()
        cool()
      }
      stats.pending = dirty.size + waiting
      if (stats.pending === 0) {
        stats.flushedUntil = now()
        return []
      }
      const receipts = take(limits.batchSize + 1, pendingReceipts())
      // The totals of the receipts' videos are in the same batch: the ledger gets both or neither. A total must not be
      // in the ledger without its receipts: if more are pending than fit, they are flushed first.
      const counted = receipts.length > limits.batchSize
        ? []
        : take(limits.batchSize, new Set([...receipts.map(({ videoId }) => videoId), ...dirty]))
      const batch: Batch = {
        shard: memoryShard,
        generation,
        counters: counted.map(videoId => {
          const { views, comments, peak } = stateOf(videoId)
          return { videoId, views, comments, peak }
        }),
        likes: take(limits.batchSize, pendingLikes()),
        receipts,
        isPartial: false,
        lookedAt: now()
      }
      // Totals of receipts' videos may be in the batch although they do not wait.
      batch.isPartial = stats.pending > batch.counters.length + batch.likes.length + batch.receipts.length ||
        counted.length >= limits.batchSize
      return [batch]
    },

    async acknowledge ({ counters, likes, receipts, isPartial, lookedAt }) {
      if (!isPartial) stats.flushedUntil = lookedAt
      for (const { videoId, views, comments, peak } of counters) {
        const state = videos.get(videoId)
        if (!state || (state.views === views && state.comments === comments && state.peak === peak)) {
          dirty.delete(videoId)
        }
      }
      for (const { videoId, userId, version } of likes) {
        const state = videos.get(videoId)
        if (state?.pending.get(userId)?.version !== version) continue
        state.pending.delete(userId)
        waiting--
        if (state.pending.size === 0) withPending.delete(videoId)
      }
      for (const { videoId, use } of receipts) {
        const state = videos.get(videoId)
        if (!state?.unflushedReceipts.delete(use)) continue
        waiting--
        if (state.unflushedReceipts.size === 0) withReceipts.delete(videoId)
      }
    },

    async forget (tombstones) {
      for (const { videoId, userId } of tombstones) {
        const state = videos.get(videoId)
        if (!state) continue
        if (userId !== null) {
          state.removals++
          state.likes?.delete(userId)
          if (state.pending.delete(userId)) waiting--
        } else {
          waiting -= state.pending.size + state.unflushedReceipts.size
          videos.delete(videoId)
          dirty.delete(videoId)
          withReceipts.delete(videoId)
        }
        if (!videos.get(videoId)?.pending.size) withPending.delete(videoId)
      }
    },

    async leaveAll (userId) {
      for (const { viewers, clients } of videos.values()) {
        viewers.delete(userId)
        clients.delete(userId)
      }
    },

    async claimBurial () {
      return burial
    },

    async noteBurial (cursor) {
      burial = cursor
    },

    begin,

    answerOf: async (videoId, use) => videos.get(videoId)?.receipts.get(use)?.answer,

    generationSeenAt: () => seenAt
  }
}

/** Sets a heartbeat that is not the newest: the heartbeats stay in order of time. */
function putInOrder (viewers: Map<number, number>, viewer: number, at: number): void {
  const later = [...viewers].filter(([, last]) => last > at)
  viewers.set(viewer, at)
  for (const [other, last] of later) {
    viewers.delete(other)
    viewers.set(other, last)
  }
}

/** Returns the first items of an iterable; does not iterate over the rest. */
function take<T> (count: number, items: Iterable<T>): T[] {
  const taken: T[] = []
  for (const item of items) {
    if (taken.length >= count) break
    taken.push(item)
  }
  return taken
}

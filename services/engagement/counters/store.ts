/**
 * What the service needs of a place where counters live. Redis is one (redis-store.ts), this process another
 * (memory-store.ts); both behave alike and are held to the same tests.
 *
 * Every method rejects when the store is unavailable, in a quarter of a second at the latest.
 */
export interface CounterStore {
  /** Gets ready to count, so that the first write need not wait for it. A write does the same, should this fail. */
  begin (): Promise<void>
  /** Sets or takes back a like. Repeating it changes nothing. `'cold'`: the store needs the video's likes first. */
  setLike (videoId: number, userId: number, isLiked: boolean): Promise<StoredCounters | 'cold'>
  /**
   * Gives the store the likes of a cold video, as the ledger has them, page by page. Resolves when the video is
   * warm, by this call or by another process's.
   */
  warm (videoId: number, pages: () => AsyncIterable<number[]>): Promise<void>
  /** Counts one comment; with `use`, only if nobody used it before. */
  addComment (videoId: number, userId: number, use?: CheckedUse): Promise<StoredCounters | Replay | Unchecked>
  /** Keeps the answer to the first use, for those who repeat it. */
  keepAnswer (videoId: number, use: IdempotentUse, answer: string): Promise<void>
  /** The viewer is watching now; counts a view when the time has come. */
  heartbeat (videoId: number, userId: number): Promise<StoredCounters>
  /** The viewer has left. */
  leave (videoId: number, userId: number): Promise<StoredCounters>
  /** The viewer has left every video: their account is gone. It looks at all audiences, so nobody should wait for it. */
  leaveAll (userId: number): Promise<void>
  /** The counters of some videos in one round trip, in their order; `isLiked` for the given user. */
  read (videoIds: number[], userId?: number): Promise<StoredCounters[]>

  /** What the ledger does not have yet: each shard as it is at one instant. Empty when another process has just asked. */
  collect (options?: { isForced?: boolean }): Promise<Batch[]>
  /** The ledger has this batch: what has not changed since is no longer pending. */
  acknowledge (batch: Batch): Promise<void>
  /** These videos, or these likes, are gone; so is everything that was counted for them. */
  forget (tombstones: Tombstone[]): Promise<void>
  /**
   * Takes up the removal of what was deleted, if no other process is at it.
   *
   * @returns where the removal stands; undefined when another process is at it
   */
  claimBurial (): Promise<TombstoneCursor | undefined>
  /** What lies before a cursor was removed. */
  noteBurial (cursor: TombstoneCursor): Promise<void>
  /** What was answered to a use of an Idempotency-Key, if anybody remembers. */
  answerOf (videoId: number, use: string): Promise<string | undefined>
  /** When this process learned of the generation of a video, by steadyNow(); 0 while it knows none. */
  generationSeenAt (videoId: number): number
  /** Numbers for operators. */
  readonly stats: StoreStats
}

/** The counters of one video in the store's own count: totals of one generation, to be added to the ledger's. */
export interface StoredCounters {
  generation: number
  views: number
  comments: number
  /** null when the store does not have the video's likes; the ledger's count is exact then. */
  likes: number | null
  liveViewers: number
  /** Whether the asking user likes the video; null when unknown or when nobody asked. */
  isLiked: boolean | null
}

/** One use of an Idempotency-Key: whose and which key (hashed), and what was sent with it (hashed). */
export interface IdempotentUse {
  use: string
  fingerprint: string
}

export interface CheckedUse extends IdempotentUse {
  /** The generation in which the ledger was asked, and knew nothing of it. */
  checkedIn?: number
}

/** The store is too young to know of all uses: ask the ledger first, then come again with this generation. */
export interface Unchecked {
  uncheckedIn: number
}

/** The key was used before. */
export interface Replay {
  fingerprint: string
  /** The answer that was given; undefined when it was not kept (in flight, or its process died). */
  answer: string | undefined
  ageMs: number
}

/** Pending changes of one shard. */
export interface Batch {
  shard: number
  generation: number
  counters: PendingCounters[]
  likes: PendingLike[]
  receipts: PendingReceipt[]
  /** Whether there is more than a batch takes. */
  isPartial: boolean
  /** When the store looked, in milliseconds of its own clock. */
  lookedAt: number
}

export interface PendingCounters {
  videoId: number
  views: number
  comments: number
  peak: number
}

export interface PendingLike {
  videoId: number
  userId: number
  isLiked: boolean
  version: number
}

export interface PendingReceipt extends IdempotentUse {
  videoId: number
}

/** A video that is gone, or the like of one user that is. */
export interface Tombstone {
  videoId: number
  userId: number | null
}

/** Where in the order of tombstones a reader stands. */
export interface TombstoneCursor { transactionId: number, id: number }

export interface StoreStats {
  /** Pending counters, likes and receipts at the last look. */
  pending: number
  /** Recoveries by this process since it started. */
  recoveries: number
  /** Until when the ledger has everything, whoever wrote it, in milliseconds of the store's clock; undefined while unknown. */
  flushedUntil: number | undefined
}

/** What a store needs of the ledger to begin a generation. */
export interface RecoveryLedger {
  merge (batch: Batch): Promise<void>
  /** A generation that nobody had before, above the given one. */
  nextGeneration (above: number): Promise<number>
  /** From now on flushes of earlier generations of a shard are ignored; those under way are waited for. */
  fence (shard: number, generation: number): Promise<void>
}

/** More changes wait for the ledger than the store may hold. */
export class BacklogError extends Error {
  override name = 'BacklogError'
}

export interface CounterTimes {
  /** Milliseconds without a heartbeat after which a viewer is gone. */
  presenceMs: number
  /** Milliseconds that somebody must have watched to be a view: the first heartbeat after this counts. */
  watchedMs: number
  /** Milliseconds in which one viewer of one video is one view. */
  viewWindowMs: number
  /** Milliseconds for which a use of an Idempotency-Key is remembered. */
  receiptMs: number
  /** Milliseconds after its last change for which a video's likes stay in the store. */
  warmMs: number
  /** Milliseconds that must lie between two looks at the pending changes of a shard, whoever looks. */
  collectGapMs: number
}

export const counterTimes: CounterTimes = {
  presenceMs: 45_000,
  watchedMs: 30_000,
  viewWindowMs: 30 * 60_000,
  receiptMs: 24 * 3_600_000,
  warmMs: 3_600_000,
  collectGapMs: 700
}

export interface CounterLimits {
  /** Likes and receipts of one shard that may wait for the ledger; a further one is refused, so that memory is bounded. */
  maxWaiting: number
  /** Counters, and likes, in one batch. */
  batchSize: number
}

/** The shard of counters that live in a process. */
export const memoryShard = -1

export const counterLimits: CounterLimits = { maxWaiting: 200_000, batchSize: 2000 }

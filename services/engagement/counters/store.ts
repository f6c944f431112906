import type { IdempotentUse } from '../../shared/idempotency.ts'

/**
 * A store of counters: Redis (redis-store.ts) or this process (memory-store.ts). Both pass the same tests.
 *
 * Every method rejects within a quarter of a second when the store is unavailable.
 */
export interface CounterStore {
  /** Prepares the store, so that the first write need not. If it fails, a write does the same. */
  begin (): Promise<void>
  /** Sets or removes a like; idempotent. `'cold'`: the store needs the video's likes first (`warm`). */
  setLike (videoId: number, userId: number, isLiked: boolean): Promise<StoredCounters | 'cold'>
  /**
   * Loads the likes of a cold video from the ledger, page by page. Resolves when the video is warm, by this call or
   * by another process.
   */
  warm (videoId: number, pages: () => AsyncIterable<number[]>): Promise<void>
  /** Counts one comment; with `use`, only the first time. */
  addComment (videoId: number, userId: number, use?: CheckedUse): Promise<StoredCounters | Replay | Unchecked>
  /** Stores the response to the first use, for repeated requests. */
  keepAnswer (videoId: number, use: IdempotentUse, answer: string): Promise<void>
  /**
   * Records a heartbeat, and counts a view when the viewer has watched long enough.
   *
   * @param client name of the viewer's tab or device; '' for one without a name
   */
  heartbeat (videoId: number, userId: number, client?: string): Promise<StoredCounters>
  /** Ends the part of one client in the presence of a viewer; the viewer is present while another client is. */
  leave (videoId: number, userId: number, client?: string): Promise<StoredCounters>
  /** Ends the presence of a deleted user on every video. It scans all audiences: no request should wait for it. */
  leaveAll(userId: number): Promise<void>
  /** Reads the counters of videos in one round trip, in their order; `isLiked` for the given user. */
  read (videoIds: number[], userId?: number): Promise<StoredCounters[]>

  /**
   * Collects what the ledger does not have yet, each shard at one instant. Empty when another process has just
   * collected.
   */
  collect (options?: { isForced?: boolean }): Promise<Batch[]>
  /** Acknowledges a batch that the ledger has: what has not changed since is no longer pending. */
  acknowledge(batch: Batch): Promise<void>
  /** Removes deleted videos, or likes, with everything that was counted for them. */
  forget(tombstones: Tombstone[]): Promise<void>
  /**
   * Claims the removal of deleted videos and likes for this process.
   *
   * @returns the tombstone up to which they are removed; undefined while another process has the claim
   */
  claimBurial (): Promise<TombstoneCursor | undefined>
  /** Records the tombstone up to which everything is removed. */
  noteBurial(cursor: TombstoneCursor): Promise<void>
  /** Returns the stored response to a use of an Idempotency-Key. */
  answerOf (videoId: number, use: string): Promise<string | undefined>
  /** When this process learned of the generation of a video's shard, by steadyNow(); 0 while it knows none. */
  generationSeenAt (videoId: number): number
  /** Numbers for operators. */
  readonly stats: StoreStats
}

/** The counters of one video in the store's own count: totals of one generation, to be added to the ledger's. */
export interface StoredCounters {
  generation: number
  views: number
  comments: number
  /** null while the video is cold: then the ledger's count is exact. */
  likes: number | null
  liveViewers: number
  /** Whether the given user likes the video; null when unknown, or without a user. */
  isLiked: boolean | null
  /** After a like: version of the change that the ledger does not have yet; 0 when it has it. */
  version?: number
}

export interface CheckedUse extends IdempotentUse {
  /** The generation in which the ledger was checked and had no receipt. */
  checkedIn?: number
}

/** The generation is too young to know all uses: check the ledger, then repeat with `checkedIn`. */
export interface Unchecked {
  uncheckedIn: number
}

/** The key was used before. */
export interface Replay {
  fingerprint: string
  /** The response to the first use; undefined when it was not stored (in flight, or its process died). */
  answer: string | undefined
  ageMs: number
  /** The video's comments in the store's generation, the first use among them; 0 when the ledger has the first use. */
  comments: number
  generation: number
}

/** Pending changes of one shard. */
export interface Batch {
  shard: number
  generation: number
  counters: PendingCounters[]
  likes: PendingLike[]
  receipts: PendingReceipt[]
  /** Whether more is pending than a batch holds. */
  isPartial: boolean
  /** When the batch was collected, in milliseconds of the store's clock. */
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

/** A deleted video, or the like of a deleted user. */
export interface Tombstone {
  videoId: number
  userId: number | null
}

/** Position in the order of tombstones. */
export interface TombstoneCursor {
  transactionId: number
  id: number
}

export interface StoreStats {
  /** Pending counters, likes and receipts when they were last collected. */
  pending: number
  /** Recoveries by this process since it started. */
  recoveries: number
  /**
   * Time up to which the ledger is complete, by flushes of any process, by steadyNow() of this process (whatever the
   * clock of Redis says); undefined while unknown.
   */
  flushedUntil: number | undefined
}

/** A write that the ledger should have, as it is found there. */
export type AwaitedWrite =
  | { kind: 'comment', videoId: number, generation: number, comments: number }
  | { kind: 'like', videoId: number, userId: number, generation: number, version: number }

/** The part of the ledger that a store needs to begin a generation. */
export interface RecoveryLedger {
  merge (batch: Batch): Promise<void>
  /** Returns a new generation, above the given one. */
  nextGeneration (above: number): Promise<number>
  /** Fences a shard: waits for flushes of earlier generations in flight, and ignores later ones. */
  fence (shard: number, generation: number): Promise<void>
}

/** More changes are pending than the store may hold. */
export class BacklogError extends Error {
  override name = 'BacklogError'
}

export interface CounterTimes {
  /** Milliseconds without a heartbeat after which a presence ends. */
  presenceMs: number
  /** Milliseconds that a viewer must watch for a view: the first heartbeat after them counts it. */
  watchedMs: number
  /** Milliseconds within which a viewer counts as one view of a video. */
  viewWindowMs: number
  /** Milliseconds for which a use of an Idempotency-Key is stored. */
  receiptMs: number
  /** Milliseconds after its last change for which a video stays warm. */
  warmMs: number
  /** Minimum milliseconds between two collections of a shard, by any process. */
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
  /** Maximum pending likes and receipts of a shard; further ones are refused. */
  maxWaiting: number
  /** Maximum counters, and likes, in one batch. */
  batchSize: number
  /** Maximum clients of a viewer of one video; the one with the oldest heartbeat goes. */
  maxClients: number
}

/** The shard number of a memory store. */
export const memoryShard = -1

export const counterLimits: CounterLimits = { maxWaiting: 200_000, batchSize: 2000, maxClients: 8 }

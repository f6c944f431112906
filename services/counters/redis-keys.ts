import { shardOf } from './store.ts'

/**
 * Every name in Redis, made here and nowhere else. The braces are a hash tag: all keys of a shard lie in one
 * slot of a Redis Cluster. What counts belongs to a generation and carries its number, so that a new
 * generation begins empty; who is watching does not, and stays.
 */

const tag = (shard: number): string => `halo:{${shard}}`

/** Hash of a shard: generation, open, run, since, version, waiting, collected_at. */
export const metaKey = (shard: number): string => tag(shard)

/** The keys of a shard in one generation. */
export function generationKeys (shard: number, generation: number) {
  const prefix = `${tag(shard)}:${generation}`
  return {
    /** Hash: video → views counted in this generation. */
    views: `${prefix}:views`,
    /** Hash: video → comments counted in this generation. */
    comments: `${prefix}:comments`,
    /** Hash: video → most live viewers at once in this generation. */
    peaks: `${prefix}:peaks`,
    /** Set: videos of which one of the three has changed since the last flush. */
    dirty: `${prefix}:dirty`,
    /** Hash: `video:user` → `flag:version`, the changed likes that the ledger does not have yet. */
    pending: `${prefix}:pending`,
    /** Hash: video → how many of its likes are pending. */
    unflushed: `${prefix}:unflushed`,
    /** Hash: `video:use` → fingerprint, the receipts that the ledger does not have yet. */
    receipts: `${prefix}:receipts`,
    /** Set of a video: the users who like it, and '0', which makes a set without likes a warm one. */
    likes: (videoId: number): string => `${prefix}:likes:${videoId}`,
    /** String of a video: the ticket of whoever loads its likes. */
    ticket: (videoId: number): string => `${prefix}:ticket:${videoId}`,
    /** Set of a video: its likes while they are being loaded. */
    loading: (videoId: number): string => `${prefix}:loading:${videoId}`
  }
}

/** Sorted set: viewer → last heartbeat. */
export const viewersKey = (videoId: number): string => `${tag(shardOf(videoId))}:viewers:${videoId}`

/** Sorted set: viewer → since when they watch, or (below zero) when their view was counted. */
export const sessionsKey = (videoId: number): string => `${tag(shardOf(videoId))}:sessions:${videoId}`

/** Hash of one use of an Idempotency-Key: fingerprint, at, answer. */
export const receiptKey = (videoId: number, use: string): string => `${tag(shardOf(videoId))}:receipt:${videoId}:${use}`

/** Counts that the Go service left, as a pattern for SCAN. */
export const legacyPattern = 'video:*'

/** The video and the metric of a key that the Go service left; undefined for any other key. */
export function parseLegacyKey (key: string): { videoId: number, metric: 'likes' | 'comments' } | undefined {
  const [, id, metric] = /^video:([1-9]\d{0,15}):(likes|comments)$/.exec(key) ?? []
  const videoId = Number(id)
  return Number.isSafeInteger(videoId) ? { videoId, metric: metric as 'likes' | 'comments' } : undefined
}

/** String: when the counts of the Go service were taken over. */
export const takeoverKey = 'halo:takeover'

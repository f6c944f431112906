/**
 * Builds all Redis keys. The braces are a hash tag: all keys of a shard are in one slot of a Redis Cluster. Keys of
 * totals contain the number of their generation, so that a new generation begins empty; the audience belongs to no
 * generation and stays.
 *
 * One Redis has one shard, so that operations on many videos are one command (16 shards cost a fifth of the rate: npm
 * run bench:counters); a cluster has 16, to use all its nodes. Changing from one to the other loses nothing that was
 * flushed: the ledger does not know shards.
 */
export function createRedisKeys ({ isCluster }: { isCluster: boolean }) {
  const shardCount = isCluster ? 16 : 1
  const shardOf = (videoId: number): number => videoId % shardCount
  const tag = (shard: number): string => `halo:{${shard}}`
  const tagOf = (videoId: number): string => tag(shardOf(videoId))
  return {
    shardCount,
    shardOf,

    /** Hash of a shard: generation, open, run, since, looks, version, waiting, collected_at. */
    meta: tag,

    /** The keys of a shard in one generation. */
    ofGeneration: (shard: number, generation: number) => keysOfGeneration(`${tag(shard)}:${generation}`),

    /** Sorted set: viewer → last heartbeat. */
    viewers: (videoId: number): string => `${tagOf(videoId)}:viewers:${videoId}`,

    /** Sorted set: viewer → since when they watch, or (below zero) when their view was counted. */
    sessions: (videoId: number): string => `${tagOf(videoId)}:sessions:${videoId}`,

    /** Hash: viewer → the last heartbeats of their clients, for viewers with a named client. */
    clients: (videoId: number): string => `${tagOf(videoId)}:clients:${videoId}`,

    /** Hash of one use of an Idempotency-Key: fingerprint, at, answer. */
    receipt: (videoId: number, use: string): string => `${tagOf(videoId)}:receipt:${videoId}:${use}`
  }
}

export type RedisKeys = ReturnType<typeof createRedisKeys>

export type GenerationKeys = ReturnType<typeof keysOfGeneration>

function keysOfGeneration (prefix: string) {
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
    /** Set of a video: the users who like it, and '0', so that a warm video without likes has a set. */
    likes: (videoId: number): string => `${prefix}:likes:${videoId}`,
    /** String of a video: the ticket of the process that loads its likes. */
    ticket: (videoId: number): string => `${prefix}:ticket:${videoId}`,
    /** Set of a video: its likes while they are being loaded. */
    loading: (videoId: number): string => `${prefix}:loading:${videoId}`
  }
}

/** The likes of all videos in all generations, as a pattern for SCAN. */
export const likesPattern = 'halo:{*}:*:likes:*'

/** The audiences of all videos, as a pattern for SCAN. */
export const viewersPattern = 'halo:{*}:viewers:*'

/** Returns the key of the clients of an audience. */
export const clientsKeyOf = (viewersKey: string): string => viewersKey.replace('}:viewers:', '}:clients:')

/** String: the tombstone up to which everything is removed, as `transaction:id`. */
export const burialKey = 'halo:burial'

/** String: the token of the process that has the claim on the removal. */
export const burialClaimKey = 'halo:burial:claim'

/** Shard, generation and video of a key of likes. */
export function parseLikesKey (key: string): { shard: number, generation: number, videoId: number } | undefined {
  const [, shard, generation, videoId] = (/^halo:\{(\d+)\}:(\d+):likes:(\d+)$/.exec(key) ?? []).map(Number)
  return shard === undefined ? undefined : { shard, generation: generation!, videoId: videoId! }
}

/** Counts of the Go service, as a pattern for SCAN. */
export const legacyPattern = 'video:*'

/** Parses a key of the Go service; undefined for any other key. */
export function parseLegacyKey (key: string): { videoId: number, metric: 'likes' | 'comments' } | undefined {
  const [, id, metric] = /^video:([1-9]\d{0,15}):(likes|comments)$/.exec(key) ?? []
  const videoId = Number(id)
  return Number.isSafeInteger(videoId) ? { videoId, metric: metric as 'likes' | 'comments' } : undefined
}

/** String: when the counts of the Go service were taken over. */
export const takeoverKey = 'halo:takeover'

/**
 * Channel on which processes announce writers to each other. All databases of a Redis share their channels, so the
 * name contains the number of the database.
 */
export const writersChannel = (database: number): string => database === 0 ? 'halo:writers' : `halo:writers:${database}`

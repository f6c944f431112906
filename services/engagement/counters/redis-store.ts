import { randomBytes } from 'node:crypto'
import { setTimeout as sleep } from 'node:timers/promises'
import { Cluster, type Redis } from 'ioredis'
import { createBatcher } from './batcher.ts'
import { burialClaimKey, burialKey, clientsKeyOf, createRedisKeys, viewersPattern } from './redis-keys.ts'
import { createCollector, isEmpty } from './redis-collector.ts'
import { createGenerations, type Counted, type RecoveryEvent, type Shards } from './redis-generations.ts'
import { createScriptCaller, isFenced } from './scripts.ts'
import {
  BacklogError,
  counterLimits,
  counterTimes,
  type CounterLimits,
  type CounterStore,
  type CheckedUse,
  type CounterTimes,
  type RecoveryLedger,
  type StoredCounters,
  type StoreStats,
  type Tombstone
} from './store.ts'
import { indexVideos } from './video-index.ts'

export interface RedisStoreOptions {
  redis: Redis | Cluster
  recovery: RecoveryLedger
  times?: Partial<CounterTimes>
  limits?: Partial<CounterLimits>
  /** Called when the data of a shard was lost, or may have been, and a new generation has begun. */
  onRecovery?: (event: RecoveryEvent) => void
}

type Row = [views: number, comments: number, likes: number, viewers: number, liked: number, version?: number]
type Refusal = [code: number]
type Used = [code: number, fingerprint: string, answer: string, ageMs: number, comments: number]

interface Operation {
  videoId: number
}
interface LikeOperation extends Operation {
  userId: number
  isLiked: boolean
}
interface PresenceOperation extends Operation {
  userId: number
  client: string
  isThere: boolean
}
interface CommentOperation extends Operation {
  userId: number
  use: CheckedUse | undefined
}

/** Operations per script call: it blocks Redis for about two milliseconds. */
const maxOperations = 200

/** Milliseconds after which another process takes over the removal of deleted videos. */
const burialClaimMs = 3000

/** Milliseconds for which the ticket of a process that loads likes is valid. */
const ticketMs = 5000

/** Counters in Redis, shared by all processes. The keys are described in redis-keys.ts, the operations in scripts/. */
export function createRedisStore (options: RedisStoreOptions): CounterStore {
  const { redis, recovery, onRecovery = () => {} } = options
  const times = { ...counterTimes, ...options.times }
  const limits = { ...counterLimits, ...options.limits }
  const names = createRedisKeys({ isCluster: redis instanceof Cluster })
  const { shardCount, shardOf } = names
  const stats: StoreStats = { pending: 0, recoveries: 0, flushedUntil: undefined }
  const shards: Shards = []
  const call = createScriptCaller(redis)
  const shared = { redis, keys: names, call, recovery, shards, stats, times, limits }
  const { collectShard, acknowledge, mergeSurvivors } = createCollector(shared)
  const { count, countEach, settle, adopt } = createGenerations({ ...shared, mergeSurvivors, onRecovery })

  const warming = new Map<number, Promise<void>>()
  const burialToken = randomBytes(9).toString('base64url')

  const setLike = createBatcher<LikeOperation, Counted<Row | Refusal>>({
    shardOf,
    maxSize: maxOperations,
    send: async (shard, operations) =>
      await countEach<Row | Refusal>(shard, 'likes', ({ generation, looks, keys }) => {
        const videos = indexVideos(operations)
        return {
          keys: [
            names.meta(shard),
            keys.views,
            keys.comments,
            keys.pending,
            keys.unflushed,
            ...videos.ids.flatMap(id => [keys.likes(id), names.viewers(id)])
          ],
          args: [
            generation,
            looks,
            times.presenceMs,
            limits.maxWaiting,
            videos.ids.length,
            ...videos.ids,
            ...operations.flatMap((
              { videoId, userId, isLiked }
            ) => [videos.indexOf(videoId), userId, isLiked ? '1' : '0'])
          ]
        }
      })
  })

  const setPresence = createBatcher<PresenceOperation, Counted<Row>>({
    shardOf,
    maxSize: maxOperations,
    send: async (shard, operations) =>
      await countEach<Row>(shard, 'presence', ({ generation, looks, keys }) => {
        const videos = indexVideos(operations)
        return {
          keys: [
            names.meta(shard),
            keys.views,
            keys.comments,
            keys.peaks,
            keys.dirty,
            ...videos.ids.flatMap(id => [names.viewers(id), names.sessions(id), names.clients(id), keys.likes(id)])
          ],
          args: [
            generation,
            looks,
            times.presenceMs,
            times.watchedMs,
            times.viewWindowMs,
            limits.maxClients,
            videos.ids.length,
            ...videos.ids,
            ...operations.flatMap((
              { videoId, userId, client, isThere }
            ) => [videos.indexOf(videoId), userId, client, isThere ? '1' : '0'])
          ]
        }
      })
  })

  const addComment = createBatcher<CommentOperation, Counted<Row | Refusal | Used>>({
    shardOf,
    maxSize: maxOperations,
    send: async (shard, operations) =>
      await countEach<Row | Refusal | Used>(shard, 'comments', ({ generation, looks, keys }) => {
        const videos = indexVideos(operations)
        const used = operations.filter(({ use }) => use !== undefined)
        return {
          keys: [
            names.meta(shard),
            keys.views,
            keys.comments,
            keys.dirty,
            keys.receipts,
            ...videos.ids.flatMap(id => [keys.likes(id), names.viewers(id)]),
            ...used.map(({ videoId, use }) => names.receipt(videoId, use!.use))
          ],
          args: [
            generation,
            looks,
            times.presenceMs,
            times.receiptMs,
            limits.maxWaiting,
            videos.ids.length,
            ...videos.ids,
            ...operations.flatMap(operation => [
              videos.indexOf(operation.videoId),
              operation.userId,
              used.indexOf(operation) + 1,
              operation.use?.use ?? '',
              operation.use?.fingerprint ?? '',
              operation.use?.checkedIn ?? ''
            ])
          ]
        }
      })
  })

  async function warm (videoId: number, pages: () => AsyncIterable<number[]>): Promise<void> {
    const shard = shardOf(videoId)
    const ticket = randomBytes(9).toString('base64url')
    const step = async (name: 'begin' | 'page' | 'end' | 'drop', users: number[] = []) =>
      (await count<'warm' | 'mine' | 'taken'>(shard, 'warm', ({ generation, looks, keys }) => ({
        keys: [names.meta(shard), keys.likes(videoId), keys.ticket(videoId), keys.loading(videoId)],
        args: [generation, looks, ticket, ticketMs, name, times.warmMs, ...users]
      }))).answer

    for (const deadline = performance.now() + ticketMs; performance.now() < deadline;) {
      let state: 'warm' | 'mine' | 'taken' | undefined
      try {
        state = await step('begin')
        if (state === 'mine') {
          for await (const users of pages()) {
            state = await step('page', users)
            if (state !== 'mine') break
          }
          if (state === 'mine') state = await step('end')
        }
      } catch (error) {
        // Release the ticket, so that another process need not wait until it expires; also when the reply to "begin"
        // was lost.
        await step('drop').catch(() => {})
        throw error
      }
      if (state === 'warm') return
      await sleep(20)
    }
    throw new Error(`The likes of video ${videoId} could not be loaded`)
  }

  /** Reads the counters of one shard; repeats it when the generation has changed. */
  async function readShard (
    shard: number,
    videoIds: number[],
    userId: number | undefined,
    isRetry = false
  ): Promise<StoredCounters[]> {
    if (!shards[shard]) await adopt(shard)
    const { generation, keys } = shards[shard]!
    const [current, ...rows] = await call('read', [
      names.meta(shard),
      keys.views,
      keys.comments,
      ...videoIds.flatMap(id => [keys.likes(id), names.viewers(id)])
    ], [generation, times.presenceMs, userId ?? '', ...videoIds]) as [string, ...Row[]]
    if (Number(current) === generation && rows.length > 0) return rows.map(row => toCounters(row, generation))
    if (Number(current) === 0) {
      // Redis was emptied: the known ledger rows may be older than the last flush.
      await adopt(shard)
      return videoIds.map(() => ({ generation: 0, views: 0, comments: 0, likes: null, liveViewers: 0, isLiked: null }))
    }
    if (isRetry) throw new Error('The generation of the counters changes too fast')
    await adopt(shard)
    return await readShard(shard, videoIds, userId, true)
  }

  return {
    stats,

    async setLike (videoId, userId, isLiked) {
      const { row, generation } = await setLike({ videoId, userId, isLiked })
      if (row[0] === -1) return 'cold'
      if (row[0] === -2) throw new BacklogError('Too many likes wait for the ledger')
      return toCounters(row as Row, generation)
    },

    /** Single flight: one load for all requests of this process that like the same cold video. */
    warm (videoId, pages) {
      let running = warming.get(videoId)
      if (!running) {
        warming.set(
          videoId,
          running = warm(videoId, pages).finally(() => {
            warming.delete(videoId)
          })
        )
      }
      return running
    },

    async addComment (videoId, userId, use) {
      const { row, generation } = await addComment({ videoId, userId, use })
      if (row[0] === -2) throw new BacklogError('Too many receipts wait for the ledger')
      if (row[0] === -4) return { uncheckedIn: generation }
      if (row[0] !== -3) return toCounters(row as Row, generation)
      const [, fingerprint, answer, ageMs, comments] = row as Used
      return { fingerprint, answer: answer === '' ? undefined : answer, ageMs, generation, comments }
    },

    async keepAnswer (videoId, { use, fingerprint }, answer) {
      const key = names.receipt(videoId, use)
      await Promise.all([redis.hset(key, { fingerprint, answer, at: Date.now() }), redis.pexpire(key, times.receiptMs)])
    },

    async heartbeat (videoId, userId, client = '') {
      const { row, generation } = await setPresence({ videoId, userId, client, isThere: true })
      return toCounters(row, generation)
    },

    async leave (videoId, userId, client = '') {
      const { row, generation } = await setPresence({ videoId, userId, client, isThere: false })
      return toCounters(row, generation)
    },

    async read (videoIds, userId) {
      const byShard = new Map<number, number[]>()
      for (const id of videoIds) {
        const shard = shardOf(id)
        const ids = byShard.get(shard)
        if (ids) ids.push(id)
        else byShard.set(shard, [id])
      }
      const found = new Map<number, StoredCounters>()
      await Promise.all([...byShard].map(async ([shard, ids]) => {
        const rows = await readShard(shard, ids, userId)
        ids.forEach((id, index) => found.set(id, rows[index]!))
      }))
      return videoIds.map(id => found.get(id)!)
    },

    async collect ({ isForced = false } = {}) {
      const collected = await Promise.all(Array.from({ length: shardCount }, async (_, shard) => {
        try {
          const generation = shards[shard]?.generation || await adopt(shard)
          // The shard has no generation yet.
          if (generation === 0) return { batch: undefined, waiting: 0 }
          const found = await collectShard(shard, generation, { gapMs: isForced ? 0 : times.collectGapMs })
          if (found && !found.isSameServer) {
            await settle(shard, generation)
            return { batch: undefined, waiting: 0 }
          }
          return found
        } catch (error) {
          if (!isFenced(error)) throw error
          await settle(shard, shards[shard]?.generation)
          return { batch: undefined, waiting: 0 }
        }
      }))
      if (collected.every(found => found !== undefined)) {
        stats.pending = collected.reduce((sum, found) => sum + found.waiting, 0)
      }
      return collected.flatMap(found => found?.batch && !isEmpty(found.batch) ? [found.batch] : [])
    },

    acknowledge,

    async forget (tombstones) {
      const byShard = new Map<number, Tombstone[]>()
      for (const tombstone of tombstones) {
        const shard = shardOf(tombstone.videoId)
        byShard.set(shard, [...byShard.get(shard) ?? [], tombstone])
      }
      await Promise.all([...byShard].map(async ([shard, ofShard]) => {
        const { keys } = shards[shard] ?? (await adopt(shard), shards[shard]!)
        // One call after the other: thousands at once would time out together, and be repeated together.
        for (let start = 0; start < ofShard.length; start += maxOperations) {
          const chunk = ofShard.slice(start, start + maxOperations)
          await call('forget', [
            names.meta(shard),
            keys.views,
            keys.comments,
            keys.peaks,
            keys.dirty,
            keys.pending,
            keys.unflushed,
            ...chunk.flatMap((
              { videoId }
            ) => [
              keys.likes(videoId),
              keys.ticket(videoId),
              names.viewers(videoId),
              names.sessions(videoId),
              names.clients(videoId)
            ])
          ], [times.warmMs, ...chunk.flatMap(({ videoId, userId }) => [videoId, userId ?? ''])])
        }
      }))
    },

    async leaveAll (userId) {
      const nodes = redis instanceof Cluster ? redis.nodes('master') : [redis]
      for (const node of nodes) {
        for (let cursor = '0', isFirst = true; isFirst || cursor !== '0'; isFirst = false) {
          const [next, found] = await node.scan(cursor, 'MATCH', viewersPattern, 'COUNT', 1000)
          cursor = next
          for (const key of found) {
            await Promise.all([node.zrem(key, userId), node.hdel(clientsKeyOf(key), String(userId))])
          }
        }
      }
    },

    async claimBurial () {
      const isMine = await redis.set(burialClaimKey, burialToken, 'PX', burialClaimMs, 'NX') === 'OK' ||
        (await redis.get(burialClaimKey) === burialToken && await redis.pexpire(burialClaimKey, burialClaimMs) === 1)
      if (!isMine) return undefined
      const mark = await redis.get(burialKey)
      const [transactionId, id] = (mark ?? '0:0').split(':').map(Number)
      return { transactionId: transactionId!, id: id! }
    },

    async noteBurial ({ transactionId, id }) {
      await Promise.all([redis.set(burialKey, `${transactionId}:${id}`), redis.pexpire(burialClaimKey, burialClaimMs)])
    },

    async answerOf (videoId, use) {
      return await redis.hget(names.receipt(videoId, use), 'answer') ?? undefined
    },

    async begin () {
      await Promise.all(Array.from({ length: shardCount }, (_, shard) => settle(shard, undefined)))
    },

    generationSeenAt: videoId => shards[shardOf(videoId)]?.seenAt ?? 0
  }
}

function toCounters (
  [views, comments, likes, liveViewers, liked, version = 0]: Row,
  generation: number
): StoredCounters {
  return {
    generation,
    views,
    comments,
    likes: likes < 0 ? null : likes,
    liveViewers,
    isLiked: liked < 0 ? null : liked === 1,
    version
  }
}

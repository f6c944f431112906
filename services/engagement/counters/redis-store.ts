import { randomBytes } from 'node:crypto'
import { setTimeout as sleep } from 'node:timers/promises'
import { Cluster, type Redis } from 'ioredis'
import { steadyNow } from '../../shared/clock.ts'
import { createBatcher } from './batcher.ts'
import { burialClaimKey, burialKey, createRedisKeys, viewersPattern, type GenerationKeys } from './redis-keys.ts'
import { scripts, scriptsOf, type CountingScript, type OtherScript, type Script } from './scripts.ts'
import {
  BacklogError,
  counterLimits,
  counterTimes,
  type Batch,
  type CounterLimits,
  type CounterStore,
  type CheckedUse,
  type CounterTimes,
  type RecoveryLedger,
  type StoredCounters,
  type StoreStats,
  type Tombstone
} from './store.ts'

export interface RedisStoreOptions {
  redis: Redis | Cluster
  recovery: RecoveryLedger
  times?: Partial<CounterTimes>
  limits?: Partial<CounterLimits>
  /** Called when the data of a shard was lost, or may have been, and a new generation has begun. */
  onRecovery?: (event: { shard: number, from: number, to: number, ms: number }) => void
}

/** The state of a shard as this process knows it; `generation` is 0 when the shard has none. */
interface Shard {
  generation: number
  /** Number of collections of the shard that this process knows of; data with fewer is an older snapshot. */
  looks: number
  /** When this process learned of the generation, by steadyNow(). */
  seenAt: number
  keys: GenerationKeys
  scripts: Record<CountingScript, Script>
}

type Row = [views: number, comments: number, likes: number, viewers: number, liked: number]
type Refusal = [code: number]
type Used = [code: number, fingerprint: string, answer: string, ageMs: number]

interface Operation {
  videoId: number
}
interface LikeOperation extends Operation {
  userId: number
  isLiked: boolean
}
interface PresenceOperation extends Operation {
  userId: number
  isThere: boolean
}
interface CommentOperation extends Operation {
  userId: number
  use: CheckedUse | undefined
}

/** The result of one operation of a script, and the generation in which it ran. */
interface Counted<Answer> {
  generation: number
  row: Answer
}

interface Call {
  keys: string[]
  args: (string | number)[]
}

/** Milliseconds after which a write that waits for a recovery is rejected. */
const patienceMs = 230

/** Operations per script call: it blocks Redis for about two milliseconds. */
const maxOperations = 200

/** Milliseconds after which another process takes over a recovery. */
const claimMs = 3000

/** Milliseconds between two checks whether the recovery by another process has finished. */
const claimRetryMs = 15

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
  const shards: (Shard | undefined)[] = []
  const settling: (Promise<void> | undefined)[] = []
  const stats: StoreStats = { pending: 0, recoveries: 0, flushedUntil: undefined }
  /** By shard: the time up to which the ledger is complete, by the clock of Redis. */
  const flushedUntil: number[] = []

  const evalsha = (script: Script, { keys, args }: Call): Promise<unknown> =>
    redis.evalsha(script.sha, keys.length, ...keys, ...args)

  /** For scripts that are not fenced by their hash: sends the text when the server does not know it. */
  async function call (name: OtherScript, keys: string[], args: (string | number)[]): Promise<unknown> {
    const script = scripts[name]
    return await evalsha(script, { keys, args }).catch((error: unknown) => {
      if (!isMissingScript(error)) throw error
      return redis.eval(script.text, keys.length, ...keys, ...args)
    })
  }

  /** Runs a counting script in the generation that takes writes; recovers first when there is none. */
  async function count<Answer> (
    shard: number,
    name: CountingScript,
    build: (state: Shard) => Call
  ): Promise<{ generation: number, answer: Answer }> {
    const deadline = performance.now() + patienceMs
    for (;;) {
      const state = shards[shard]
      if (state && state.generation > 0) {
        try {
          return { generation: state.generation, answer: await evalsha(state.scripts[name], build(state)) as Answer }
        } catch (error) {
          if (!isMissingScript(error) && !isFenced(error)) throw error
        }
      }
      const patience = deadline - performance.now()
      if (patience <= 0) throw new Error('The counters are being recovered')
      await within(patience, settle(shard, state?.generation))
    }
  }

  async function countEach<Answer> (
    shard: number,
    name: CountingScript,
    build: (state: Shard) => Call
  ): Promise<Counted<Answer>[]> {
    const { generation, answer } = await count<Answer[]>(shard, name, build)
    return answer.map(row => ({ generation, row }))
  }

  /** Returns the present generation, or begins one, when the given one does not take writes. */
  function settle (shard: number, seen: number | undefined): Promise<void> {
    if (shards[shard]?.generation !== seen) return Promise.resolve()
    settling[shard] ??= (async () => {
      const found = await adopt(shard)
      if (found === 0 || found === seen) await recover(shard, found)
    })().finally(() => {
      settling[shard] = undefined
    })
    return settling[shard]
  }

  async function adopt (shard: number): Promise<number> {
    const [generation, looks] = await redis.hmget(names.meta(shard), 'generation', 'looks')
    const found = Number(generation ?? 0)
    if (shards[shard]?.generation !== found) {
      shards[shard] = {
        generation: found,
        looks: Number(looks ?? 0),
        seenAt: steadyNow(),
        keys: names.ofGeneration(shard, found),
        scripts: scriptsOf(found)
      }
    }
    return found
  }

  /**
   * Recovery: closes a generation, flushes what survived of it, and begins the next one. Any number of processes may
   * try this at once, and may be killed at any point: merging is idempotent, one process at a time has the claim, and
   * an overtaken one does not begin the generation. The ledger is fenced before the generation opens, so that a
   * delayed flush of the old one is ignored. The scripts are loaded before it, too: if the server is restarted in
   * between, they are missing, and the next write notices.
   */
  async function recover (shard: number, from: number): Promise<void> {
    const startedAt = performance.now()
    const next = await recovery.nextGeneration(
      Math.max(from, Number(await redis.hget(names.meta(shard), 'claim') ?? 0))
    )
    const [found, claim] = await call('close', [names.meta(shard)], [from, next, claimMs]) as [string, string]
    if (Number(found) !== from) {
      await adopt(shard)
      return
    }
    if (Number(claim) !== next) {
      // Another process recovers: it takes some milliseconds.
      await sleep(claimRetryMs)
      return
    }
    try {
      if (from > 0) await mergeSurvivors(shard, from)
      await recovery.fence(shard, next)
      await load(scriptsOf(next))
    } catch (error) {
      // Release the claim, so that the next process need not wait until it expires.
      await redis.hdel(names.meta(shard), 'claimed_at').catch(() => {})
      throw error
    }
    const opened = Number(await call('open', [names.meta(shard)], [from, next]))
    if (opened === next) {
      if (from > 0) await dropGeneration(shard, from)
      stats.recoveries++
      onRecovery({ shard, from, to: next, ms: Math.round(performance.now() - startedAt) })
    }
    await adopt(shard)
  }

  async function mergeSurvivors (shard: number, generation: number): Promise<void> {
    for (;;) {
      const collected = await collectShard(shard, generation, { gapMs: 0, isClosing: true }).catch((error: unknown) => {
        // Slower than its claim: another process has begun the next generation.
        if (!isFenced(error)) throw error
        return undefined
      })
      if (!collected || isEmpty(collected.batch)) return
      await recovery.merge(collected.batch)
      await acknowledge(collected.batch)
    }
  }

  async function load (texts: Record<CountingScript, Script>): Promise<void> {
    const nodes = redis instanceof Cluster ? redis.nodes('master') : [redis]
    await Promise.all(nodes.flatMap(node => Object.values(texts).map(({ text }) => node.script('LOAD', text))))
  }

  async function dropGeneration (shard: number, generation: number): Promise<void> {
    const { views, comments, peaks, dirty, pending, unflushed, receipts } = names.ofGeneration(shard, generation)
    // Sets of likes expire by themselves once nothing of them is pending.
    await redis.unlink(views, comments, peaks, dirty, pending, unflushed, receipts)
  }

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
            ...videos.ids.flatMap(id => [names.viewers(id), names.sessions(id), keys.likes(id)])
          ],
          args: [
            generation,
            looks,
            times.presenceMs,
            times.watchedMs,
            times.viewWindowMs,
            videos.ids.length,
            ...videos.ids,
            ...operations.flatMap((
              { videoId, userId, isThere }
            ) => [videos.indexOf(videoId), userId, isThere ? '1' : '0'])
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

  async function collectShard (
    shard: number,
    generation: number,
    { gapMs, isClosing = false }: { gapMs: number, isClosing?: boolean }
  ) {
    const keys = names.ofGeneration(shard, generation)
    const answer = await call('collect', [
      names.meta(shard),
      keys.views,
      keys.comments,
      keys.peaks,
      keys.dirty,
      keys.pending,
      keys.receipts
    ], [generation, isClosing ? 0 : shards[shard]?.looks ?? 0, gapMs, limits.batchSize, isClosing ? '1' : '0']) as [
      string,
      string
    ] | [string, string, string, string, string, number, string[], string[], string[]]
    const state = shards[shard]
    if (state?.generation === generation) state.looks = Math.max(state.looks, Number(answer[0]))
    noteFlushed(shard, Number(answer[1]))
    if (answer.length === 2) return undefined
    const [, , lookedAt, run, currentRun, waiting, counters, likes, receipts] = answer
    if (waiting === 0) noteFlushed(shard, Number(lookedAt))
    const batch: Batch = {
      shard,
      generation,
      counters: groups(counters, 4).map(([id, views, comments, peak]) => ({
        videoId: Number(id),
        views: Number(views),
        comments: Number(comments),
        peak: Number(peak)
      })),
      likes: groups(likes, 2).map(([field, value]) => {
        const [videoId, userId] = field!.split(':')
        const [flag, version] = value!.split(':')
        return { videoId: Number(videoId), userId: Number(userId), isLiked: flag === '1', version: Number(version) }
      }),
      receipts: groups(receipts, 2).map(([field, fingerprint]) => {
        const [videoId, use] = field!.split(':')
        return { videoId: Number(videoId), use: use!, fingerprint: fingerprint! }
      }),
      isPartial: false,
      lookedAt: Number(lookedAt)
    }
    batch.isPartial = waiting > batch.counters.length + batch.likes.length + batch.receipts.length
    return { batch, waiting, isSameServer: run === currentRun }
  }

  function noteFlushed (shard: number, until: number): void {
    if (until > 0) flushedUntil[shard] = until
    const known = Object.values(flushedUntil)
    // A shard without a generation has nothing to flush.
    stats.flushedUntil = known.length > 0 ? Math.min(...known) : undefined
  }

  async function acknowledge (
    { shard, generation, counters, likes, receipts, isPartial, lookedAt }: Batch
  ): Promise<void> {
    const keys = names.ofGeneration(shard, generation)
    const videos = indexVideos(likes)
    await call('acknowledge', [
      names.meta(shard),
      keys.views,
      keys.comments,
      keys.peaks,
      keys.dirty,
      keys.pending,
      keys.unflushed,
      keys.receipts,
      ...videos.ids.map(id => keys.likes(id))
    ], [
      generation,
      times.warmMs,
      isPartial ? 0 : lookedAt,
      counters.length,
      ...counters.flatMap(({ videoId, views, comments, peak }) => [videoId, views, comments, peak]),
      likes.length,
      ...likes.flatMap((
        { videoId, userId, isLiked, version }
      ) => [`${videoId}:${userId}`, `${isLiked ? 1 : 0}:${version}`, videoId, videos.indexOf(videoId)]),
      ...receipts.map(({ videoId, use }) => `${videoId}:${use}`)
    ])
    if (!isPartial) noteFlushed(shard, lookedAt)
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
      const [, fingerprint, answer, ageMs] = row as Used
      return { fingerprint, answer: answer === '' ? undefined : answer, ageMs }
    },

    async keepAnswer (videoId, { use, fingerprint }, answer) {
      const key = names.receipt(videoId, use)
      await Promise.all([redis.hset(key, { fingerprint, answer, at: Date.now() }), redis.pexpire(key, times.receiptMs)])
    },

    async heartbeat (videoId, userId) {
      const { row, generation } = await setPresence({ videoId, userId, isThere: true })
      return toCounters(row, generation)
    },

    async leave (videoId, userId) {
      const { row, generation } = await setPresence({ videoId, userId, isThere: false })
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
            ) => [keys.likes(videoId), keys.ticket(videoId), names.viewers(videoId), names.sessions(videoId)])
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
          for (const key of found) await node.zrem(key, userId)
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

/** The videos of the operations, each once, and their 1-based positions for Lua. */
function indexVideos (operations: Operation[]) {
  const positions = new Map<number, number>()
  for (const { videoId } of operations) {
    if (!positions.has(videoId)) positions.set(videoId, positions.size + 1)
  }
  return { ids: [...positions.keys()], indexOf: (videoId: number): number => positions.get(videoId)! }
}

function toCounters ([views, comments, likes, liveViewers, liked]: Row, generation: number): StoredCounters {
  return {
    generation,
    views,
    comments,
    likes: likes < 0 ? null : likes,
    liveViewers,
    isLiked: liked < 0 ? null : liked === 1
  }
}

function isEmpty ({ counters, likes, receipts }: Batch): boolean {
  return counters.length + likes.length + receipts.length === 0
}

function groups<T> (flat: T[], size: number): T[][] {
  return Array.from({ length: flat.length / size }, (_, index) => flat.slice(index * size, (index + 1) * size))
}

const isMissingScript = (error: unknown): boolean => error instanceof Error && error.message.startsWith('NOSCRIPT')

const isFenced = (error: unknown): boolean => error instanceof Error && error.message.includes('FENCED')

async function within (ms: number, work: Promise<void>): Promise<void> {
  const { promise, reject } = Promise.withResolvers<never>()
  const timer = setTimeout(() => reject(new Error(`No answer within ${Math.round(ms)} ms`)), ms)
  work.catch(() => {})
  try {
    await Promise.race([work, promise])
  } finally {
    clearTimeout(timer)
  }
}

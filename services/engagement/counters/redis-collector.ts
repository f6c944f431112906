import { steadyNow } from '../../shared/clock.ts'
import type { RedisKeys } from './redis-keys.ts'
import type { Shards } from './redis-generations.ts'
import { isFenced, type ScriptCaller } from './scripts.ts'
import type { Batch, CounterLimits, CounterTimes, RecoveryLedger, StoreStats } from './store.ts'
import { indexVideos } from './video-index.ts'

export interface CollectorOptions {
  keys: RedisKeys
  call: ScriptCaller
  recovery: RecoveryLedger
  shards: Shards
  /** `flushedUntil` is kept up to date. */
  stats: StoreStats
  times: CounterTimes
  limits: CounterLimits
}

/** Collects from Redis what the ledger does not have yet, and acknowledges what it has. */
export function createCollector (options: CollectorOptions) {
  const { keys: names, call, recovery, shards, stats, times, limits } = options
  /** By shard: the time up to which the ledger is complete, by the clock of Redis. */
  const flushedUntil: number[] = []

  /** Milliseconds by which the clock of Redis is ahead of this process's, at the last collection. */
  let clockLead = 0

  /** Returns undefined when another process has just collected. */
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
      string,
      string
    ] | [string, string, string, string, string, number, string[], string[], string[]]
    const state = shards[shard]
    if (state?.generation === generation) state.looks = Math.max(state.looks, Number(answer[0]))
    clockLead = Number(answer[2]) - steadyNow()
    noteFlushed(shard, Number(answer[1]))
    if (answer.length === 3) return undefined
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
    // Totals of receipts' videos may be in the batch although they do not wait.
    batch.isPartial = waiting > batch.counters.length + batch.likes.length + batch.receipts.length ||
      batch.counters.length >= limits.batchSize
    return { batch, waiting, isSameServer: run === currentRun }
  }

  function noteFlushed (shard: number, until: number): void {
    if (until > 0) flushedUntil[shard] = until
    const known = Object.values(flushedUntil)
    // A shard without a generation has nothing to flush.
    stats.flushedUntil = known.length > 0 ? Math.min(...known) - clockLead : undefined
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

  /** Flushes what a closed generation still holds. */
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

  return { collectShard, acknowledge, mergeSurvivors }
}

export function isEmpty ({ counters, likes, receipts }: Batch): boolean {
  return counters.length + likes.length + receipts.length === 0
}

function groups<T> (flat: T[], size: number): T[][] {
  return Array.from({ length: flat.length / size }, (_, index) => flat.slice(index * size, (index + 1) * size))
}

import { setTimeout as sleep } from 'node:timers/promises'
import { Cluster, type Redis } from 'ioredis'
import { steadyNow } from '../../shared/clock.ts'
import type { GenerationKeys, RedisKeys } from './redis-keys.ts'
import { isFenced, isMissingScript, scriptsOf, type CountingScript, type Script, type ScriptCaller } from './scripts.ts'
import type { RecoveryLedger, StoreStats } from './store.ts'

/** The state of a shard as this process knows it; `generation` is 0 when the shard has none. */
export interface Shard {
  generation: number
  /** Number of collections of the shard that this process knows of; data with fewer is an older snapshot. */
  looks: number
  /** When this process learned of the generation, by steadyNow(). */
  seenAt: number
  keys: GenerationKeys
  scripts: Record<CountingScript, Script>
}

/** The states of all shards; shared by the parts of the store. */
export type Shards = (Shard | undefined)[]

/** The result of one operation of a script, and the generation in which it ran. */
export interface Counted<Answer> {
  generation: number
  row: Answer
}

interface Call {
  keys: string[]
  args: (string | number)[]
}

/** A shard has begun a new generation, after `ms` milliseconds of recovery. */
export interface RecoveryEvent {
  shard: number
  from: number
  to: number
  ms: number
}

export interface GenerationsOptions {
  redis: Redis | Cluster
  keys: RedisKeys
  call: ScriptCaller
  recovery: RecoveryLedger
  shards: Shards
  stats: StoreStats
  /** Flushes what a closed generation still holds. */
  mergeSurvivors (shard: number, generation: number): Promise<void>
  onRecovery (event: RecoveryEvent): void
}

/** Milliseconds after which a write that waits for a recovery is rejected. */
const patienceMs = 230

/** Milliseconds after which another process takes over a recovery. */
const claimMs = 3000

/** Milliseconds between two checks whether the recovery by another process has finished. */
const claimRetryMs = 15

/**
 * The generations of the shards: runs counting scripts in the generation that takes writes, and begins a new one when
 * the data of a shard was lost, or may have been (Redis is empty, was restarted, promoted or restored).
 */
export function createGenerations (options: GenerationsOptions) {
  const { redis, keys: names, call, recovery, shards, stats, mergeSurvivors, onRecovery } = options
  const settling: (Promise<void> | undefined)[] = []

  const run = (script: Script, { keys, args }: Call): Promise<unknown> =>
    redis.evalsha(script.sha, keys.length, ...keys, ...args)

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
          return { generation: state.generation, answer: await run(state.scripts[name], build(state)) as Answer }
        } catch (error) {
          if (isMissingScript(error)) {
            if (performance.now() < deadline && await loadOwnVersion(shard, state)) continue
          } else if (!isFenced(error)) {
            throw error
          }
        }
      }
      const patience = deadline - performance.now()
      if (patience <= 0) throw new Error('The counters are being recovered')
      await within(patience, settle(shard, state?.generation))
    }
  }

  /** Runs a script of a batch of operations: one answer for each. */
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

  /**
   * During a rolling update another version of the service may have begun the generation: then the server is the right
   * one and knows only the scripts of that version. If the server restarts between the check and the load, its older
   * data takes writes until the next collection notices: milliseconds, and only during an update.
   *
   * @returns false when the server may have lost data: then a recovery is needed
   */
  async function loadOwnVersion (shard: number, state: Shard): Promise<boolean> {
    if (Number(await call('is-same-server', [names.meta(shard)], [state.generation])) !== 1) return false
    await load(state.scripts)
    return true
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

  return { count, countEach, settle, adopt }
}

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

import { setTimeout as sleep } from 'node:timers/promises'
import type { FastifyInstance } from 'fastify'
import fp from 'fastify-plugin'
import { Cluster } from 'ioredis'
import { buffered, createFlushedDurability } from '../services/engagement/counters/durability.ts'
import { createFlusher, type Flusher } from '../services/engagement/counters/flusher.ts'
import { createKnownVideos } from '../services/engagement/counters/known-videos.ts'
import { createLedger, type Ledger } from '../services/engagement/counters/ledger.ts'
import { createMemoryStore } from '../services/engagement/counters/memory-store.ts'
import { createRedisStore } from '../services/engagement/counters/redis-store.ts'
import { counterTimes, type CounterStore, type CounterTimes } from '../services/engagement/counters/store.ts'
import { takeOver } from '../services/engagement/counters/takeover.ts'
import { createEngagementService, type EngagementService } from '../services/engagement/engagement.ts'

declare module 'fastify' {
  interface FastifyInstance {
    counters: {
      engagement: EngagementService
      store: CounterStore
      ledger: Ledger
      flusher: Flusher
      /** Resolves when the counts of the Go service are in the ledger. */
      takenOver: Promise<void>
    }
  }
}

export interface CountersOptions {
  /** Replaces times of production; for tests, which cannot wait for half a minute. */
  times?: Partial<CounterTimes> | undefined
}

/** The counters: the store (Redis or the process), the ledger in PostgreSQL, and the flusher between them. */
export default fp<CountersOptions>(async function counters (app, { times = {} }) {
  const ledger = createLedger(app.database, app.backgroundDatabase)
  const { recovery } = ledger
  const store = app.redisClient
    ? createRedisStore({
      redis: app.redisClient,
      recovery,
      times,
      onRecovery: event => app.log.warn(event, 'the counters of a shard began a new generation')
    })
    : createMemoryStore({ recovery, times })
  // A video goes cold after `warmMs` without a change: a cached ledger row must be younger than that.
  const known = createKnownVideos({
    read: ledger.read,
    oldMs: Math.min(60_000, (times.warmMs ?? counterTimes.warmMs) / 4)
  })
  const flusher = createFlusher({ store, ledger, known, log: app.log })
  const abort = new AbortController()
  app.decorate('counters', {
    store,
    ledger,
    flusher,
    engagement: createEngagementService({
      store,
      ledger,
      known,
      adultAccess: app.adultAccess,
      durability: app.config.counterDurability === 'flushed' ? createFlushedDurability({ flusher, ledger }) : buffered,
      flushedUntil: () => store.stats.flushedUntil
    }),
    takenOver: takeOverWhenPossible(app, ledger, abort.signal)
  })
  app.addHook('onReady', async () => {
    flusher.start()
    store.begin().catch(() => {})
    warnOfSettings(app)
  })
  app.addHook('onClose', async () => {
    abort.abort()
    await flusher.close()
  })
}, { name: 'halo:counters', dependencies: ['halo:config', 'halo:database', 'halo:redis', 'halo:adult-access'] })

/** Warns of settings with which Redis loses counters, or stalls. */
function warnOfSettings ({ redisClient, log }: FastifyInstance): void {
  const nodes = redisClient instanceof Cluster ? redisClient.nodes('master') : redisClient ? [redisClient] : []
  for (const node of nodes) {
    node.info('memory').then(info => {
      const policy = /^maxmemory_policy:(\S+)/m.exec(info)?.[1] ?? ''
      if (policy.startsWith('allkeys')) {
        log.error({ policy }, 'this Redis may evict counters: set its maxmemory-policy to noeviction')
      }
    }, () => {})
    // A managed Redis may not allow CONFIG.
    node.config('GET', 'lazyfree-lazy-expire').then(answer => {
      if ((answer as string[])[1] === 'no') {
        log.warn(
          'the presence of a large stream that ends may block this Redis for most of a second: set its lazyfree-lazy-expire to yes'
        )
      }
    }, () => {})
  }
}

/** Takes over the counts of the Go service. Needs both stores and the schema, so it is retried until it succeeds. */
async function takeOverWhenPossible (
  { redisClient, log }: FastifyInstance,
  ledger: Ledger,
  signal: AbortSignal
): Promise<void> {
  if (!redisClient) return
  for (;;) {
    if (signal.aborted) return
    try {
      const result = await takeOver(redisClient, ledger)
      if (result && result.videos > 0) log.info(result, 'the counts of the Go service were taken over')
      return
    } catch (error) {
      log.debug({ cause: (error as Error).message }, 'the counts of the Go service could not be taken over yet')
      await sleep(500, undefined, { signal, ref: false }).catch(() => {})
    }
  }
}

import t from 'tap'
import { createFlusher } from '../../../../services/engagement/counters/flusher.ts'
import { createCollector } from '../../../../services/engagement/counters/redis-collector.ts'
import { createRedisKeys } from '../../../../services/engagement/counters/redis-keys.ts'
import { counterLimits, counterTimes, type Batch, type StoreStats } from '../../../../services/engagement/counters/store.ts'
import { steadyNow } from '../../../../services/shared/clock.ts'
import { until } from '../../../helpers/until.ts'

const batch: Batch = {
  shard: 0,
  generation: 1,
  counters: [{ videoId: 1, views: 1, comments: 0, peak: 0 }],
  likes: [],
  receipts: [],
  isPartial: false,
  lookedAt: 0
}

t.test('"flushed again" is logged when something is flushed, not when another process has just collected', async t => {
  let isUp = false
  let now = 1000
  let collections = 0
  const stats: StoreStats = { pending: 1, recoveries: 0, flushedUntil: 1000 }
  const messages: string[] = []
  const flusher = createFlusher({
    // Every second collection finds that another process has just collected.
    store: {
      stats,
      collect: async () => ++collections % 2 ? [batch] : [],
      acknowledge: async () => {
        stats.flushedUntil = now
      },
      forget: async () => {},
      claimBurial: async () => undefined
    } as never,
    ledger: {
      async merge () {
        if (!isUp) throw new Error('PostgreSQL is read-only')
        return []
      },
      deletedVideos: async (cursor: object) => ({ videoIds: [], cursor })
    } as never,
    known: { forget () {} } as never,
    log: { info: (numbers, message) => messages.push(message), warn: (numbers, message) => messages.push(message) },
    periodMs: 1,
    now: () => now
  })
  flusher.start()
  now += 10_000
  const collected = async (count: number) => {
    const before = collections
    await until('it goes on', () => collections > before + count)
  }
  await collected(10)
  t.strictSame(messages, ['counters cannot be flushed to PostgreSQL; the store keeps them'])
  isUp = true
  await until('it says so', () => messages.length > 1)
  t.strictSame(messages.slice(1), ['counters are flushed to PostgreSQL again'])
  await flusher.close()
})

t.test('the flush lag is right when the clock of Redis is an hour ahead, or behind', async t => {
  for (const lead of [3_600_000, -3_600_000]) {
    const stats: StoreStats = { pending: 0, recoveries: 0, flushedUntil: undefined }
    const at = (ms: number): string => String(Math.round(steadyNow() + lead + ms))
    const { collectShard } = createCollector({
      keys: createRedisKeys({ isCluster: false }),
      call: async () => ['7', at(-2000), at(0)],
      recovery: undefined as never,
      shards: [],
      stats,
      times: counterTimes,
      limits: counterLimits
    })
    t.equal(await collectShard(0, 1, { gapMs: 700 }), undefined)
    const lagMs = steadyNow() - stats.flushedUntil!
    t.ok(lagMs >= 1990 && lagMs < 3000, `${lagMs} ms`)
  }
})

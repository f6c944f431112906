import { setTimeout as sleep } from 'node:timers/promises'
import { Redis } from 'ioredis'
import t, { type Test } from 'tap'
import { createMemoryStore } from '../../../../services/engagement/counters/memory-store.ts'
import { createRedisStore } from '../../../../services/engagement/counters/redis-store.ts'
import {
  BacklogError,
  type CounterLimits,
  type CounterStore,
  type CounterTimes,
  type RecoveryLedger,
  type StoredCounters
} from '../../../../services/engagement/counters/store.ts'
import { connectRedis } from '../../../../services/stores/redis-connection.ts'
import { createFaultyProxy } from '../../../helpers/faulty-proxy.ts'
import { startRedis } from '../../../helpers/redis-server.ts'
import { availableStores, didNotRun, needsRedis } from '../../../helpers/stores.ts'
import { until } from '../../../helpers/until.ts'

/** Both stores, held to the same promises without a ledger behind them. */

interface Options {
  times?: Partial<CounterTimes>
  limits?: Partial<CounterLimits>
}

function createRecovery (): RecoveryLedger & { merged: unknown[] } {
  let generation = 0
  const merged: unknown[] = []
  return {
    merged,
    async merge (batch) {
      merged.push(batch)
    },
    async nextGeneration (above) {
      return (generation = Math.max(generation, above) + 1)
    },
    async fence () {}
  }
}

function onBothStores (name: string, options: Options, run: (t: Test, store: CounterStore) => Promise<void>): void {
  t.test(`${name} [memory]`, t => run(t, createMemoryStore({ recovery: createRecovery(), ...options })))
  if (!availableStores().some(stores => stores.redisUrl !== null)) return
  t.test(`${name} [Redis]`, async t => {
    const server = await startRedis()
    t.teardown(() => server.stop())
    await run(t, createRedisStore({ redis: server.client, recovery: createRecovery(), ...options }))
  })
}

async function * none (): AsyncGenerator<number[]> {}

async function like (store: CounterStore, videoId: number, userId: number, isLiked = true): Promise<StoredCounters> {
  const counters = await store.setLike(videoId, userId, isLiked)
  if (counters !== 'cold') return counters
  await store.warm(videoId, none)
  return await like(store, videoId, userId, isLiked)
}

/** One comment with a key, as the service sends it: a young store wants the ledger asked first. */
async function commentOnce (store: CounterStore, videoId: number, userId: number, use: string) {
  const once = { use, fingerprint: 'f' }
  const first = await store.addComment(videoId, userId, once)
  return 'uncheckedIn' in first
    ? await store.addComment(videoId, userId, { ...once, checkedIn: first.uncheckedIn })
    : first
}

const large = Number.MAX_SAFE_INTEGER

onBothStores('a store that has begun need not do so for the first write', {}, async (t, store) => {
  t.equal(store.generationSeenAt(7), 0)
  await Promise.all([store.begin(), store.begin()])
  const seenAt = store.generationSeenAt(7)
  t.ok(seenAt > 0)
  t.match(await store.heartbeat(7, 1), { generation: 1, liveViewers: 1 })
  t.equal(store.generationSeenAt(7), seenAt, 'nor does it')
})

onBothStores('what waits for the ledger is bounded, and what is there may still be taken back', {
  limits: { maxWaiting: 3 }
}, async (t, store) => {
  for (const user of [1, 2, 3]) t.match(await like(store, 7, user), { likes: user, isLiked: true })
  await t.rejects(like(store, 7, 4), BacklogError)
  await t.rejects(commentOnce(store, 7, 4, 'a'), BacklogError)
  t.match(await like(store, 7, 1), { likes: 3 }, 'no change needs no room')
  t.match(await like(store, 7, 1, false), { likes: 2 }, 'nor does one that waits already')
  t.match(await store.addComment(7, 4), { comments: 1 }, 'a plain count needs none at all')
  for (const batch of await store.collect({ isForced: true })) await store.acknowledge(batch)
  t.match(await like(store, 7, 4), { likes: 3 })
  t.match(await commentOnce(store, 7, 4, 'a'), { comments: 2 })
})

onBothStores('a batch that was changed meanwhile stays pending, the rest is cleared', {}, async (t, store) => {
  await like(store, 1, 10)
  await like(store, 1, 11)
  await store.addComment(1, 10)
  await store.addComment(2, 10)
  const first = await store.collect({ isForced: true })
  t.strictSame(first.flatMap(batch => batch.counters.map(one => one.comments)), [1, 1])
  await like(store, 1, 10, false)
  await store.addComment(1, 10)
  for (const batch of first) await store.acknowledge(batch)
  const second = await store.collect({ isForced: true })
  t.strictSame(second.flatMap(batch => batch.counters), [{ videoId: 1, views: 0, comments: 2, peak: 0 }])
  t.match(second.flatMap(batch => batch.likes), [{ videoId: 1, userId: 10, isLiked: false }])
  for (const batch of first) await store.acknowledge(batch)
  t.equal((await store.collect({ isForced: true })).length, 1, 'an old batch clears nothing new')
  for (const batch of second) await store.acknowledge(batch)
  t.strictSame(await store.collect({ isForced: true }), [])
})

onBothStores(
  'more than a batch takes is collected in parts, receipts before totals',
  { limits: { batchSize: 5 } },
  async (t, store) => {
    for (let video = 1; video <= 12; video++) await commentOnce(store, video, 1, `use${video}`)
    const seen = new Set<number>()
    const receipts = new Set<number>()
    for (let round = 0; round < 30; round++) {
      const batches = await store.collect({ isForced: true })
      if (batches.length === 0) break
      for (const batch of batches) {
        for (const receipt of batch.receipts) receipts.add(receipt.videoId)
        for (const { videoId } of batch.counters) {
          t.ok(receipts.has(videoId), `the receipt of video ${videoId} came first, or with it`)
          seen.add(videoId)
        }
        await store.acknowledge(batch)
      }
    }
    t.equal(seen.size, 12)
  }
)

onBothStores('ids up to 2^53 are counted exactly', {}, async (t, store) => {
  for (const video of [large, large - 1]) {
    t.match(await like(store, video, large), { likes: 1 })
    t.match(await like(store, video, large - 1), { likes: 2 })
    t.match(await store.heartbeat(video, large), { liveViewers: 1, isLiked: true })
    t.match(await store.addComment(video, large), { comments: 1 })
  }
  const batches = await store.collect({ isForced: true })
  t.strictSame(batches.flatMap(batch => batch.counters.map(one => one.videoId)).sort(), [large - 1, large])
  t.strictSame([...new Set(batches.flatMap(batch => batch.likes.map(one => one.userId)))].sort(), [large - 1, large])
  t.match(await store.read([large, 1, large - 1], large), [{ likes: 2, isLiked: true }, { likes: null }, {
    likes: 2,
    isLiked: true
  }])
})

onBothStores('likes that were read before their user was deleted do not come in afterwards', {}, async (t, store) => {
  await like(store, 9, 1)
  let reads = 0
  await store.warm(5, async function * () {
    reads++
    yield [1, 2, 3]
    if (reads === 1) await store.forget([{ videoId: 5, userId: 3 }])
    else return
    yield [4]
  })
  t.equal(reads, 2, 'read again')
  t.match(await store.read([5], 4), [{ likes: 3, isLiked: false }])
})

onBothStores(
  'likes are loaded once for all who want them, and a load that fails stands in nobody’s way',
  {},
  async (t, store) => {
    await like(store, 9, 1)
    let reads = 0
    async function * failing (): AsyncGenerator<number[]> {
      reads++
      yield [1]
      await new Promise(resolve => setTimeout(resolve, 20))
      throw new Error('The ledger is unavailable')
    }
    const startedAt = performance.now()
    const outcomes = await Promise.allSettled([store.warm(5, failing), store.warm(5, failing), store.warm(5, failing)])
    t.strictSame(outcomes.map(outcome => outcome.status), ['rejected', 'rejected', 'rejected'])
    t.equal(reads, 1)
    await store.warm(5, async function * () {
      yield [2, 3]
    })
    t.match(await store.read([5], 3), [{ likes: 2, isLiked: true }], 'and nothing of it stays')
    t.ok(performance.now() - startedAt < 4000, 'nobody waits until a ticket runs out')
  }
)

t.test('a load whose first answer comes too late gives its ticket back', async t => {
  const server = await startRedis()
  t.teardown(() => server.stop())
  const store = createRedisStore({ redis: server.client, recovery: createRecovery() })
  await like(store, 9, 1)
  const proxy = await createFaultyProxy(t, server.url, 6379)
  const slow = connectRedis({ url: proxy.url, isCluster: false })
  slow.on('error', () => {})
  t.teardown(() => {
    slow.disconnect()
  })
  await slow.connect()
  const slowStore = createRedisStore({ redis: slow, recovery: createRecovery() })
  await slowStore.read([9], undefined)
  // What it asks is done, and it does not hear of it.
  proxy.slow(150)
  await t.rejects(slowStore.warm(9 + 16, none), { message: /timed out/ })
  const startedAt = performance.now()
  await store.warm(9 + 16, async function * () {
    yield [2, 3]
  })
  t.ok(performance.now() - startedAt < 4000, 'nobody waits until the ticket runs out')
})

onBothStores(
  'a video that is forgotten leaves nothing, and counts from nothing if it is counted again',
  {},
  async (t, store) => {
    await like(store, 3, 1)
    await store.heartbeat(3, 1)
    await store.addComment(3, 1)
    await store.forget([{ videoId: 3, userId: null }, { videoId: 4, userId: null }, { videoId: 4, userId: 8 }])
    t.match(await store.read([3]), [{ views: 0, comments: 0, likes: null, liveViewers: 0 }])
    for (const batch of await store.collect({ isForced: true })) await store.acknowledge(batch)
    t.match(await store.addComment(3, 1), { comments: 1, likes: null, liveViewers: 0 })
    t.strictSame((await store.collect({ isForced: true })).flatMap(batch => batch.likes), [])
  }
)

onBothStores('a use is counted once, and in a young store only after the ledger was asked', {
  times: { receiptMs: 400 }
}, async (t, store) => {
  const once = { use: 'a', fingerprint: 'f' }
  const first = await store.addComment(1, 1, once)
  t.match(first, { uncheckedIn: Number })
  const { uncheckedIn } = first as { uncheckedIn: number }
  t.match(
    await store.addComment(1, 1, { ...once, checkedIn: uncheckedIn - 1 }),
    { uncheckedIn },
    'asked in another generation'
  )
  t.match(await store.addComment(1, 1, { ...once, checkedIn: uncheckedIn }), { comments: 1 })
  t.match(await store.addComment(1, 1, once), { fingerprint: 'f', answer: undefined })
  await store.keepAnswer(1, once, 'the answer')
  t.match(await store.addComment(1, 1, { use: 'a', fingerprint: 'g' }), { fingerprint: 'f', answer: 'the answer' })
  t.equal(await store.answerOf(1, 'a'), 'the answer')
  await new Promise(resolve => setTimeout(resolve, 500))
  t.match(await store.addComment(1, 1, { use: 'b', fingerprint: 'f' }), { comments: 2 }, 'old enough to know all uses')
})

onBothStores(
  'until when the ledger has everything is told by who has flushed',
  { times: { collectGapMs: 10_000 } },
  async (t, store) => {
    await like(store, 1, 1)
    const startedAt = Date.now()
    const batches = await store.collect({ isForced: true })
    t.ok((store.stats.flushedUntil ?? 0) < startedAt, 'not while it is only collected')
    for (const batch of batches) await store.acknowledge(batch)
    t.ok(store.stats.flushedUntil! >= startedAt - 5)
  }
)

t.test('a clock that jumps makes no view, no eternal viewer and no negative number', async t => {
  let now = 10_000_000
  const store = createMemoryStore({
    recovery: createRecovery(),
    now: () => now,
    times: { presenceMs: 45_000, watchedMs: 30_000, viewWindowMs: 1_800_000 }
  })
  await store.heartbeat(1, 99)
  now += 46_000
  const beat = async (viewer = 1) => await store.heartbeat(1, viewer)
  t.match(await beat(), { liveViewers: 1, views: 0 })
  now += 3_600_000
  t.match(await beat(), { liveViewers: 1, views: 0 }, 'an hour forward: not an hour watched')
  now -= 7_200_000
  t.match(await beat(2), { liveViewers: 1, views: 0 }, 'two hours back: who was there in the future is gone')
  t.match(await beat(), { liveViewers: 2, views: 0 })
  now += 31_000
  t.match(await beat(2), { views: 1 })
  t.match(await beat(), { views: 2 })
  for (let n = 0; n < 60; n++) {
    now += 15_000
    await beat()
  }
  t.match(await beat(), { views: 2, liveViewers: 1 }, 'once in half an hour, however long one watches')
  now += 1_000_000
  await beat()
  now += 31_000
  t.match(await beat(), { views: 3 })
})

t.test('a clock of Redis that was set back shows no viewers from the future', async t => {
  if (!availableStores().some(stores => stores.redisUrl !== null)) return didNotRun(t, needsRedis)
  const server = await startRedis()
  t.teardown(() => server.stop())
  const store = createRedisStore({ redis: server.client, recovery: createRecovery() })
  await store.heartbeat(1, 1)
  await server.client.zadd('halo:{0}:viewers:1', Date.now() + 3_600_000, 2)
  await server.client.zadd('halo:{0}:sessions:1', Date.now() + 3_600_000, 2)
  t.match(await store.read([1]), [{ liveViewers: 1 }])
  t.match(await store.heartbeat(1, 3), { liveViewers: 2 })
  t.match(await store.heartbeat(1, 2), { liveViewers: 3, views: 0 })
  await server.client.hset('halo:{0}', 'collected_at', Date.now() + 3_600_000)
  t.equal((await store.collect()).length, 1, 'and flushes go on')
})

t.test('a Redis that keeps scripts of another process in its cache is used by both', async t => {
  if (!availableStores().some(stores => stores.redisUrl !== null)) return didNotRun(t, needsRedis)
  const server = await startRedis()
  t.teardown(() => server.stop())
  const recovery = createRecovery()
  const events: object[] = []
  const clients = [new Redis(server.url), new Redis(server.url), new Redis(server.url)]
  t.teardown(() => clients.forEach(client => client.disconnect()))
  const stores = clients.map(redis => createRedisStore({ redis, recovery, onRecovery: event => events.push(event) }))
  await Promise.all(stores.flatMap(store => [1, 2, 3].map(() => store.addComment(1, 1))))
  t.match(await stores[0]!.read([1]), [{ comments: 9 }])
  t.equal(events.length, 1, 'one of three began the generation')
})

onBothStores('a viewer with several clients is one viewer, and stays until the last one leaves', {
  times: { presenceMs: 60_000 }
}, async (t, store) => {
  t.match(await store.heartbeat(1, 7, 'phone'), { liveViewers: 1 })
  t.match(await store.heartbeat(1, 7, 'tab'), { liveViewers: 1 })
  t.match(await store.heartbeat(1, 7), { liveViewers: 1 }, 'a client without a name is one of them')
  t.match(await store.leave(1, 7, 'tab'), { liveViewers: 1 })
  t.match(await store.leave(1, 7, 'unknown'), { liveViewers: 1 }, 'a client that is not there')
  t.match(await store.leave(1, 7), { liveViewers: 1 })
  t.match(await store.leave(1, 7, 'phone'), { liveViewers: 0 })
  t.match(await store.heartbeat(1, 7), { liveViewers: 1 })
  t.match(await store.leave(1, 7, 'tab'), { liveViewers: 1 }, 'the presence of a client without a name')
  t.match(await store.heartbeat(1, 7, 'tab'), { liveViewers: 1 })
  t.match(await store.leave(1, 7, 'tab'), { liveViewers: 1 }, 'it was there before the named one')
  t.match(await store.leave(1, 7), { liveViewers: 0 })
  t.match(await store.heartbeat(1, 8), { liveViewers: 1 }, 'another viewer, as before')
  t.match(await store.leave(1, 8), { liveViewers: 0 })
})

onBothStores('of the clients of a viewer the eight newest are kept', {}, async (t, store) => {
  const names = ['1', '2', '3', '4', '5', '6', '7', '8', '9']
  // The first one is renewed before the ninth comes: the second is the oldest then, and goes.
  for (const client of [...names.slice(0, 8), '1', '9']) await store.heartbeat(1, 7, client)
  const kept = names.filter(name => name !== '2')
  for (const client of kept.slice(0, -1)) t.match(await store.leave(1, 7, client), { liveViewers: 1 }, client)
  t.match(await store.leave(1, 7, kept.at(-1)!), { liveViewers: 0 })
})

onBothStores('after a departure the presence lasts as long as that of the client that stays', {
  times: { presenceMs: 600 }
}, async (t, store) => {
  await store.heartbeat(1, 7, 'first')
  await sleep(400)
  await store.heartbeat(1, 7, 'second')
  await store.heartbeat(1, 8, 'other')
  t.match(await store.leave(1, 7, 'second'), { liveViewers: 2 })
  await until('the first client has expired, the other viewer has not', async () => {
    const [counters] = await store.read([1])
    return counters!.liveViewers === 1
  })
  t.match(await store.heartbeat(1, 7, 'third'), { liveViewers: 2 })
  t.match(await store.leave(1, 7, 'third'), { liveViewers: 1 }, 'an expired client keeps nobody there')
})

onBothStores('a view survives the departure of one client', {
  times: { presenceMs: 1000, watchedMs: 1200 }
}, async (t, store) => {
  await store.heartbeat(1, 99)
  // A generation counts no views before its first presences could have expired.
  await sleep(1100)
  await store.heartbeat(1, 7, 'tab')
  await store.heartbeat(1, 7, 'phone')
  await store.leave(1, 7, 'tab')
  await sleep(650)
  t.match(await store.heartbeat(1, 7, 'phone'), { views: 0 })
  await sleep(650)
  t.match(await store.heartbeat(1, 7, 'phone'), { views: 1 })
})

t.test('the clients of viewers who are gone take no memory in Redis', async t => {
  if (!availableStores().some(stores => stores.redisUrl !== null)) return didNotRun(t, needsRedis)
  const server = await startRedis()
  t.teardown(() => server.stop())
  const store = createRedisStore({ redis: server.client, recovery: createRecovery(), times: { presenceMs: 300 } })
  for (let user = 1; user <= 50; user++) await store.heartbeat(1, user, 'tab')
  await store.heartbeat(1, 60, 'tab')
  await store.heartbeat(1, 61, 'tab')
  t.equal(await server.client.hlen('halo:{0}:clients:1'), 52)
  await store.leave(1, 60, 'tab')
  await store.leaveAll(61)
  t.equal(await server.client.hlen('halo:{0}:clients:1'), 50)
  await sleep(350)
  await store.heartbeat(1, 62, 'tab')
  t.equal(await server.client.hlen('halo:{0}:clients:1'), 1)
  await store.forget([{ videoId: 1, userId: null }])
  t.strictSame(await server.client.keys('*:clients:*'), [])
})

t.test('another version of the scripts joins the generation that it finds', async t => {
  if (!availableStores().some(stores => stores.redisUrl !== null)) return didNotRun(t, needsRedis)
  const server = await startRedis()
  t.teardown(() => server.stop())
  const recovery = createRecovery()
  const [old, next] = [
    createRedisStore({ redis: server.client, recovery }),
    createRedisStore({ redis: server.client, recovery })
  ]
  t.match(await old.addComment(1, 7), { comments: 1, generation: 1 })
  // The server knows the scripts of the version that began the generation, and none of the other one's.
  await server.client.script('FLUSH')
  const answers = await Promise.all([next.addComment(1, 8), next.heartbeat(1, 8), old.addComment(1, 7)])
  t.strictSame(answers.map(answer => 'generation' in answer && answer.generation), [1, 1, 1])
  t.equal(old.stats.recoveries + next.stats.recoveries, 1, 'only the one that began the generation')
  const snapshot = await server.snapshot()
  await old.addComment(1, 7)
  await server.restart(snapshot)
  t.match(await old.addComment(1, 7), { comments: 1, generation: 2 }, 'a server with older data is another one')
})

t.test('a process that collects just after another one knows how far the ledger is', async t => {
  if (!availableStores().some(stores => stores.redisUrl !== null)) return didNotRun(t, needsRedis)
  const server = await startRedis()
  t.teardown(() => server.stop())
  const recovery = createRecovery()
  const [first, second] = [0, 1].map(() => createRedisStore({ redis: server.client, recovery }))
  await first!.addComment(1, 7)
  for (const batch of await first!.collect({ isForced: true })) await first!.acknowledge(batch)
  await second!.begin()
  t.strictSame(await second!.collect(), [], 'within the gap')
  t.ok(Math.abs(second!.stats.flushedUntil! - first!.stats.flushedUntil!) < 1000)
})

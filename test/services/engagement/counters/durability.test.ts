import t from 'tap'
import { createFlushedDurability } from '../../../../services/engagement/counters/durability.ts'
import type { AwaitedWrite } from '../../../../services/engagement/counters/store.ts'
import { addVideo, createApp, createDatabase, signUp } from '../../../helpers/app.ts'
import { createFaultyProxy } from '../../../helpers/faulty-proxy.ts'
import { emptyTestDatabase } from '../../../helpers/test-marker.ts'
import { hasProblem } from '../../../helpers/problem.ts'
import { anyStores, availableStores, didNotRun, needsRedis, onEachStore } from '../../../helpers/stores.ts'

const env = { COUNTER_DURABILITY: 'flushed' }

const counted = (comments: number) => ({
  generation: 1,
  views: 0,
  comments,
  likes: 0,
  liveViewers: 0,
  isLiked: null
})

t.test('writes that come during a flush wait for the next one, all together', async t => {
  const flushes: PromiseWithResolvers<void>[] = []
  const groups: AwaitedWrite[][] = []
  const durability = createFlushedDurability({
    flusher: {
      async flush () {
        const flush = Promise.withResolvers<void>()
        flushes.push(flush)
        await flush.promise
      }
    },
    ledger: {
      async findWrites (writes) {
        groups.push(writes)
        return writes.map((write, index) => index)
      }
    }
  })
  const acknowledged: number[] = []
  const comment = (n: number) => durability.comment(7, counted(n)).then(() => acknowledged.push(n))
  const first = comment(1)
  const others = [comment(2), comment(3)]
  flushes[0]!.resolve()
  await first
  t.strictSame(acknowledged, [1])
  flushes[1]!.resolve()
  await Promise.all(others)
  t.strictSame(groups.map(group => group.length), [1, 2], 'the first one alone: its flush began at once')
})

t.test('a write that no flush brings to the ledger is unconfirmed after the time limit', async t => {
  let flushes = 0
  const durability = createFlushedDurability({
    flusher: {
      async flush () {
        if (++flushes === 2) throw new Error('PostgreSQL is unavailable')
      }
    },
    ledger: { findWrites: async () => [] },
    maxWaitMs: 200
  })
  await t.rejects(durability.comment(7, counted(1)), { code: 'engagement_unconfirmed' })
  t.ok(flushes > 3, 'a failed flush is repeated')
  await durability.like(7, 1, { ...counted(1), version: 0 })
  t.pass('a like that changed nothing waits for nothing')
})

onEachStore(t, 'an acknowledged like or comment is in PostgreSQL, a heartbeat does not wait', async (t, stores) => {
  const app = await createApp(t, { stores, env, counterTimes: { collectGapMs: 60_000 } })
  const { user, authorization } = await signUp(app)
  const id = await addVideo(app, user.id)
  const write = (method: 'POST' | 'DELETE', metric: string, headers = {}) =>
    app.inject({ method, url: `/api/v1/videos/${id}/engagement/${metric}`, headers: { ...authorization, ...headers } })
  const stored = async () =>
    (await app.pg.query(
      `select (select comment_base + comment_n from video_counters where video_id = $1) as comments,
        (select count(*) from video_likes where video_id = $1 and liked) as likes`,
      [id]
    )).rows[0]
  t.equal((await write('POST', 'comments')).statusCode, 200)
  t.match(await stored(), { comments: 1, likes: 0 })
  t.equal((await write('POST', 'likes')).statusCode, 200)
  t.match(await stored(), { comments: 1, likes: 1 })
  t.equal((await write('POST', 'likes')).statusCode, 200, 'a repeated like')
  t.equal((await write('DELETE', 'likes')).statusCode, 200)
  t.match(await stored(), { likes: 0 })
  const keyed = [1, 2, 3].map(() => write('POST', 'comments', { 'idempotency-key': 'once' }))
  const statuses = (await Promise.all(keyed)).map(answer => answer.statusCode)
  t.ok(statuses.includes(200) && statuses.every(status => status === 200 || status === 409), String(statuses))
  t.match(await stored(), { comments: 2 })
  const many = await Promise.all(Array.from({ length: 50 }, () => write('POST', 'comments')))
  t.ok(many.every(answer => answer.statusCode === 200))
  t.match(await stored(), { comments: 52 })

  const { merge } = app.counters.ledger
  app.counters.ledger.merge = async () => {
    throw new Error('PostgreSQL is unavailable')
  }
  t.equal((await write('POST', 'live_viewers')).statusCode, 200)
  hasProblem(t, await write('POST', 'likes'), 'engagement_unconfirmed')
  for (const tries of ['the first use', 'a repetition']) {
    hasProblem(
      t,
      await write('POST', 'comments', { 'idempotency-key': 'unconfirmed' }),
      'engagement_unconfirmed',
      {},
      tries
    )
  }
  app.counters.ledger.merge = merge
  t.equal((await write('POST', 'likes')).statusCode, 200, 'repeated, it is confirmed')
  t.match(await stored(), { likes: 1 })
})

t.test('while PostgreSQL is silent, the outcome of a write is unknown, and it is there afterwards', async t => {
  const stores = anyStores()
  const databaseUrl = await createDatabase(t, stores)
  const proxy = await createFaultyProxy(t, databaseUrl, 5432)
  const app = await createApp(t, { stores, databaseUrl: proxy.url, redisUrl: stores.redisUrl, env })
  const { user, authorization } = await signUp(app)
  const id = await addVideo(app, user.id)
  const comment = () =>
    app.inject({ method: 'POST', url: `/api/v1/videos/${id}/engagement/comments`, headers: authorization })
  t.equal((await comment()).statusCode, 200)
  proxy.silence()
  const answer = await comment()
  hasProblem(t, answer, 'engagement_unconfirmed')
  t.equal(answer.headers['retry-after'], '1')
  await proxy.forward()
  for (let tries = 0; tries < 100 && (await comment()).statusCode !== 200; tries++);
  await app.counters.flusher.flush({ isForced: true })
  const { rows: [row] } = await app.pg.query('select comment_base + comment_n as comments from video_counters')
  t.ok((row as { comments: number }).comments >= 3)
})

t.test('a comment whose store was emptied before its answer was kept is counted by its repetition', async t => {
  const redis = availableStores().find(stores => stores.redisUrl !== null)
  if (!redis) return didNotRun(t, needsRedis)
  const app = await createApp(t, { stores: redis, env })
  const { user, authorization } = await signUp(app)
  const id = await addVideo(app, user.id)
  const comment = () =>
    app.inject({
      method: 'POST',
      url: `/api/v1/videos/${id}/engagement/comments`,
      headers: { ...authorization, 'idempotency-key': 'once' }
    })
  const { addComment } = app.counters.store
  app.counters.store.addComment = async (...args) => {
    const counted = await addComment(...args)
    if ('views' in counted) {
      app.counters.store.addComment = addComment
      await emptyTestDatabase(app.redis)
    }
    return counted
  }
  hasProblem(t, await comment(), 'engagement_unconfirmed')
  let answer = await comment()
  for (let tries = 0; tries < 100 && answer.statusCode !== 200; tries++) answer = await comment()
  t.equal(answer.statusCode, 200)
  const { rows: [row] } = await app.pg.query('select comment_base + comment_n as comments from video_counters')
  t.strictSame(row, { comments: 1 })
})

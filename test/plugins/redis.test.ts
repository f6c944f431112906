import t from 'tap'
import { createRedisKeys } from '../../services/engagement/counters/redis-keys.ts'
import { takeOver } from '../../services/engagement/counters/takeover.ts'
import { verifyCounters } from '../../services/engagement/counters/verify.ts'
import { addVideo, createApp, logLines, signUp } from '../helpers/app.ts'
import { startRedis, startRedisCluster } from '../helpers/redis-server.ts'
import { availableStores, didNotRun, needsRedis } from '../helpers/stores.ts'
import { until } from '../helpers/until.ts'

const stores = availableStores().find(one => one.redisUrl !== null)

t.test('on a Redis Cluster videos are spread over the nodes, and all of it works as on one', async t => {
  if (!stores) return didNotRun(t, needsRedis)
  const nodes = await startRedisCluster()
  t.teardown(() => Promise.all(nodes.map(node => node.stop())))
  const app = await createApp(t, { stores, redisUrl: nodes[0]!.url, env: { REDIS_CLUSTER: 'true' } })
  const { user, authorization } = await signUp(app)
  const ids: number[] = []
  for (let n = 0; n < 20; n++) ids.push(await addVideo(app, user.id))
  for (const id of ids) {
    for (const metric of ['likes', 'comments', 'live_viewers']) {
      const answer = await app.inject({
        method: 'POST',
        url: `/api/v1/videos/${id}/engagement/${metric}`,
        headers: { ...authorization, 'idempotency-key': String(id) }
      })
      t.equal(answer.statusCode, 200, answer.body)
    }
  }
  const listed = (await app.inject('/api/v1/videos?limit=100')).json<object[]>()
  t.equal(listed.length, 20)
  for (const video of listed) {
    t.match(video, { like_count: 1, comment_count: 1, live_viewers: 1, counters: { stale: false } })
  }
  await app.counters.flusher.flush({ isForced: true })
  t.match(
    (await app.pg.query('select sum(like_count)::int as likes, sum(comment_n)::int as comments from video_counters'))
      .rows,
    [{ likes: 20, comments: 20 }]
  )
  const sizes = await Promise.all(nodes.map(({ client }) => client.dbsize()))
  t.ok(sizes.every(size => size > 0), `keys of the nodes: ${sizes.join(', ')}`)
  t.strictSame(await verifyCounters({ database: app.backgroundDatabase, redis: app.redisClient }), {
    videos: 20,
    drifts: []
  })

  const names = createRedisKeys({ isCluster: true })
  await app.redisClient!.set(`video:${ids[0]}:likes`, 10)
  t.strictSame(await takeOver(app.redisClient!, app.counters.ledger, { force: true }), { videos: 1, skipped: 0 })
  await app.redisClient!.hdel(
    names.ofGeneration(
      names.shardOf(ids[1]!),
      Number(await app.redisClient!.hget(names.meta(names.shardOf(ids[1]!)), 'generation'))
    ).comments,
    String(ids[1])
  )
  const { drifts } = await verifyCounters({ database: app.backgroundDatabase, redis: app.redisClient, settleMs: 100 })
  t.strictSame(drifts, [], 'what is not there is no drift: it is in PostgreSQL')
})

t.test('a Redis whose settings lose counters or stall is complained of in the log, another one is not', async t => {
  if (!stores) return didNotRun(t, needsRedis)
  const complaints = /may evict counters|may block this Redis/
  const [bad, good] = await Promise.all([
    startRedis(['--maxmemory-policy', 'allkeys-lru']),
    startRedis(['--lazyfree-lazy-expire', 'yes'])
  ])
  t.teardown(() => Promise.all([bad.stop(), good.stop()]))
  const from = logLines.length
  const app = await createApp(t, { stores, redisUrl: bad.url })
  await app.ready()
  const said = (text: string) => logLines.slice(from).find(line => line.includes(text))
  t.match(
    await until('the first complaint', () => said('may evict')),
    /"policy":"allkeys-lru".*set its maxmemory-policy to noeviction/
  )
  t.match(await until('the second one', () => said('may block this Redis')), /set its lazyfree-lazy-expire to yes/)
  const before = logLines.length
  const quiet = await createApp(t, { stores, redisUrl: good.url })
  await quiet.ready()
  await good.client.ping()
  await quiet.counters.flusher.flush({ isForced: true })
  t.notOk(logLines.slice(before).some(line => complaints.test(line)))
})

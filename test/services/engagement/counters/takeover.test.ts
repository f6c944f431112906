import { Redis } from 'ioredis'
import t from 'tap'
import { takeOver } from '../../../../services/engagement/counters/takeover.ts'
import { addVideo, createApp, createDatabase, runSql, signUp } from '../../../helpers/app.ts'
import { startRedis } from '../../../helpers/redis-server.ts'
import { availableStores, didNotRun, needsRedis } from '../../../helpers/stores.ts'

const stores = availableStores().find(one => one.redisUrl !== null)

t.test('what the Go service had counted is taken over once, and counting goes on from there', async t => {
  if (!stores) return didNotRun(t, needsRedis)
  const redis = await startRedis()
  t.teardown(() => redis.stop())
  const databaseUrl = await createDatabase(t, stores)
  await runSql(
    databaseUrl,
    "insert into users (id, email, username, password_hash) values (900, 'a@example.com', 'someone', 'x')"
  )
  await runSql(
    databaseUrl,
    "insert into videos (id, user_id, title) select n, 900, 'a video' from generate_series(1001, 1005) n"
  )
  await redis.client.mset({
    'video:1001:likes': 41,
    'video:1001:comments': 7,
    'video:1001:live_viewers': 12,
    'video:1002:likes': 5,
    // What is no count, or of no video, is left.
    'video:1003:likes': -3,
    'video:1004:comments': 'many',
    'video:4004:likes': 9,
    'video:01001:likes': 99,
    'video:1001:shares': 99
  })
  await redis.client.lpush('video:1005:likes', 'a list')

  const app = await createApp(t, { stores, databaseUrl, redisUrl: redis.url })
  await app.ready()
  await app.counters.takenOver
  const shown = async (id: number) => (await app.inject(`/api/v1/videos/${id}/engagement`)).json<object>()
  t.match(await shown(1001), { like_count: 41, comment_count: 7, live_viewers: 0 })
  t.match(await shown(1002), { like_count: 5, comment_count: 0 })
  for (const id of [1003, 1004, 1005]) t.match(await shown(id), { like_count: 0, comment_count: 0 })

  const { authorization } = await signUp(app)
  for (const metric of ['likes', 'comments']) {
    await app.inject({ method: 'POST', url: `/api/v1/videos/1001/engagement/${metric}`, headers: authorization })
  }
  await app.counters.flusher.flush({ isForced: true })
  t.match(await shown(1001), { like_count: 42, comment_count: 8 })

  t.equal(await takeOver(redis.client, app.counters.ledger), undefined, 'it was done')
  await redis.client.incr('video:1001:likes')
  t.strictSame(
    await takeOver(redis.client, app.counters.ledger, { force: true }),
    { videos: 2, skipped: 4 },
    'and may be repeated'
  )
  const again = await createApp(t, { stores, databaseUrl, redisUrl: redis.url })
  t.match(
    (await again.inject('/api/v1/videos/1001/engagement')).json(),
    { like_count: 43, comment_count: 8 },
    'by maximum: nothing is added twice'
  )
  t.equal(await redis.client.get('video:1001:likes'), '42', 'the key stays, for a way back to the Go service')
})

t.test('the counts of the Go service, taken over while PostgreSQL is unavailable, follow when it is back', async t => {
  if (!stores) return didNotRun(t, needsRedis)
  const redis = await startRedis()
  t.teardown(() => redis.stop())
  const databaseUrl = await createDatabase(t, stores, { isMigrated: false })
  await redis.client.set('video:1:likes', 3)
  const app = await createApp(t, { stores, databaseUrl, redisUrl: redis.url })
  await app.ready()
  await new Promise(resolve => setTimeout(resolve, 200))
  const client = new Redis(redis.url)
  t.teardown(() => client.disconnect())
  t.equal(await client.exists('halo:takeover'), 0, 'the control: there is no schema yet')
  const { migrate } = await import('../../../../db/migrate.ts')
  await migrate({ connectionString: databaseUrl })
  const { user } = await signUp(app)
  t.equal(await addVideo(app, user.id), 1)
  await app.counters.takenOver
  await takeOver(client, app.counters.ledger, { force: true })
  t.match((await app.inject('/api/v1/videos/1')).json(), { like_count: 3 })
})

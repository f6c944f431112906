import t from 'tap'
import { addVideo, createApp, createDatabase, signUp } from '../../../helpers/app.ts'
import { startRedis } from '../../../helpers/redis-server.ts'
import { availableStores, didNotRun, needsRedis } from '../../../helpers/stores.ts'
import { until } from '../../../helpers/until.ts'

const stores = availableStores().find(({ redisUrl }) => redisUrl !== null)

t.test('sixty thousand deleted videos are removed from Redis in few calls, once, and nobody else is refused', async t => {
  if (!stores) return didNotRun(t, needsRedis)
  const redis = await startRedis()
  t.teardown(() => redis.stop())
  const databaseUrl = await createDatabase(t, stores)
  const options = { stores, databaseUrl, redisUrl: redis.url }
  const [one, two] = [await createApp(t, options), await createApp(t, options)]
  const owner = await signUp(one)
  const id = await addVideo(one, owner.user.id)
  await Promise.all([one.ready(), two.ready()])
  const like = (app: typeof one, method: 'POST' | 'DELETE' = 'POST') =>
    app.inject({ method, url: `/api/v1/videos/${id}/engagement/likes`, headers: owner.authorization })
  t.equal((await like(one)).statusCode, 200)
  const mark = async (): Promise<string | null> => await redis.client.get('halo:burial')
  const { backgroundPool } = one
  await backgroundPool.query({
    text: "insert into videos (user_id, title) select $1, 'x' from generate_series(1, 60000)",
    values: [owner.user.id]
  })
  await redis.client.config('RESETSTAT')
  await backgroundPool.query('delete from videos where id <> $1', [id])
  const { rows: [last] } = await one.pg.query<{ mark: string }>(
    "select transaction_id::text || ':' || id as mark from counter_tombstones order by transaction_id desc, id desc limit 1"
  )
  let refused = 0
  let asked = 0
  await until('all are removed', async () => {
    for (const app of [one, two]) {
      asked++
      if ((await like(app, asked % 3 === 0 ? 'DELETE' : 'POST')).statusCode !== 200) refused++
    }
    return await mark() === last!.mark
  })
  // One call may meet its time limit when the machine is busy; before the fix others were refused for minutes.
  t.ok(refused <= asked / 50, `${refused} of ${asked} likes of another video were refused`)
  const calls = Number(/cmdstat_evalsha:calls=(\d+)/.exec(await redis.client.info('commandstats'))?.[1])
  // 300 chunks of 200, and the likes; of two processes that both did the work it would be 600 and more.
  t.ok(calls < 550 + 1.1 * asked, `${calls} script calls for ${asked} likes and 300 chunks`)

  const heir = await createApp(t, options)
  await redis.client.config('RESETSTAT')
  await heir.ready()
  await heir.counters.flusher.flush({ isForced: true })
  t.equal(await mark(), last!.mark)
  const ofHeir = Number(/cmdstat_evalsha:calls=(\d+)/.exec(await redis.client.info('commandstats'))?.[1] ?? 0)
  t.ok(ofHeir < 100, `a process that starts does not begin again: ${ofHeir} script calls`)
  t.equal((await like(heir)).statusCode, 200)
})

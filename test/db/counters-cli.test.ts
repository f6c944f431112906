import { execFile } from 'node:child_process'
import { join } from 'node:path'
import { setImmediate } from 'node:timers/promises'
import t, { type Test } from 'tap'
import { createRedisKeys } from '../../services/engagement/counters/redis-keys.ts'
import { repairCounters, verifyCounters } from '../../services/engagement/counters/verify.ts'
import { addVideo, createApp, signUp } from '../helpers/app.ts'
import { startRedis } from '../helpers/redis-server.ts'
import { availableStores, didNotRun, needsRedis, onEachStore } from '../helpers/stores.ts'

const cli = join(import.meta.dirname, '..', '..', 'db', 'counters-cli.ts')

async function run (args: string[], env: Record<string, string>): Promise<{ code: number, output: string }> {
  return await new Promise(resolve => {
    execFile(
      process.execPath,
      [cli, ...args],
      { env: { PATH: process.env['PATH'], ...env } },
      (error, stdout, stderr) => {
        resolve({ code: error === null ? 0 : Number(error.code), output: stdout + stderr })
      }
    )
  })
}

async function setUp (t: Test) {
  const stores = availableStores().find(one => one.redisUrl !== null)
  if (!stores) return undefined
  const redis = await startRedis()
  t.teardown(() => redis.stop())
  const app = await createApp(t, { stores, redisUrl: redis.url })
  const people = await Promise.all([1, 2, 3].map(() => signUp(app)))
  const id = await addVideo(app, people[0]!.user.id)
  for (const { authorization } of people) {
    for (const metric of ['likes', 'comments']) {
      await app.inject({ method: 'POST', url: `/api/v1/videos/${id}/engagement/${metric}`, headers: authorization })
    }
  }
  await app.counters.flusher.flush({ isForced: true })
  const { connectionString } = app.pg.pool.options as { connectionString: string }
  const names = createRedisKeys({ isCluster: false })
  const generation = Number(await redis.client.hget(names.meta(0), 'generation'))
  return {
    app,
    redis,
    id,
    people,
    keys: names.ofGeneration(0, generation),
    env: { DATABASE_URL: connectionString, REDIS_URL: redis.url }
  }
}

t.test('counters:verify finds each kind of drift, names it and exits 1; --repair mends it', async t => {
  const scene = await setUp(t)
  if (!scene) return didNotRun(t, needsRedis)
  const { app, redis, id, people, keys, env } = scene
  t.strictSame(await run(['verify'], env), {
    code: 0,
    output: 'Recounted 1 videos in PostgreSQL and Redis: no drift.\n'
  })

  await app.pg.query('update video_counters set like_count = 99 where video_id = $1', [id])
  await redis.client.srem(keys.likes(id), people[1]!.user.id)
  await redis.client.hset(keys.comments, id, 1)
  await redis.client.hset(keys.views, id, 40)
  await redis.client.hset(keys.views, 16 + id, 5)
  const found = await run(['verify'], env)
  t.equal(found.code, 1)
  t.strictSame(
    found.output.split('\n').slice(0, 5).sort(),
    [
      `video ${id}: likes in Redis differ from the rows (2 instead of 3)`,
      `video ${id}: likes in the ledger differ from its rows (99 instead of 3)`,
      `video ${id}: the total in Redis is above the ledger’s and is not marked for the next flush (40 instead of 0)`,
      `video ${id}: the total in Redis is below what it had flushed before (1 instead of 3)`,
      `video ${id + 16}: Redis counts a video that does not exist (5 instead of 0)`
    ].sort()
  )
  t.match(found.output, /: 5 drifts\.\nRepair them with: npm run counters:verify -- --repair\n$/)

  const mended = await run(['verify', '--repair'], env)
  t.match(mended, { code: 0, output: /All repaired\.\n$/ })
  await app.counters.flusher.flush({ isForced: true })
  t.match((await app.inject(`/api/v1/videos/${id}`)).json(), { like_count: 3, comment_count: 3, view_count: 40 })
  t.equal((await run(['verify'], env)).code, 0)
})

t.test('counters:verify, with what it cannot understand or reach, says so and exits 1', async t => {
  const scene = await setUp(t)
  if (!scene) return didNotRun(t, needsRedis)
  const { env, redis } = scene
  for (const args of [[], ['mend'], ['verify', '--fix'], ['verify', 'more'], ['takeover', '--repair']]) {
    t.match(await run(args, env), { code: 2, output: /^[^\n]+; see --help\n$/ }, args.join(' '))
  }
  t.match(await run(['verify'], { ...env, DATABASE_URL: 'postgres://127.0.0.1:1/none' }), {
    code: 1,
    output: /The check failed/
  })
  t.match(await run(['takeover'], { DATABASE_URL: env.DATABASE_URL }), {
    code: 1,
    output: /REDIS_URL \(or REDIS_HOST\) is missing/
  })
  await redis.client.set('video:1:likes', 10)
  t.match(await run(['takeover'], env), {
    code: 0,
    output: 'Imported the counts of 1 videos; 0 keys were not a count of an existing video.\n'
  })
  await redis.kill()
  t.match(await run(['verify'], env), { code: 1, output: /The check failed/ })
})

onEachStore(t, 'a service that goes on counting while it is verified is no drift', async (t, stores) => {
  const app = await createApp(t, { stores })
  const { user, authorization } = await signUp(app)
  const id = await addVideo(app, user.id)
  const abort = new AbortController()
  const counting = (async () => {
    while (!abort.signal.aborted) {
      // Injected requests come through no socket: without this, counters in the process would leave no turn to any.
      await setImmediate()
      await app.inject({ method: 'POST', url: `/api/v1/videos/${id}/engagement/comments`, headers: authorization })
      await app.inject({ method: 'POST', url: `/api/v1/videos/${id}/engagement/likes`, headers: authorization })
      await app.inject({ method: 'DELETE', url: `/api/v1/videos/${id}/engagement/likes`, headers: authorization })
    }
  })()
  const options = { database: app.backgroundDatabase, redis: app.redisClient, settleMs: 1000 }
  for (let n = 0; n < 3; n++) t.strictSame((await verifyCounters(options)).drifts, [])
  abort.abort()
  await counting
  await repairCounters(options, [])
})

import pg from 'pg'
import t, { type Test } from 'tap'
import { addVideo, createApp, logLines, signUp, type App, type Session } from '../../../helpers/app.ts'
import { hasProblem } from '../../../helpers/problem.ts'
import { startRedis, type RedisServer } from '../../../helpers/redis-server.ts'
import { availableStores, didNotRun, needsRedis } from '../../../helpers/stores.ts'

/**
 * A Redis that lost its memory, in every way in which it can: what was flushed is there afterwards, nothing is
 * counted twice, and the service goes on by itself.
 */

const stores = availableStores().find(one => one.redisUrl !== null)
const times = { collectGapMs: 50 }

interface Scene {
  redis: RedisServer
  app: App
  owner: Session
  people: Session[]
  id: number
}

async function setUp (t: Test): Promise<Scene> {
  const redis = await startRedis(['--repl-diskless-load', 'swapdb', '--repl-diskless-sync-delay', '0'])
  t.teardown(() => redis.stop())
  const app = await createApp(t, { stores: stores!, redisUrl: redis.url, counterTimes: times })
  const owner = await signUp(app)
  const people = await Promise.all(Array.from({ length: 8 }, () => signUp(app)))
  return { redis, app, owner, people, id: await addVideo(app, owner.user.id) }
}

const like = (app: App, person: Session, id: number, method: 'POST' | 'DELETE' = 'POST') =>
  app.inject({ method, url: `/api/v1/videos/${id}/engagement/likes`, headers: person.authorization })

function comment (app: App, person: Session, id: number, key?: string) {
  const headers = { ...person.authorization, ...key === undefined ? {} : { 'idempotency-key': key } }
  return app.inject({ method: 'POST', url: `/api/v1/videos/${id}/engagement/comments`, headers })
}

const flushed = (app: App) => app.counters.flusher.flush({ isForced: true })

/** Repeats what is refused while the store is unavailable, as a client does. */
async function insist (t: Test, send: () => Promise<{ statusCode: number, body: string }>): Promise<void> {
  const deadline = Date.now() + 30_000
  for (;;) {
    const answer = await send()
    if (answer.statusCode === 200) return
    if (![503, 409].includes(answer.statusCode) || Date.now() > deadline) {
      t.fail(`not taken: ${answer.body}`)
      return
    }
    await new Promise(resolve => setTimeout(resolve, 20))
  }
}

async function stored (app: App, id: number): Promise<{ likes: number, comments: number, rows: number }> {
  const { rows: [row] } = await app.pg.query(
    `
    select like_count as likes, comment_base + comment_n as comments, (select count(*)::int from video_likes where video_id = $1 and liked) as rows
    from video_counters where video_id = $1`,
    [id]
  )
  return row as { likes: number, comments: number, rows: number }
}

const losses: Record<string, (scene: Scene, snapshot: string) => Promise<void>> = {
  'killed and back empty': async ({ redis }) => {
    await redis.restart()
  },
  'killed and back from an older snapshot': async ({ redis }, snapshot) => {
    await redis.restart(snapshot)
  },
  'emptied while running': async ({ redis }) => {
    await redis.client.flushall()
  },
  'without its scripts': async ({ redis }) => {
    await redis.client.script('FLUSH')
  },
  'put back in time while running': async ({ redis }, snapshot) => {
    // A master that became a replica of one from the past and is a master again: no restart, and it has run scripts.
    const past = await startRedis(['--repl-diskless-sync-delay', '0'])
    await past.restart(snapshot)
    await redis.client.replicaof('127.0.0.1', past.port)
    while (!/master_link_status:up/.test(await redis.client.info('replication'))) {
      await new Promise(resolve => setTimeout(resolve, 20))
    }
    await redis.client.replicaof('NO', 'ONE')
    await past.stop()
  }
}

for (const [name, lose] of Object.entries(losses)) {
  t.test(`Redis, ${name}: what was flushed stays, nothing doubles, counting goes on`, async t => {
    if (!stores) return didNotRun(t, needsRedis)
    const scene = await setUp(t)
    const { redis, app, people, id } = scene
    for (const person of people.slice(0, 3)) {
      t.equal((await like(app, person, id)).statusCode, 200)
      t.equal((await comment(app, person, id)).statusCode, 200)
    }
    await flushed(app)
    const snapshot = await redis.snapshot()
    for (const person of people.slice(3, 6)) {
      await like(app, person, id)
      await comment(app, person, id)
    }
    await like(app, people[0]!, id, 'DELETE')
    await flushed(app)
    t.strictSame(await stored(app, id), { likes: 5, comments: 6, rows: 5 }, 'the control')
    await lose(scene, snapshot)
    // With a key: on a busy machine a comment may be counted and its answer lost.
    await insist(t, () => comment(app, people[6]!, id, 'insisted'))
    await insist(t, () => like(app, people[6]!, id))
    await insist(t, () => like(app, people[5]!, id))
    const video = (await app.inject(`/api/v1/videos/${id}`)).json<object>()
    await flushed(app)
    t.strictSame(
      await stored(app, id),
      { likes: 6, comments: 7, rows: 6 },
      'a repeated like is none, and the undone one stays undone'
    )
    t.match(video, { like_count: 6, comment_count: 7, counters: { stale: false } })
    t.match((await app.inject(`/api/v1/videos/${id}`)).json(), { like_count: 6, comment_count: 7 })
    t.ok(app.counters.store.stats.recoveries >= 1, 'the fence was noticed')
  })
}

t.test('a flush that hangs in PostgreSQL while Redis loses its memory neither brings back nor doubles anything', async t => {
  if (!stores) return didNotRun(t, needsRedis)
  const { redis, app, people, id } = await setUp(t)
  const keyed = (key: string) =>
    app.inject({
      method: 'POST',
      url: `/api/v1/videos/${id}/engagement/comments`,
      headers: { ...people[0]!.authorization, 'idempotency-key': key }
    })
  await like(app, people[7]!, id)
  await flushed(app)
  const { connectionString } = app.pg.pool.options as { connectionString: string }
  const holder = new pg.Client({ connectionString })
  await holder.connect()
  await holder.query('begin')
  await holder.query('select from videos where id = $1 for update', [id])
  for (const person of people.slice(0, 3)) t.equal((await like(app, person, id)).statusCode, 200)
  t.equal((await keyed('a')).statusCode, 200)
  const hanging = flushed(app).catch(() => {})
  await new Promise(resolve => setTimeout(resolve, 150))
  await redis.client.flushall()
  const late = like(app, people[3]!, id)
  await new Promise(resolve => setTimeout(resolve, 400))
  await holder.query('commit')
  await holder.end()
  await hanging
  await late
  await insist(t, () => like(app, people[3]!, id))
  await insist(t, () => like(app, people[0]!, id, 'DELETE'))
  await insist(t, async () => {
    const answer = await keyed('a')
    // Flushed, but without its answer: for a moment it could still be under way.
    return answer.statusCode === 409 ? { statusCode: 503, body: '' } : answer
  })
  await flushed(app)
  const video = (await app.inject(`/api/v1/videos/${id}/engagement`)).json<
    { like_count: number, comment_count: number }
  >()
  t.strictSame(await stored(app, id), {
    likes: video.like_count,
    comments: video.comment_count,
    rows: video.like_count
  }, 'the store and the ledger agree')
  t.ok(video.comment_count <= 1, 'not twice')
  t.strictSame(
    (await app.pg.query('select from video_likes where video_id = $1 and user_id = $2 and liked', [
      id,
      people[0]!.user.id
    ])).rows,
    [],
    'what was taken back stays so'
  )
})

t.test('counts of several processes, each finding the loss for itself, go on in one new generation', async t => {
  if (!stores) return didNotRun(t, needsRedis)
  const { redis, app, people, id } = await setUp(t)
  const { connectionString } = app.pg.pool.options as { connectionString: string }
  const others = await Promise.all(
    [1, 2].map(() => createApp(t, { stores, redisUrl: redis.url, databaseUrl: connectionString, counterTimes: times }))
  )
  const apps = [app, ...others]
  for (let round = 1; round <= 3; round++) {
    await Promise.all(apps.flatMap(one => people.slice(0, 4).map(person => insist(t, () => comment(one, person, id)))))
    await flushed(app)
    t.equal((await stored(app, id)).comments, round * 12)
    await redis.client.flushall()
  }
  const generations = await app.pg.query('select count(distinct generation)::int as count from video_counters')
  t.match(generations.rows, [{ count: 1 }])
})

t.test('a Redis that refuses writes, or is another one than it was, answers engagement_unavailable and loses nothing', async t => {
  if (!stores) return didNotRun(t, needsRedis)
  const { redis, app, people, id } = await setUp(t)
  await like(app, people[0]!, id)
  await comment(app, people[0]!, id)
  await flushed(app)

  await redis.client.config('SET', 'maxmemory', '1')
  for (const send of [like, comment]) {
    hasProblem(t, await send(app, people[1]!, id), 'engagement_unavailable', {}, 'out of memory')
  }
  t.match((await app.inject(`/api/v1/videos/${id}`)).json(), {
    like_count: 1,
    comment_count: 1,
    counters: { stale: false }
  }, 'reads go on')
  await redis.client.config('SET', 'maxmemory', '0')
  t.equal((await like(app, people[1]!, id)).statusCode, 200)

  await redis.client.config('SET', 'min-replicas-to-write', '1')
  hasProblem(t, await like(app, people[2]!, id), 'engagement_unavailable', {}, 'too few replicas')
  await redis.client.config('SET', 'min-replicas-to-write', '0')

  await flushed(app)
  const master = await startRedis()
  t.teardown(() => master.stop())
  await redis.client.replicaof('127.0.0.1', master.port)
  hasProblem(t, await comment(app, people[3]!, id), 'engagement_unavailable', {}, 'read only')
  await redis.client.replicaof('NO', 'ONE')
  await insist(t, () => comment(app, people[3]!, id, 'insisted'))
  await flushed(app)
  t.strictSame(await stored(app, id), { likes: 2, comments: 2, rows: 2 })
})

t.test('a node of a cluster, taken for a single Redis, answers engagement_unavailable and reads go on', async t => {
  if (!stores) return didNotRun(t, needsRedis)
  const redis = await startRedis(['--cluster-enabled', 'yes'])
  t.teardown(() => redis.stop())
  await redis.client.cluster('ADDSLOTSRANGE', 0, 0)
  const app = await createApp(t, { stores, redisUrl: redis.url })
  const owner = await signUp(app)
  const id = await addVideo(app, owner.user.id)
  hasProblem(t, await like(app, owner, id), 'engagement_unavailable')
  t.match((await app.inject(`/api/v1/videos/${id}`)).json(), { live_viewers: null, counters: { stale: true } })
})

t.test('while PostgreSQL is unavailable the lag grows, is complained of, and stale counts say how old they are', async t => {
  if (!stores) return didNotRun(t, needsRedis)
  const { redis, app, people, id } = await setUp(t)
  await like(app, people[0]!, id)
  await flushed(app)
  const flushedAt = Date.now()
  const { merge } = app.counters.ledger
  app.counters.ledger.merge = async () => {
    throw new Error('gone')
  }
  await like(app, people[1]!, id)
  const complaint = () => logLines.some(line => line.includes('counters cannot be flushed to PostgreSQL'))
  for (let tries = 0; tries < 80 && !complaint(); tries++) await new Promise(resolve => setTimeout(resolve, 100))
  t.ok(complaint(), 'complained of')
  t.ok(app.counters.flusher.stats.lagMs > 4000, `${app.counters.flusher.stats.lagMs} ms`)
  await redis.kill()
  const video = (await app.inject(`/api/v1/videos/${id}/engagement`)).json<
    { like_count: number, counters: { stale: boolean, as_of: string } }
  >()
  t.match(video, { like_count: 1, counters: { stale: true } })
  t.ok(Date.parse(video.counters.as_of) < flushedAt + 1500, 'as of the last flush')
  app.counters.ledger.merge = merge
})

t.test('likes go on while PostgreSQL is unavailable, are refused when too many wait, and all arrive', async t => {
  if (!stores) return didNotRun(t, needsRedis)
  const { app, people, id } = await setUp(t)
  await like(app, people[0]!, id)
  await flushed(app)
  const { merge } = app.counters.ledger
  app.counters.ledger.merge = async () => {
    throw new Error('gone')
  }
  for (const person of people) t.equal((await like(app, person, id)).statusCode, 200)
  for (let n = 0; n < 20; n++) t.equal((await comment(app, people[1]!, id)).statusCode, 200)
  await t.rejects(flushed(app))
  t.match(await stored(app, id), { likes: 1, comments: 0 })
  app.counters.ledger.merge = merge
  await flushed(app)
  t.strictSame(await stored(app, id), { likes: 8, comments: 20, rows: 8 })
})

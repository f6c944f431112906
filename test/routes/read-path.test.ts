import t from 'tap'
import { addVideo, createApp, createDatabase, signUp, type App, runSql } from '../helpers/app.ts'
import { createFaultyProxy } from '../helpers/faulty-proxy.ts'
import { hasProblem } from '../helpers/problem.ts'
import { anyStores, availableStores, didNotRun, needsRedis, onEachStore } from '../helpers/stores.ts'

/** Counts the statements of the lists and single reads. */
function countReads (app: App): () => number {
  let reads = 0
  const { query } = app.database
  app.database.query = (statement, values) => {
    if (/^list_videos|^videos?_by_id/.test(statement.name)) reads++
    return query(statement, values)
  }
  return () => reads
}

onEachStore(
  t,
  'hot reads, with a token or without, cost no statement; a thousand at once cost one',
  async (t, stores) => {
    const app = await createApp(t, { stores })
    const { user, authorization } = await signUp(app)
    const id = await addVideo(app, user.id)
    const reads = countReads(app)
    for (const url of [`/api/v1/videos/${id}`, '/api/v1/videos?limit=50', `/api/v1/users/${user.id}/videos`]) {
      const before = reads()
      const answers = await Promise.all(
        Array.from({ length: 300 }, (_, n) => app.inject({ url, headers: n % 2 ? authorization : {} }))
      )
      t.ok(answers.every(answer => answer.statusCode === 200 && answer.body === answers[0]!.body))
      t.equal(reads() - before, 1, url)
      t.strictSame([answers[0]!.headers['cache-control'], answers[1]!.headers['cache-control']], [
        'public, max-age=1, stale-while-revalidate=5',
        'private, max-age=1'
      ])
      t.equal(answers[0]!.headers['vary'], 'Authorization, Accept-Encoding')
    }
  }
)

onEachStore(
  t,
  'cold reads of many videos at once cost one statement, and each gets its own answer',
  async (t, stores) => {
    const app = await createApp(t, { stores })
    const { user } = await signUp(app)
    const ids: number[] = []
    for (let n = 0; n < 30; n++) {
      ids.push(
        await addVideo(app, user.id, { title: `video ${n}`, is_adult_content: n === 7 })
      )
    }
    const reads = countReads(app)
    const answers = await Promise.all([...ids, 999_999].map(id => app.inject(`/api/v1/videos/${id}`)))
    t.equal(reads(), 1)
    hasProblem(t, answers[30]!, 'not_found', { message: 'There is no video 999999' })
    hasProblem(t, answers[7]!, 'adult_content_restricted')
    for (const [n, id] of ids.entries()) {
      if (n !== 7) t.match(answers[n]!.json(), { id, title: `video ${n}` })
    }
  }
)

onEachStore(t, 'a 304 is for who has these bytes, and has no body and no type', async (t, stores) => {
  const app = await createApp(t, { stores })
  const { user } = await signUp(app)
  const id = await addVideo(app, user.id)
  const url = `/api/v1/videos/${id}`
  const { headers: { etag } } = await app.inject(url)
  t.match(etag, /^"[0-9a-z]+\.[\w-]{27}"$/)
  const ask = (condition: string) => app.inject({ url, headers: { 'if-none-match': condition } })
  for (const condition of [etag!, `W/${etag!}`, `"x", ${etag!}`, '*', ` ${etag!} `]) {
    const answer = await ask(condition)
    t.equal(answer.statusCode, 304, condition)
    t.equal(answer.body, '')
    t.match(answer.headers, { etag, 'cache-control': /^public/, vary: /Authorization/ })
    t.notOk('content-type' in answer.headers)
  }
  for (const condition of ['"x"', 'x', '', etag!.slice(0, -2), `${etag!}x`, '"*"', '%00', '"'.repeat(1000)]) {
    t.equal((await ask(condition)).statusCode, 200, condition.slice(0, 20))
  }
  await app.pg.query("update videos set title = 'new' where id = $1", [id])
  await new Promise(resolve => setTimeout(resolve, 1000))
  const changed = await ask(etag!)
  t.equal(changed.statusCode, 200)
  t.match(changed.json(), { title: 'new' }, 'everybody sees a change within a second')
})

onEachStore(t, 'who has written sees it at once, in every list', async (t, stores) => {
  const app = await createApp(t, { stores })
  const owner = await signUp(app)
  const send = (method: 'POST' | 'PATCH' | 'DELETE', path: string, payload?: object) =>
    app.inject({ method, url: `/api/v1/videos${path}`, headers: owner.authorization, ...payload ? { payload } : {} })
  const read = async (url: string) =>
    (await app.inject({ url: `/api/v1${url}`, headers: owner.authorization })).json<unknown>()
  const lists = ['/videos', '/videos?live=false', `/users/${owner.user.id}/videos`]
  for (const url of lists) t.strictSame(await read(url), [])
  const { id } = (await send('POST', '', { title: 'one' })).json<{ id: number }>()
  for (const url of lists) t.match(await read(url), [{ id, title: 'one' }], url)
  await send('PATCH', `/${id}`, { title: 'two' })
  for (const url of lists) t.match(await read(url), [{ title: 'two' }], url)
  t.match(await read(`/videos/${id}`), { title: 'two' })
  await send('POST', `/${id}/engagement/likes`)
  for (const url of lists) t.match(await read(url), [{ like_count: 1 }], url)
  t.match(await read(`/videos/${id}`), { like_count: 1 })
  await send('DELETE', `/${id}`)
  for (const url of lists) t.strictSame(await read(url), [], url)
  hasProblem(
    t,
    await app.inject(`/api/v1/videos/${id}`),
    'not_found',
    { message: /./ },
    'and everybody sees what is gone'
  )
})

t.test('who has written sees it at once at every process, everybody else within a second', async t => {
  const stores = availableStores().find(({ redisUrl }) => redisUrl !== null)
  if (!stores) return didNotRun(t, needsRedis)
  const databaseUrl = await createDatabase(t, stores)
  // Redis tells its channels to every database of it: the writers of other files that run now must not be these.
  await runSql(databaseUrl, "select setval('users_id_seq', $1)", [1_000_000 + process.pid])
  const [here, there] = await Promise.all(
    [0, 1].map(() => createApp(t, { stores, databaseUrl, redisUrl: stores.redisUrl }))
  )
  const owner = await signUp(here!)
  const other = await signUp(here!)
  const id = await addVideo(here!, owner.user.id, { title: 'one' })
  const title = async (headers: Record<string, string>) =>
    (await there!.inject({ url: `/api/v1/videos/${id}`, headers })).json<{ title: string }>().title
  // The process that listens has subscribed when its connection stood.
  await new Promise(resolve => setTimeout(resolve, 200))
  for (const word of ['two', 'three', 'four']) {
    t.type(await title({}), 'string', 'it stands in the cache')
    const before = await title(other.authorization)
    const { statusCode } = await here!.inject({
      method: 'PATCH',
      url: `/api/v1/videos/${id}`,
      headers: owner.authorization,
      payload: { title: word }
    })
    t.equal(statusCode, 200)
    await new Promise(resolve => setTimeout(resolve, 25))
    t.equal(await title(other.authorization), before, 'the control: another reads what stands in the cache')
    t.equal(await title(owner.authorization), word, 'the writer does not')
    await new Promise(resolve => setTimeout(resolve, 1000))
    t.equal(await title({}), word)
  }
  there!.recentWriters.hear(Number('not a number'))
  t.notOk(there!.recentWriters.has(other.user.id))
})

t.test('while PostgreSQL is unavailable, what was read goes on being served and says so', async t => {
  const stores = anyStores()
  const databaseUrl = await createDatabase(t, stores)
  const proxy = await createFaultyProxy(t, databaseUrl, 5432)
  const app = await createApp(t, { stores, databaseUrl: proxy.url })
  const { user } = await signUp(app)
  const id = await addVideo(app, user.id, { title: 'known' })
  const other = await addVideo(app, user.id)
  const urls = [`/api/v1/videos/${id}`, '/api/v1/videos']
  for (const url of urls) t.notOk((await app.inject(url)).headers['cache-status'])
  await proxy.refuse()
  await new Promise(resolve => setTimeout(resolve, 2100))
  for (const url of urls) {
    const answer = await app.inject(url)
    t.equal(answer.statusCode, 200, url)
    t.match(answer.body, /known/)
    t.match(answer.headers, { 'cache-status': 'halo; hit; detail=stale', age: /^[1-9]/ })
  }
  hasProblem(
    t,
    await app.inject(`/api/v1/videos/${other}`),
    'service_unavailable',
    {},
    'what was not read is not known'
  )
  await proxy.forward()
  await new Promise(resolve => setTimeout(resolve, 600))
  for (const url of urls) {
    await app.inject(url)
    await new Promise(resolve => setTimeout(resolve, 300))
    t.notOk((await app.inject(url)).headers['cache-status'], `${url} is fresh again`)
  }
})

onEachStore(t, 'viewers who send heartbeats keep reading from the response cache', async (t, stores) => {
  const app = await createApp(t, { stores })
  const { user, authorization } = await signUp(app)
  const id = await addVideo(app, user.id)
  const reads = countReads(app)
  const beat = (method: 'POST' | 'DELETE') =>
    app.inject({ method, url: `/api/v1/videos/${id}/engagement/live_viewers`, headers: authorization })
  for (const method of ['POST', 'DELETE'] as const) {
    t.equal((await beat(method)).statusCode, 200)
    t.notOk(app.recentWriters.has(user.id), method)
  }
  const url = `/api/v1/videos/${id}`
  for (let n = 0; n < 20; n++) await app.inject({ url, headers: authorization })
  t.ok(reads() <= 2, `${reads()} statements`)
  await app.inject({ method: 'POST', url: `/api/v1/videos/${id}/engagement/likes`, headers: authorization })
  t.ok(app.recentWriters.has(user.id), 'the control: a like is a write')
})

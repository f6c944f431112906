import { EventEmitter, once } from 'node:events'
import type { AddressInfo } from 'node:net'
import { connect } from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'
import pg from 'pg'
import t from 'tap'
import { addVideo, createApp, logLines, runSql, signUp, type App } from './helpers/app.ts'
import { hasProblem } from './helpers/problem.ts'
import { anyStores, onEachStore } from './helpers/stores.ts'
import { until } from './helpers/until.ts'
import { createDatabase } from '../services/stores/database.ts'
import { createBoundedQueue } from '../services/traffic/bounded-queue.ts'

async function listen (app: App) {
  await app.listen({ port: 0, host: '127.0.0.1' })
  const { port } = app.server.address() as AddressInfo
  return (path: string, init: RequestInit = {}) => fetch(`http://127.0.0.1:${port}${path}`, init)
}

const problemOf = async (answer: Response) => ({
  statusCode: answer.status,
  headers: Object.fromEntries(answer.headers),
  body: await answer.clone().text(),
  json: () => ({})
})

onEachStore(
  t,
  'an overloaded process answers probes, metrics and cached responses, refuses everything else, and recovers',
  async (t, stores) => {
    const app = await createApp(t, { stores })
    const request = await listen(app)
    const { user, authorization } = await signUp(app)
    const id = await addVideo(app, user.id)
    t.equal((await request(`/api/v1/videos/${id}`)).status, 200)
    t.equal(
      (await request(`/api/v1/videos/${id}/engagement/likes`, { method: 'POST', headers: authorization })).status,
      200
    )
    await until('nothing is in flight', () => app.requests.inFlight === 0)

    // 4,097 requests that do not end: they are counted, and none of them is answered.
    const waiting = Array.from({ length: 4097 }, () => new EventEmitter())
    for (const response of waiting) {
      app.requests.begin(
        { method: 'GET', routeOptions: {}, raw: { headers: {}, socket: {}, url: '/' } } as never,
        { raw: response } as never
      )
    }
    t.equal((await request(`/api/v1/videos/${id}`)).status, 200, 'from the cache')
    for (const path of ['/livez', '/readyz?verbose', '/startupz', '/health', '/metrics']) {
      t.equal(
        (await request(path)).status,
        200,
        path
      )
    }
    t.match(await (await request('/metrics')).text(), /halo_requests_in_flight 409[78]\n/)
    for (
      const [method, path] of [
        ['GET', `/api/v1/videos/${id}/engagement`],
        ['GET', `/api/v1/videos?limit=${id}`],
        ['POST', `/api/v1/videos/${id}/engagement/likes`],
        ['POST', '/api/v1/auth/login'],
        ['GET', '/nothing'],
        ['GET', `/api/v1/videos/${id + 1}`],
        ['OPTIONS', '/api/v1/videos'],
        ['GET', '/livez/more']
      ] as const
    ) {
      const answer = await request(path, { method, headers: { ...authorization, origin: 'https://app.example' } })
      hasProblem(t, await problemOf(answer), 'server_busy', {}, `${method} ${path}`)
      t.match(Object.fromEntries(answer.headers), {
        'retry-after': '1',
        'access-control-allow-origin': '*',
        ratelimit: /^"address"/,
        'x-request-id': /./,
        'x-content-type-options': 'nosniff'
      })
    }
    t.match(await (await request('/metrics')).text(), /halo_requests_shed_total 8\n/)
    await sleep(1000)
    const old = await request(`/api/v1/videos/${id}`)
    t.equal(old.status, 200, 'an old answer is better than none')
    t.match(Object.fromEntries(old.headers), { 'cache-status': /stale/, age: /^[12]$/ })
    t.equal(logLines.filter(line => line.includes('load shedding: ')).length, 1, 'one summary in five seconds')
    for (const response of waiting) response.emit('close')
    logLines.splice(0)
    t.equal(
      (await request(`/api/v1/videos/${id}/engagement/likes`, { method: 'POST', headers: authorization })).status,
      200
    )
  }
)

t.test('a stream of events is no request under way', async t => {
  const app = await createApp(t, { stores: anyStores() })
  const request = await listen(app)
  const { user } = await signUp(app)
  const id = await addVideo(app, user.id)
  const abort = new AbortController()
  const stream = await request(`/api/v1/videos/${id}/engagement/stream`, { signal: abort.signal })
  t.equal(stream.status, 200)
  t.equal(app.requests.inFlight, 0)
  abort.abort()
  await sleep(50)
  t.equal(app.requests.inFlight, 0, 'nor is one that has ended')
})

t.test('a client that leaves stops its statement, unless another one waits for the same', async t => {
  const app = await createApp(t, { stores: anyStores() })
  await listen(app)
  const { port } = app.server.address() as AddressInfo
  const { user } = await signUp(app)
  await addVideo(app, user.id)
  // Whoever reads videos now waits for this.
  const blocker = new pg.Client({ connectionString: app.pg.pool.options.connectionString })
  await blocker.connect()
  t.teardown(() => blocker.end())
  const running = async () =>
    (await runSql(
      app.pg.pool.options.connectionString!,
      "select pid from pg_stat_activity where wait_event_type = 'Lock' and application_name = 'halo-api' and datname = current_database()"
    )).length
  const isRunning = async (count: number, name: string) => {
    const deadline = performance.now() + 400
    let seen = await running()
    while (seen !== count && performance.now() < deadline) {
      await sleep(5)
      seen = await running()
    }
    t.equal(seen, count, name)
  }
  const ask = (path: string) => {
    const socket = connect(port, '127.0.0.1')
    socket.write(`GET ${path} HTTP/1.1\r\nHost: x\r\n\r\n`)
    socket.on('error', () => {})
    return socket
  }
  await blocker.query('begin; lock table videos in access exclusive mode')
  const one = ask('/api/v1/videos?limit=3')
  await isRunning(1, 'it waits for the table')
  one.destroy()
  await isRunning(0, 'and is stopped when nobody waits for it')

  const [two, three] = [ask('/api/v1/videos?limit=4'), ask('/api/v1/videos?limit=4')]
  await isRunning(1, 'two wait for one statement')
  two.destroy()
  await sleep(50)
  t.equal(await running(), 1, 'which goes on while one of them waits')
  const answered = once(three, 'data')
  await blocker.query('commit')
  t.match(String((await answered)[0]), /^HTTP\/1\.1 200 /)
  three.destroy()
  t.notOk(
    logLines.some(line => line.includes('"level":40') && line.includes('The client has left')),
    'nothing that an operator should hear of'
  )
  t.equal(logLines.filter(line => line.includes('request aborted by the client') && line.includes('limit=3')).length, 1)
})

onEachStore(
  t,
  'nobody begins what nobody waits for, and a stopped statement leaves its connection as it was',
  async (t, stores) => {
    const pool = new pg.Pool({ connectionString: stores.adminUrl, max: 1 })
    const control = new pg.Pool({ connectionString: stores.adminUrl, max: 1 })
    t.teardown(() => Promise.all([pool.end(), control.end()]))
    const database = createDatabase({
      pool,
      control,
      queue: createBoundedQueue({ concurrency: 1, maxWaiting: 10, maxWaitMs: 20_000, usualMs: 0 })
    })
    const sleeping = { name: 'sleep', text: 'select pg_sleep($1)' }
    const pid = { name: 'pid', text: 'select pg_backend_pid() as pid' }
    const [before] = await database.query<{ pid: number }>(pid)
    const controller = new AbortController()
    const startedAt = performance.now()
    const stopped = database.query(sleeping, [30], controller.signal)
    const waiting = new AbortController()
    const never = database.query({ name: 'never', text: 'select 1 / 0' }, [], waiting.signal)
    const next = database.query<{ pid: number }>(pid)
    setTimeout(() => {
      waiting.abort()
      controller.abort()
    }, 50)
    await t.rejects(stopped, { code: 'service_unavailable' })
    await t.rejects(
      never,
      { code: 'service_unavailable', message: /The client has left/ },
      'who left while waiting for a connection'
    )
    t.strictSame(await next, [before], 'the same connection')
    t.ok(performance.now() - startedAt < 10_000)
    await t.rejects(database.query(sleeping, [30], controller.signal), /The client has left/, 'who had left before')
    const kept = new AbortController()
    t.strictSame(await database.query(sleeping, [0.01], kept.signal), [{ pg_sleep: '' }])
    kept.abort()
    t.strictSame(await database.query<{ pid: number }>(pid), [before], 'who leaves later stops nothing')
  }
)

onEachStore(
  t,
  'a process that is ready has its connections: the first requests do not all open one',
  async (t, stores) => {
    const app = await createApp(t, { stores })
    await app.ready()
    const { min } = app.config.databasePool
    t.ok(min > 0)
    t.ok(app.pg.pool.totalCount >= min, `${app.pg.pool.totalCount}`)
  }
)

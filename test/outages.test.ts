import t, { type Test } from 'tap'
import { addVideo, createApp, createDatabase, randomUser, signUp, type App } from './helpers/app.ts'
import { createFaultyProxy, type FaultyProxy } from './helpers/faulty-proxy.ts'
import { hasProblem } from './helpers/problem.ts'
import { availableStores, type Stores } from './helpers/stores.ts'

/**
 * PostgreSQL and Redis refused, silent and slow, at boot and later: an answer within a second, and recovery
 * without a restart. The faults are made by a proxy in front of the real server.
 */

const faults: Record<string, (proxy: FaultyProxy) => void | Promise<void>> = {
  refused: proxy => proxy.refuse(),
  silent: proxy => {
    proxy.silence()
  },
  slow: proxy => {
    proxy.slow(3000)
  }
}

/** The contract's second, and what a noisy machine may add to its timers. */
const boundMs = 1000 + 300

/** Milliseconds for a write without Redis: shorter, because a heartbeat is repeated soon anyway. */
const engagementBoundMs = 250 + 150

async function timed<T> (t: Test, name: string, work: Promise<T>, bound = boundMs): Promise<T> {
  const startedAt = performance.now()
  const result = await work
  const ms = performance.now() - startedAt
  t.ok(ms < bound, `${name} was answered in ${ms.toFixed(0)} ms`)
  return result
}

async function recovers (t: Test, app: App, url: string): Promise<void> {
  const deadline = performance.now() + 5000
  let status = 0
  while (status !== 200 && performance.now() < deadline) {
    await new Promise(resolve => setTimeout(resolve, 100))
    status = (await app.inject(url)).statusCode
  }
  t.equal(status, 200, `${url} recovered without a restart`)
}

for (const stores of availableStores()) {
  for (const [fault, strike] of Object.entries(faults)) {
    t.test(`PostgreSQL ${fault}, later [${stores.name}]: every route answers within a second, and recovers`, async t => {
      const databaseUrl = await createDatabase(t, stores)
      const proxy = await createFaultyProxy(t, databaseUrl, 5432)
      const app = await createApp(t, { stores, databaseUrl: proxy.url })
      const person = randomUser()
      const { user, authorization } = await signUp(app, person)
      const id = await addVideo(app, user.id)
      await strike(proxy)
      await everyRouteIsUnavailable(t, app, { id, userId: user.id, authorization, person })
      t.match((await timed(t, 'health', app.inject('/health'))).json(), { status: 'unhealthy', database: false })
      t.equal((await app.inject('/health')).statusCode, 503)
      t.equal((await timed(t, 'readiness', app.inject('/readyz'))).statusCode, 503)
      t.equal((await app.inject('/livez')).statusCode, 200)
      await proxy.forward()
      await recovers(t, app, '/health')
      await recovers(t, app, `/api/v1/videos/${id}`)
      t.equal((await app.inject({ url: '/api/v1/auth/me', headers: authorization })).statusCode, 200)
    })
  }

  t.test(`PostgreSQL refused, at boot [${stores.name}]: the service answers 503, and takes it up when it comes`, async t => {
    const databaseUrl = await createDatabase(t, stores)
    const proxy = await createFaultyProxy(t, databaseUrl, 5432)
    await proxy.refuse()
    const app = await timed(t, 'the boot', createApp(t, { stores, databaseUrl: proxy.url }))
    hasProblem(t, await timed(t, 'a list', app.inject('/api/v1/videos')), 'service_unavailable')
    t.equal((await app.inject('/startupz')).statusCode, 503)
    await proxy.forward()
    await recovers(t, app, '/startupz')
    t.equal((await app.inject('/api/v1/videos')).statusCode, 200)
  })
}

async function everyRouteIsUnavailable (
  t: Test,
  app: App,
  { id, userId, authorization, person }: {
    id: number
    userId: number
    authorization: Record<string, string>
    person: Record<string, unknown>
  }
): Promise<void> {
  const requests = {
    'a list': { url: '/api/v1/videos' },
    'a video': { url: `/api/v1/videos/${id}` },
    'videos of a user': { url: `/api/v1/users/${userId}/videos` },
    profile: { url: '/api/v1/auth/me', headers: authorization },
    login: { method: 'POST' as const, url: '/api/v1/auth/login', payload: person },
    register: { method: 'POST' as const, url: '/api/v1/auth/register', payload: randomUser() },
    'a like': { method: 'POST' as const, url: `/api/v1/videos/${id}/engagement/likes`, headers: authorization }
  }
  // All at once, so that they meet in the pool.
  await Promise.all(
    Object.entries(requests).map(async ([name, request]) => {
      hasProblem(t, await timed(t, name, app.inject(request)), 'service_unavailable', {}, name)
    })
  )
}

const servers = availableStores().find((stores): stores is Stores & { redisUrl: string } => stores.redisUrl !== null)
if (servers) {
  for (const [fault, strike] of Object.entries(faults)) {
    t.test(`Redis ${fault}, later: reads go on without counts, writes answer 503, and both recover`, async t => {
      const proxy = await createFaultyProxy(t, servers.redisUrl, 6379)
      const app = await createApp(t, { stores: servers, redisUrl: proxy.url })
      const { user, authorization } = await signUp(app)
      const id = await addVideo(app, user.id, { view_count: 5 })
      const like = () =>
        app.inject({ method: 'POST', url: `/api/v1/videos/${id}/engagement/likes`, headers: authorization })
      t.equal((await like()).statusCode, 200)
      await strike(proxy)
      await redisIsAway(t, app, id, like)
      await proxy.forward()
      await recovers(t, app, '/health')
      t.equal((await like()).statusCode, 200)
    })

    t.test(`Redis ${fault}, at boot: the service comes up without it, and takes it up when it comes`, async t => {
      const proxy = await createFaultyProxy(t, servers.redisUrl, 6379)
      await strike(proxy)
      // A silent Redis costs the boot its connect timeout, the rest is ours.
      const app = await createApp(t, { stores: servers, redisUrl: proxy.url })
      const { user, authorization } = await signUp(app)
      const id = await addVideo(app, user.id, { view_count: 5 })
      const like = () =>
        app.inject({ method: 'POST', url: `/api/v1/videos/${id}/engagement/likes`, headers: authorization })
      await redisIsAway(t, app, id, like)
      await proxy.forward()
      await recovers(t, app, '/health')
      // The first generation of the counters begins: on a slow machine that takes longer than a like waits.
      let status = 0
      for (let tries = 0; status !== 200 && tries < 30; tries++) status = (await like()).statusCode
      t.equal(status, 200)
    })
  }
}

async function redisIsAway (
  t: Test,
  app: App,
  id: number,
  like: () => Promise<{ statusCode: number, headers: Record<string, unknown>, json: () => unknown, body: string }>
): Promise<void> {
  const video = await timed(t, 'a video', app.inject(`/api/v1/videos/${id}`))
  t.equal(video.statusCode, 200)
  t.match(video.json(), { live_viewers: null, view_count: 5, counters: { stale: true } }, 'unknown is not zero')
  t.equal((await timed(t, 'a list', app.inject('/api/v1/videos'))).statusCode, 200)
  hasProblem(t, await timed(t, 'a like', like(), engagementBoundMs), 'engagement_unavailable')
  const health = await timed(t, 'health', app.inject('/health'))
  t.equal(health.statusCode, 503)
  t.match(health.json(), { status: 'unhealthy', database: true, redis: false })
  t.match(
    (await app.inject('/readyz')).json(),
    { status: 'ready', redis: false },
    'other processes have no Redis either'
  )
}

import { once } from 'node:events'
import http from 'node:http'
import type { AddressInfo } from 'node:net'
import { gunzipSync } from 'node:zlib'
import t from 'tap'
import { addVideo, createApp, logLines, signUp, type App } from '../helpers/app.ts'
import { onEachStore } from '../helpers/stores.ts'

interface Answer { status: number, headers: http.IncomingHttpHeaders, body: Buffer }

/** Requests by the address that a proxy has told of. */
const sent = new Map<string, number>()

async function get (app: App, path: string, headers: Record<string, string> = {}, method = 'GET'): Promise<Answer> {
  const client = headers['x-forwarded-for']?.split(',')[0]
  if (client !== undefined) sent.set(client, (sent.get(client) ?? 0) + 1)
  const { port } = app.server.address() as AddressInfo
  const request = http.request({ port, path, headers, method, agent: false }).end()
  const [response] = await once(request, 'response') as [http.IncomingMessage]
  const chunks: Buffer[] = []
  for await (const chunk of response) chunks.push(chunk as Buffer)
  return { status: response.statusCode!, headers: response.headers, body: Buffer.concat(chunks) }
}

/** What may differ between two answers that are the same. */
function comparable ({ status, headers, body }: Answer) {
  const { date, 'x-request-id': requestId, ratelimit, 'x-ratelimit-remaining': remaining, 'x-ratelimit-reset': reset, ...rest } = headers
  const limit = { ratelimit: /^"address";r=\d+;t=\d+$/.test(String(ratelimit)), remaining: /^\d+$/.test(String(remaining)), reset: /^\d+$/.test(String(reset)) }
  return { status, headers: rest, limit, body: body.toString('latin1') }
}

/** Runs something while every request goes the usual way. */
async function theUsualWay<T> (app: App, run: () => Promise<T>): Promise<T> {
  const { fromMemory, shortcuts } = app.hotPath
  const before = [fromMemory.splice(0), shortcuts.splice(0)] as const
  try {
    return await run()
  } finally {
    fromMemory.push(...before[0])
    shortcuts.push(...before[1])
  }
}

/** As `comparable`, without the times that two reads tell and what follows from them. */
function withoutTimes (answer: Answer) {
  const { status, limit, headers: { etag, 'content-length': length, ...headers }, body } = comparable(answer)
  const text = headers['content-encoding'] === 'gzip' ? gunzipSync(answer.body).toString() : body
  return { status, limit, headers, hasTag: etag !== undefined, hasLength: length !== undefined, body: text.replace(/"(as_of|request_id)":"[^"]*"/g, '"$1":""') }
}

/** Counts the requests that go the usual way: that one asks who calls. */
function countUsual (app: App): { count: number } {
  const usual = { count: 0 }
  const { callerOf } = app
  const { read } = app.bearers
  let isCaller = false
  app.callerOf = request => {
    usual.count++
    isCaller = true
    try {
      return callerOf(request)
    } finally {
      isCaller = false
    }
  }
  app.bearers.read = authorization => {
    if (!isCaller) usual.count++
    return read(authorization)
  }
  return usual
}

/** Does something until so many requests of it went the usual way; four times at the most. */
async function untilCounted<T> (usual: { count: number }, wanted: number, run: () => Promise<T>): Promise<T> {
  for (let tries = 1; ; tries++) {
    usual.count = 0
    const result = await run()
    if (usual.count === wanted || tries === 4) return result
  }
}

async function listening (t: Parameters<typeof createApp>[0], stores: Parameters<typeof createApp>[1]['stores'], env: Record<string, string> = {}) {
  const app = await createApp(t, { stores, env })
  await app.listen({ host: '127.0.0.1', port: 0 })
  const { user } = await signUp(app)
  const ids: number[] = []
  for (let n = 0; n < 12; n++) ids.push(await addVideo(app, user.id, { description: 'ü'.repeat(200) }))
  return { app, ids }
}

onEachStore(t, 'a hot read, answered before Fastify, is the same answer as the usual one', async (t, stores) => {
  const { app, ids } = await listening(t, stores, { CORS_ALLOWED_ORIGINS: 'https://app.example', TRUST_PROXY: '127.0.0.1', PUBLIC_URL: 'https://api.example' })
  const usual = countUsual(app)
  const { authorization: general } = await signUp(app)
  const { authorization: adult, user: { id: adultId } } = await signUp(app, { is_adult: true })
  await app.pg.query('update users set adult_mode = true where id = $1', [adultId])
  const loggedBefore = logLines.length
  sent.clear()
  const variants: Record<string, Record<string, string>> = {
    plain: {},
    'a page of an allowed origin': { origin: 'https://app.example' },
    'a page of another origin': { origin: 'https://evil.example' },
    'one who takes gzip': { 'accept-encoding': 'br, gzip' },
    'one who does not': { 'accept-encoding': 'gzip;q=0, deflate' },
    'one behind a proxy': { 'x-forwarded-for': '203.0.113.7' },
    'one behind two': { 'x-forwarded-for': '203.0.113.9, 127.0.0.1' },
    'one with a request id': { 'x-request-id': 'mine' },
    'one who knows it': { 'if-none-match': '*' },
    'one who knows another': { 'if-none-match': '"other", W/"another"' },
    'a bearer': general,
    'a bearer who knows it and takes gzip': { ...general, 'if-none-match': '*', 'accept-encoding': 'gzip' },
    'an adult': adult
  }
  // Tokens and what their bearers may see are known from here on.
  for (const headers of [general, adult]) await get(app, `/api/v1/videos/${ids[1]}`, headers)
  const long = await addVideo(app, adultId, { description: 'ü'.repeat(2000) })
  for (const path of [`/api/v1/videos/${ids[0]}`, `/api/v1/videos/${long}`, '/api/v1/videos?limit=10', '/api/v1/videos?limit=12&offset=0']) {
    for (const [name, headers] of Object.entries(variants)) {
      // What is remembered for less than a second may end between two requests: then once more.
      if (!path.includes('?')) {
        const loaded = await untilCounted(usual, 0, async () => {
          app.readCache.forget('')
          return await get(app, path, headers)
        })
        t.equal(usual.count, 0, `${path}, ${name}: loaded before Fastify`)
        app.readCache.forget('')
        t.strictSame(withoutTimes(loaded), withoutTimes(await theUsualWay(app, () => get(app, path, headers))), `${path}, ${name}, loaded`)
      }
      const [slow, fast] = await untilCounted(usual, 1, async () => {
        app.readCache.forget('')
        return [await theUsualWay(app, () => get(app, path, headers)), await get(app, path, headers)] as const
      })
      t.equal(usual.count, 1, `${path}, ${name}: the second was hot`)
      t.strictSame(comparable(fast), comparable(slow), `${path}, ${name}`)
      if (name === 'one with a request id') t.equal(fast.headers['x-request-id'], 'mine')
      if (name === 'one who knows it') t.strictSame([fast.status, fast.body.length], [304, 0])
      if (name === 'one who takes gzip' && path !== `/api/v1/videos/${ids[0]}`) t.equal(fast.headers['content-encoding'], 'gzip')
      if (name === 'one who takes gzip' && path.includes('limit')) {
        t.equal((JSON.parse(gunzipSync(fast.body).toString()) as unknown[]).length, path.includes('=10') ? 10 : 12)
        const again = await get(app, path, { ...headers, 'if-none-match': fast.headers.etag! })
        t.equal(again.status, 304, 'the tag of the compressed answer')
      }
    }
  }
  for (const ip of ['203.0.113.7', '203.0.113.9']) t.equal(logLines.slice(loggedBefore).filter(line => line.includes(`"ip":"${ip}"`) && line.includes('"msg":"request"')).length, sent.get(ip), `${ip}: each is logged once`)
})

t.test('what is not exactly a hot read goes the usual way', async t => {
  const { app, ids } = await listening(t, (await import('../helpers/stores.ts')).anyStores())
  const path = `/api/v1/videos/${ids[0]}`
  const { authorization } = await signUp(app)
  const usual = countUsual(app)
  t.equal((await get(app, path)).status, 200)
  t.equal((await get(app, path)).status, 200)
  t.equal(usual.count, 0, 'the control')
  t.match((await get(app, path, authorization)).headers, { 'cache-control': 'private, max-age=1' }, 'a token that is not known')
  t.equal(usual.count, 1)
  t.equal((await get(app, path, { authorization: 'Bearer of.nothing.good' })).status, 200)
  t.equal(usual.count, 2)
  t.equal((await get(app, path, {}, 'HEAD')).body.length, 0)
  t.equal(usual.count, 3)
  t.equal((await get(app, `${path}?_=1`)).status, 200)
  t.equal((await get(app, `${path}/`)).status, 200)
  t.equal((await get(app, path, {}, 'POST')).status, 405)
  t.equal(usual.count, 5)
})

t.test('a hot read takes its token from the same bucket, and is refused when that is empty', async t => {
  const { app, ids } = await listening(t, (await import('../helpers/stores.ts')).anyStores(), { RATE_LIMIT_RPS: '1', RATE_LIMIT_BURST: '10', TRUST_PROXY: '127.0.0.1' })
  const path = `/api/v1/videos/${ids[0]}`
  const statuses: number[] = []
  for (let n = 0; n < 14; n++) statuses.push((await get(app, path, { 'x-forwarded-for': '203.0.113.20' })).status)
  t.strictSame(statuses, [...Array<number>(10).fill(200), 429, 429, 429, 429])
  t.equal((await get(app, path, { 'x-forwarded-for': '203.0.113.21' })).status, 200, 'another has its own')
  t.match(JSON.parse((await get(app, path, { 'x-forwarded-for': '203.0.113.20' })).body.toString()), { error: 'rate_limit_exceeded' })
})

onEachStore(t, 'a hot write, answered before Fastify, is the same answer as the usual one', async (t, stores) => {
  const { app, ids } = await listening(t, stores, { CORS_ALLOWED_ORIGINS: 'https://app.example', TRUST_PROXY: '127.0.0.1' })
  const { authorization, user } = await signUp(app)
  const usual = countUsual(app)
  const { store } = app.counters

  const variants: Record<string, Record<string, string>> = {
    plain: {},
    'with a type and no body': { 'content-type': 'application/json', 'content-length': '0' },
    'a page of an allowed origin': { origin: 'https://app.example' },
    'one behind a proxy': { 'x-forwarded-for': '203.0.113.33' }
  }
  // The first is known to both ways; the counts of a video are brought back before the second.
  for (const [name, headers] of Object.entries(variants)) {
    for (const [method, metric, back] of [['POST', 'likes', 'DELETE'], ['DELETE', 'likes', undefined], ['POST', 'live_viewers', 'DELETE'], ['DELETE', 'live_viewers', undefined]] as const) {
      const path = `/api/v1/videos/${ids[0]}/engagement/${metric}`
      await get(app, path, { ...authorization }, back ?? method)
      usual.count = 0
      const slow = await theUsualWay(app, () => get(app, path, { ...authorization, ...headers }, method))
      t.equal(usual.count, 1)
      if (back) await get(app, path, authorization, back)
      const fast = await get(app, path, { ...authorization, ...headers }, method)
      t.equal(usual.count, 1, `${method} ${metric}, ${name}: the second was hot`)
      t.equal(fast.status, 200)
      t.strictSame(withoutTimes(fast), withoutTimes(slow), `${method} ${metric}, ${name}`)
    }
  }

  const comments = `/api/v1/videos/${ids[2]}/engagement/comments`
  usual.count = 0
  const counted = JSON.parse((await get(app, comments, authorization, 'POST')).body.toString()) as { data: { comment_count: number } }
  t.equal(counted.data.comment_count, 1)
  t.equal(usual.count, 0, 'a comment without a key was hot')
  for (const headers of [{ 'idempotency-key': 'a key' }, { 'content-length': '2', 'content-type': 'application/json' }]) {
    usual.count = 0
    const { port } = app.server.address() as AddressInfo
    const answer = await fetch(`http://127.0.0.1:${port}${comments}`, { method: 'POST', headers: { ...authorization, ...headers }, ...('content-length' in headers ? { body: '{}' } : {}) })
    t.equal(answer.status, 200)
    t.equal(usual.count, 1, `${JSON.stringify(headers)} goes the usual way`)
  }
  const numbers = JSON.parse((await get(app, `/api/v1/videos/${ids[2]}/engagement`, {})).body.toString()) as { comment_count: number }
  t.equal(numbers.comment_count, 3, 'each was counted once')

  const both = async (path: string, method: string, status: number) => {
    const slow = await theUsualWay(app, () => get(app, path, { ...authorization, 'x-request-id': 'one' }, method))
    usual.count = 0
    const fast = await get(app, path, { ...authorization, 'x-request-id': 'one' }, method)
    t.equal(usual.count, 0, `${path} was hot`)
    t.equal(fast.status, status)
    t.strictSame(withoutTimes(fast), withoutTimes(slow), path)
  }
  await both('/api/v1/videos/999999/engagement/likes', 'POST', 404)
  store.setLike = async () => { throw new Error('The store is away') }
  await both(`/api/v1/videos/${ids[0]}/engagement/likes`, 'POST', 503)

  usual.count = 0
  for (const [path, method, status] of [
    [`/api/v1/videos/${ids[0]}/engagement/shares`, 'POST', 400], [`/api/v1/videos/0${ids[0]}/engagement/comments`, 'POST', 400],
    [`/api/v1/videos/${ids[0]}/engagement/comments`, 'DELETE', 405], ['/api/v1/videos/9007199254740992/engagement/likes', 'POST', 400]
  ] as const) t.equal((await get(app, path, authorization, method)).status, status, path)

  t.ok(app.recentWriters.has(user.id), 'who has written reads their own write')
  usual.count = 0
  const path = `/api/v1/videos/${ids[0]}`
  await get(app, path, authorization)
  await get(app, path, authorization)
  t.equal(usual.count, 2)
  t.ok(logLines.some(line => line.includes('"ip":"203.0.113.33"') && line.includes('"method":"DELETE"') && line.includes('"msg":"request"')))
})

t.test('a token whose session has ended is refused on the hot path at once, although it was seen before', async t => {
  const { app, ids } = await listening(t, (await import('../helpers/stores.ts')).anyStores())
  const { authorization } = await signUp(app)
  const path = `/api/v1/videos/${ids[0]}/engagement/likes`
  const usual = countUsual(app)
  await get(app, path, authorization, 'POST')
  usual.count = 0
  t.equal((await get(app, path, authorization, 'POST')).status, 200)
  t.equal(usual.count, 0, 'the control')
  await app.inject({ method: 'POST', url: '/api/v1/auth/logout', headers: authorization })
  for (const method of ['POST', 'DELETE']) t.equal((await get(app, path, authorization, method)).status, 401, method)
})

t.test('a hot write is refused when its bucket is empty, and nothing is counted', async t => {
  const { app, ids } = await listening(t, (await import('../helpers/stores.ts')).anyStores(), { RATE_LIMIT_RPS: '1', RATE_LIMIT_BURST: '10', TRUST_PROXY: '127.0.0.1' })
  const { authorization } = await signUp(app)
  const path = `/api/v1/videos/${ids[0]}/engagement/comments`
  const statuses: number[] = []
  for (let n = 0; n < 13; n++) statuses.push((await get(app, path, { ...authorization, 'x-forwarded-for': '203.0.113.40' }, 'POST')).status)
  t.strictSame(statuses, [...Array<number>(10).fill(200), 429, 429, 429])
  const numbers = JSON.parse((await get(app, `/api/v1/videos/${ids[0]}/engagement`, {})).body.toString()) as { comment_count: number }
  t.equal(numbers.comment_count, 10)
})

t.test('addresses that anybody makes up do not fill the memory', async t => {
  const { app, ids } = await listening(t, (await import('../helpers/stores.ts')).anyStores())
  const path = `/api/v1/videos/${ids[0]}`
  for (let n = 0; n < 5100; n++) await app.inject(`${path}?_=${n}`)
  t.ok(app.cachedReads.addresses.length <= 5000, String(app.cachedReads.addresses.length))
  t.notOk(app.cachedReads.hasAny(`${path}?_=0`), 'the oldest go')
  t.equal((await app.inject(`${path}?_=${'y'.repeat(5000)}`)).statusCode, 200)
  t.ok(app.cachedReads.addresses.every(address => address.length <= 256))
})

import { once } from 'node:events'
import http from 'node:http'
import type { AddressInfo } from 'node:net'
import { gunzipSync } from 'node:zlib'
import t from 'tap'
import { addVideo, createApp, logLines, signUp, type App } from '../helpers/app.ts'
import { onEachStore } from '../helpers/stores.ts'

interface Answer { status: number, headers: http.IncomingHttpHeaders, body: Buffer }

async function get (app: App, path: string, headers: Record<string, string> = {}, method = 'GET'): Promise<Answer> {
  const { port } = app.server.address() as AddressInfo
  const request = http.request({ port, path, headers, method, agent: false }).end()
  const [response] = await once(request, 'response') as [http.IncomingMessage]
  const chunks: Buffer[] = []
  for await (const chunk of response) chunks.push(chunk as Buffer)
  return { status: response.statusCode!, headers: response.headers, body: Buffer.concat(chunks) }
}

/** What may differ between two answers that are the same. */
function comparable ({ status, headers, body }: Answer) {
  const { date, 'x-request-id': requestId, ...rest } = headers
  return { status, headers: rest, body: body.toString('latin1') }
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
  let usual = 0
  const { callerOf } = app
  app.callerOf = request => {
    usual++
    return callerOf(request)
  }
  const loggedBefore = logLines.length
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
    'one who knows another': { 'if-none-match': '"other", W/"another"' }
  }
  for (const path of [`/api/v1/videos/${ids[0]}`, '/api/v1/videos?limit=10', '/api/v1/videos?limit=12&offset=0']) {
    for (const [name, headers] of Object.entries(variants)) {
      app.readCache.forget('')
      usual = 0
      const slow = await get(app, path, headers)
      const fast = await get(app, path, headers)
      t.equal(usual, 1, `${path}, ${name}: the second was hot`)
      const [a, b] = [comparable(slow), comparable(fast)]
      // A new load may tell a new time.
      t.strictSame(b, a, `${path}, ${name}`)
      if (name === 'one with a request id') t.equal(fast.headers['x-request-id'], 'mine')
      if (name === 'one who knows it') t.strictSame([fast.status, fast.body.length], [304, 0])
      if (name === 'one who takes gzip' && path.includes('limit')) {
        t.equal(fast.headers['content-encoding'], 'gzip')
        t.equal((JSON.parse(gunzipSync(fast.body).toString()) as unknown[]).length, path.includes('=10') ? 10 : 12)
        const again = await get(app, path, { ...headers, 'if-none-match': fast.headers.etag! })
        t.equal(again.status, 304, 'the tag of the compressed answer')
      }
    }
  }
  for (const ip of ['203.0.113.7', '203.0.113.9']) t.equal(logLines.slice(loggedBefore).filter(line => line.includes(`"ip":"${ip}"`) && line.includes('"msg":"request"')).length, 6, `${ip}: each is logged once`)
})

t.test('what is not exactly a hot read goes the usual way', async t => {
  const { app, ids } = await listening(t, (await import('../helpers/stores.ts')).anyStores())
  const path = `/api/v1/videos/${ids[0]}`
  const { authorization } = await signUp(app)
  await get(app, path)
  let usual = 0
  const { callerOf } = app
  app.callerOf = request => {
    usual++
    return callerOf(request)
  }
  t.equal((await get(app, path)).status, 200)
  t.equal(usual, 0, 'the control')
  t.match((await get(app, path, authorization)).headers, { 'cache-control': 'private, max-age=1' })
  t.equal((await get(app, path, {}, 'HEAD')).body.length, 0)
  t.equal(usual, 2)
  t.equal((await get(app, path, { 'content-length': '0' })).status, 200)
  t.equal((await get(app, `${path}?x=1`)).status, 200)
  t.equal((await get(app, `${path}/`)).status, 200)
  t.equal((await get(app, path, {}, 'POST')).status, 405)
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

t.test('addresses that anybody makes up do not fill the memory', async t => {
  const { app, ids } = await listening(t, (await import('../helpers/stores.ts')).anyStores())
  const path = `/api/v1/videos/${ids[0]}`
  for (let n = 0; n < 5100; n++) await app.inject(`${path}?x=${n}`)
  t.equal(app.anonymousReads.size, 5000)
  t.notOk(app.anonymousReads.has(`${path}?x=0`), 'the oldest go')
  t.equal((await app.inject(`${path}?x=${'y'.repeat(5000)}`)).statusCode, 200)
  t.ok([...app.anonymousReads.keys()].every(address => address.length <= 256))
})

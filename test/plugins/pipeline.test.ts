import { once } from 'node:events'
import http from 'node:http'
import { connect, type AddressInfo } from 'node:net'
import { gunzipSync } from 'node:zlib'
import t from 'tap'
import { ApiError } from '../../services/shared/errors.ts'
import { addVideo, createApp, logLines, signUp, type App } from '../helpers/app.ts'
import { anyStores, onEachStore } from '../helpers/stores.ts'
import { until } from '../helpers/until.ts'

/** Every request takes one way: Node's server, Fastify's router, the hooks in the order of app.ts, the handler. */

interface Answer {
  status: number
  headers: http.IncomingHttpHeaders
  body: Buffer
}

const portOf = (app: App): number => (app.server.address() as AddressInfo).port

async function send (app: App, path: string, headers: Record<string, string> = {}, method = 'GET'): Promise<Answer> {
  const request = http.request({ port: portOf(app), path, headers, method, agent: false }).end()
  const [response] = await once(request, 'response') as [http.IncomingMessage]
  const chunks: Buffer[] = []
  for await (const chunk of response) chunks.push(chunk as Buffer)
  return { status: response.statusCode!, headers: response.headers, body: Buffer.concat(chunks) }
}

/** Writes text to a connection of its own. @returns everything that comes back until it is closed */
async function exchange (app: App, text: string): Promise<string> {
  const socket = connect(portOf(app), '127.0.0.1')
  let received = ''
  socket.setEncoding('latin1').on('data', chunk => {
    received += chunk
  }).on('error', () => {})
  socket.write(text)
  await once(socket, 'close')
  return received
}

async function scene (t: Parameters<typeof createApp>[0], stores = anyStores(), env: Record<string, string> = {}) {
  const app = await createApp(t, { stores, env })
  await app.listen({ host: '127.0.0.1', port: 0 })
  const { user, authorization } = await signUp(app)
  const ids: number[] = []
  for (let n = 0; n < 3; n++) ids.push(await addVideo(app, user.id, { description: 'ü'.repeat(200) }))
  return { app, ids, user, authorization }
}

t.test('a hook that is added last sees every request before it is answered', async t => {
  const app = await createApp(t, { stores: anyStores(), hasOwnAnswers: true })
  let isClosed = false
  app.addHook('onRequest', async () => {
    if (isClosed) throw new ApiError('forbidden', { message: 'closed for maintenance' })
  })
  await app.listen({ host: '127.0.0.1', port: 0 })
  const { user, authorization } = await signUp(app)
  const id = await addVideo(app, user.id)
  const tag = (await send(app, `/api/v1/videos/${id}`)).headers.etag!
  const requests: [method: string, path: string, headers?: Record<string, string>][] = [
    ['GET', `/api/v1/videos/${id}`],
    ['HEAD', `/api/v1/videos/${id}`],
    ['GET', `/api/v1/videos/${id}/`],
    ['GET', `/api/v1/%76ideos/${id}`],
    ['GET', `/api/v1/videos/${id}`, { 'if-none-match': tag }],
    ['GET', `/api/v1/videos/${id}`, authorization],
    ['GET', `/api/v1/videos/${id}`, { 'accept-encoding': 'gzip' }],
    ['GET', '/api/v1/videos'],
    ['HEAD', '/api/v1/videos?limit=2'],
    ['GET', `/api/v1/users/${user.id}/videos`],
    ['GET', `/api/v1/users/${user.id}`],
    ['GET', `/api/v1/videos/${id}/engagement`],
    ['GET', `/api/v1/videos/engagement?ids=${id}`],
    ['GET', `/api/v1/videos/${id}/engagement/stream`],
    ['POST', `/api/v1/videos/${id}/engagement/likes`, authorization],
    ['DELETE', `/api/v1/videos/${id}/engagement/likes`, authorization],
    ['POST', `/api/v1/videos/${id}/engagement/live_viewers`, authorization],
    ['POST', `/api/v1/videos/${id}/engagement/comments`, authorization],
    ['GET', '/api/v1/auth/me', authorization],
    ['GET', '/livez'],
    ['GET', '/readyz'],
    ['GET', '/metrics'],
    ['GET', '/openapi.json'],
    ['GET', '/docs'],
    ['GET', '/errors'],
    ['GET', '/.well-known/jwks.json']
  ]
  const raw = ([method, path, headers = {}]: typeof requests[number]): string =>
    `${method} ${path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n${
      Object.entries(headers).map(([name, value]) => `${name}: ${value}\r\n`).join('')
    }\r\n`
  for (const request of requests.filter(([, path]) => !path.endsWith('/stream'))) {
    t.match(
      await exchange(app, raw(request)),
      /^HTTP\/1\.1 (?:200|204|304) /,
      `the control: ${request.slice(0, 2).join(' ')}`
    )
  }
  isClosed = true
  for (const request of requests) {
    t.match(await exchange(app, raw(request)), /^HTTP\/1\.1 403 /, request.slice(0, 2).join(' '))
  }
})

t.test('every request that reached the process has one log line and one count', async t => {
  const { app, ids, authorization } = await scene(t, anyStores(), {
    TRUST_PROXY: '127.0.0.1',
    RATE_LIMIT_RPS: '1',
    RATE_LIMIT_BURST: '20'
  })
  const id = ids[0]!
  let clients = 0
  const head = (line: string, headers: Record<string, string> = {}): string =>
    `${line} HTTP/1.1\r\nHost: x\r\nX-Forwarded-For: 198.51.100.${++clients}\r\n${
      Object.entries(headers).map(([name, value]) => `${name}: ${value}\r\n`).join('')
    }`
  const whole = (line: string, headers: Record<string, string> = {}): string =>
    `${head(line, { connection: 'close', ...headers })}\r\n`

  /** Does something that sends `count` requests, and looks at the lines and the count. */
  async function leaves (name: string, count: number, message: RegExp, run: () => Promise<unknown>): Promise<void> {
    await until('what was before is over', () => app.requests.inFlight === 0)
    logLines.splice(0)
    const before = app.requests.total
    await run()
    await until(`${name}: it is over`, () => app.requests.total >= before + count && app.requests.inFlight === 0)
    await new Promise(resolve => setImmediate(resolve))
    t.equal(app.requests.total - before, count, `${name}: counted`)
    const lines = logLines.filter(line => /"msg":"request/.test(line))
    t.equal(lines.length, count, `${name}: logged`)
    for (const line of lines) t.match(line, message, name)
  }
  const aborts = async (text: string, condition: () => boolean): Promise<void> => {
    const socket = connect(portOf(app), '127.0.0.1').on('error', () => {})
    socket.write(text)
    await until('it has come', condition)
    socket.destroy()
  }

  await leaves('a miss', 1, /"status":200.*"msg":"request"/, () => exchange(app, whole(`GET /api/v1/videos/${id}`)))
  await leaves('a hit', 1, /"status":200.*"msg":"request"/, () => exchange(app, whole(`GET /api/v1/videos/${id}`)))
  await leaves(
    'a 304',
    1,
    /"status":304/,
    () => exchange(app, whole(`GET /api/v1/videos/${id}`, { 'if-none-match': '*' }))
  )
  await leaves(
    'a like',
    1,
    /"status":200/,
    () =>
      exchange(app, whole(`POST /api/v1/videos/${id}/engagement/likes`, { ...authorization, 'content-length': '0' }))
  )
  const login = '{"email":"nobody@halo.example","password":"xxxx"}'
  await leaves(
    'a body',
    1,
    /"status":401/,
    () =>
      exchange(
        app,
        `${
          head('POST /api/v1/auth/login', {
            connection: 'close',
            'content-type': 'application/json',
            'content-length': String(login.length)
          })
        }\r\n${login}`
      )
  )
  await leaves('not found', 1, /"status":404/, () => exchange(app, whole('GET /nothing')))
  await leaves('a wrong method', 1, /"status":405/, () => exchange(app, whole('PUT /api/v1/videos')))
  await leaves('no token', 1, /"status":401/, () => exchange(app, whole('GET /api/v1/auth/me')))
  await leaves('an undecodable URL', 1, /"status":400/, () => exchange(app, whole('GET /%zz')))
  await leaves('no HTTP', 1, /"status":400.*could not be read/, () => exchange(app, 'nonsense\r\n\r\n'))
  await leaves(
    'a preflight',
    1,
    /"status":204/,
    () =>
      exchange(
        app,
        whole('OPTIONS /api/v1/videos', { origin: 'https://a.example', 'access-control-request-method': 'GET' })
      )
  )
  await leaves('limited', 2, /"status":(?:200|429)/, async () => {
    const one = whole('GET /livez/..')
    for (let n = 0; n < 20; n++) app.limits.address.take(`198.51.100.${clients}`)
    await exchange(app, one)
    await exchange(app, whole('GET /livez'))
  }).catch(() => {})
  const { store } = app.counters
  const { setLike } = store
  const gate = Promise.withResolvers<void>()
  let asked = 0
  store.setLike = async (...args) => {
    asked++
    await gate.promise
    return await setLike(...args)
  }
  const like = (): string =>
    `${
      head(`POST /api/v1/videos/${id}/engagement/likes`, {
        ...authorization,
        'content-type': 'application/json',
        'content-length': '2'
      })
    }\r\n{}`
  await leaves(
    'a POST that its client aborts, with its body read',
    1,
    /"msg":"request aborted by the client"/,
    () => aborts(like(), () => asked === 1)
  )
  await leaves(
    'three pipelined requests that their client aborts',
    3,
    /"msg":"request aborted by the client"/,
    () => aborts(like() + like() + like(), () => app.requests.inFlight === 3)
  )
  gate.resolve()
  store.setLike = setLike
  const { query } = app.database
  let queries = 0
  app.database.query = async (...args) => {
    queries++
    await until('the client has left', () => app.requests.inFlight === 0)
    return await query(...args) as never
  }
  await leaves(
    'a GET that its client aborts',
    1,
    /"msg":"request aborted by the client"/,
    () => aborts(whole(`GET /api/v1/users/${ids[0]!}`), () => queries === 1)
  )
  app.database.query = query
  await leaves(
    'a stream that its client closes',
    1,
    /"status":200.*"msg":"request"/,
    () => aborts(whole(`GET /api/v1/videos/${id}/engagement/stream`), () => app.services.streams.stats.listeners === 1)
  )
})

/** What may differ between two responses to the same request. */
function comparable ({ status, headers, body }: Answer) {
  const {
    date,
    'x-request-id': requestId,
    ratelimit,
    'x-ratelimit-remaining': remaining,
    'x-ratelimit-reset': reset,
    ...rest
  } = headers
  return {
    status,
    headers: rest,
    isLimited: /^"address";r=\d+;t=\d+$/.test(String(ratelimit)),
    body: body.toString('latin1')
  }
}

onEachStore(t, 'a hit has the same bytes as the miss before it, for every kind of reader', async (t, stores) => {
  const { app, ids } = await scene(t, stores, {
    CORS_ALLOWED_ORIGINS: 'https://app.example',
    TRUST_PROXY: '127.0.0.1',
    PUBLIC_URL: 'https://api.example'
  })
  const { authorization: general } = await signUp(app)
  const { authorization: adult, user: { id: adultId } } = await signUp(app, { is_adult: true })
  await app.pg.query('update users set adult_mode = true where id = $1', [adultId])
  const long = await addVideo(app, adultId, { description: 'ü'.repeat(2000) })
  const variants: Record<string, Record<string, string>> = {
    plain: {},
    'an allowed origin': { origin: 'https://app.example' },
    'another origin': { origin: 'https://evil.example' },
    gzip: { 'accept-encoding': 'br, gzip' },
    'no gzip': { 'accept-encoding': 'gzip;q=0, deflate' },
    'a request id': { 'x-request-id': 'mine' },
    'known to the client': { 'if-none-match': '*' },
    'not known to the client': { 'if-none-match': '"other", W/"another"' },
    'a token': general,
    'a token, known, gzip': { ...general, 'if-none-match': '*', 'accept-encoding': 'gzip' },
    'an adult': adult,
    'a bad token': { authorization: 'Bearer of.nothing.good' }
  }
  for (
    const path of [
      `/api/v1/videos/${ids[0]}`,
      `/api/v1/videos/${long}`,
      '/api/v1/videos?limit=2',
      `/api/v1/users/${adultId}/videos`
    ]
  ) {
    for (const [name, headers] of Object.entries(variants)) {
      for (const method of ['GET', 'HEAD']) {
        app.responseCache.forget('')
        const miss = await send(app, path, headers, method)
        const hit = await send(app, path, headers, method)
        t.strictSame(comparable(hit), comparable(miss), `${method} ${path}, ${name}`)
        if (method === 'HEAD') continue
        const injected = await app.inject({ url: path, headers, method })
        const { date, connection, 'keep-alive': keepAlive, ...ofSocket } = comparable(hit).headers
        const { date: otherDate, connection: otherConnection, ...ofInject } =
          comparable({ status: 200, headers: injected.headers as http.IncomingHttpHeaders, body: hit.body }).headers
        t.strictSame(ofInject, ofSocket, `${path}, ${name}: app.inject`)
        if (name === 'a request id') t.equal(hit.headers['x-request-id'], 'mine')
        if (name === 'known to the client') t.strictSame([hit.status, hit.body.length], [304, 0])
        if (name !== 'gzip' || path === `/api/v1/videos/${ids[0]}`) continue
        t.equal(hit.headers['content-encoding'], 'gzip')
        t.ok(JSON.parse(gunzipSync(hit.body).toString()))
        t.equal(
          (await send(app, path, { ...headers, 'if-none-match': hit.headers.etag! })).status,
          304,
          'the tag of the compressed response'
        )
      }
    }
  }
})

t.test('a hit loads nothing; other spellings of the same address, HEAD, and other members of the query hit the same entry', async t => {
  const { app, ids } = await scene(t)
  const path = `/api/v1/videos/${ids[0]}`
  await send(app, path)
  let loads = 0
  const { query } = app.database
  app.database.query = async (...args) => {
    loads++
    return await query(...args) as never
  }
  for (
    const [method, spelling] of [['GET', path], ['HEAD', path], ['GET', `${path}/`], ['GET', `${path}?_=1`], [
      'GET',
      `/api/v1/%76ideos/${ids[0]}`
    ]] as const
  ) {
    t.equal((await send(app, spelling, {}, method)).status, 200, `${method} ${spelling}`)
  }
  t.equal(loads, 0)
  t.equal(app.responseCache.stats.entries, 1)
})

t.test('a hit takes a token of the same bucket, and is refused when that is empty', async t => {
  const { app, ids } = await scene(t, anyStores(), {
    RATE_LIMIT_RPS: '1',
    RATE_LIMIT_BURST: '10',
    TRUST_PROXY: '127.0.0.1'
  })
  const path = `/api/v1/videos/${ids[0]}`
  const statuses: number[] = []
  for (let n = 0; n < 14; n++) statuses.push((await send(app, path, { 'x-forwarded-for': '203.0.113.20' })).status)
  t.strictSame(statuses, [...Array<number>(10).fill(200), 429, 429, 429, 429])
  t.equal((await send(app, path, { 'x-forwarded-for': '203.0.113.21' })).status, 200, 'another client has its own')
})

t.test('a token whose session has ended is refused at once, although it was seen before', async t => {
  const { app, ids, authorization } = await scene(t)
  const path = `/api/v1/videos/${ids[0]}/engagement/likes`
  t.equal((await send(app, path, authorization, 'POST')).status, 200)
  await app.inject({ method: 'POST', url: '/api/v1/auth/logout', headers: authorization })
  for (const method of ['POST', 'DELETE']) t.equal((await send(app, path, authorization, method)).status, 401, method)
})

onEachStore(t, 'read-your-writes: the author of a write is answered past the cache', async (t, stores) => {
  const { app, ids, authorization } = await scene(t, stores)
  const path = `/api/v1/videos/${ids[0]}`
  t.match(JSON.parse(String((await send(app, path, authorization)).body)), { like_count: 0 })
  t.equal((await send(app, `${path}/engagement/likes`, authorization, 'POST')).status, 200)
  t.match(JSON.parse(String((await send(app, path, authorization)).body)), { like_count: 1 })
})

t.test('a write is refused when the bucket of its address or of its user is empty, and nothing is counted', async t => {
  const { app, ids, authorization } = await scene(t, anyStores(), {
    RATE_LIMIT_RPS: '1',
    RATE_LIMIT_BURST: '10',
    TRUST_PROXY: '127.0.0.1'
  })
  const path = `/api/v1/videos/${ids[0]}/engagement/comments`
  const statuses: number[] = []
  for (let n = 0; n < 13; n++) {
    statuses.push((await send(app, path, { ...authorization, 'x-forwarded-for': '203.0.113.40' }, 'POST')).status)
  }
  t.strictSame(statuses, [...Array<number>(10).fill(200), 429, 429, 429])
  t.match(JSON.parse(String((await send(app, `/api/v1/videos/${ids[0]}/engagement`)).body)), { comment_count: 10 })
})

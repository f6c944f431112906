import { once } from 'node:events'
import { connect, type AddressInfo } from 'node:net'
import { gunzipSync } from 'node:zlib'
import type { InjectOptions } from 'fastify'
import t, { type Test } from 'tap'
import { loadConfig } from '../fastify.config.ts'
import { createVerifiedTokens } from '../services/accounts/verified-tokens.ts'
import { createKnownVideos } from '../services/engagement/counters/known-videos.ts'
import { createRecent } from '../services/engagement/engagement.ts'
import { createTokenBuckets } from '../services/traffic/limiter/token-buckets.ts'
import { createResponseCache } from '../services/http/response-cache.ts'
import { createRecentWriters } from '../services/http/read-your-writes.ts'
import { createSessionActivity } from '../services/accounts/session-activity.ts'
import { createAdultAccess } from '../services/accounts/adult-access.ts'
import { addVideo, createApp, logLines, randomUser, signUp, type App } from './helpers/app.ts'
import { hasProblem } from './helpers/problem.ts'
import { anyStores, onEachStore } from './helpers/stores.ts'

/** What one client could do to all others; each test is named after the attack. */

async function listen (app: App): Promise<number> {
  await app.listen({ port: 0, host: '127.0.0.1' })
  return (app.server.address() as AddressInfo).port
}

/** Sends bytes and returns all that comes until the connection is closed. */
async function say (port: number, text: string): Promise<string> {
  const socket = connect(port, '127.0.0.1')
  let answer = ''
  socket.on('data', data => {
    answer += String(data)
  }).on('error', () => {})
  socket.end(text)
  await once(socket, 'close')
  return answer
}

// ---- CPU

/** The worst texts that we know for parsers, normalisation and regular expressions. */
const worst = {
  'combining marks in descending order of class': `a${'\u0345'.repeat(16_000)}${'\u0334'.repeat(16_000)}`,
  'combining marks that alternate': `a${'\u0345\u0334\u0301\u0316'.repeat(8000)}`,
  'a run of digits': '9'.repeat(60_000),
  'a run of white space': ' '.repeat(60_000),
  'an email of many dots': `${'a.'.repeat(20_000)}@${'b.'.repeat(10_000)}`,
  'an email of many hyphens': `a@${'-'.repeat(50_000)}`,
  'a long URL': `https://${'a.'.repeat(10_000)}example/${'%41'.repeat(10_000)}?${'a=b&'.repeat(5000)}`,
  'many quotes': '"'.repeat(60_000),
  'many commas': ','.repeat(60_000),
  percents: '%'.repeat(60_000)
}

/** Milliseconds of CPU that one answer may take; the faults took 500 and more, and the aim is 20. */
const boundMs = 150

async function costOf (work: () => Promise<unknown>): Promise<number> {
  const before = process.cpuUsage()
  await work()
  const { user, system } = process.cpuUsage(before)
  return (user + system) / 1000
}

t.test('no text in a field, parameter or header keeps the event loop busy', async t => {
  const app = await createApp(t, { stores: anyStores() })
  const { authorization } = await signUp(app)
  const id = await addVideo(app, 1)
  const bodies: [method: 'POST' | 'PATCH' | 'DELETE', url: string, base: Record<string, unknown>, fields: string[]][] =
    [
      ['POST', '/api/v1/auth/register', randomUser(), ['email', 'username', 'password', 'display_name']],
      ['POST', '/api/v1/auth/login', { email: 'a@example.com', password: 'x' }, ['email', 'password']],
      ['POST', '/api/v1/auth/refresh', {}, ['refresh_token']],
      ['PATCH', '/api/v1/auth/me', {}, ['display_name', 'bio', 'avatar_url']],
      ['POST', '/api/v1/auth/password', { current_password: 'x', new_password: 'x' }, [
        'current_password',
        'new_password'
      ]],
      ['DELETE', '/api/v1/auth/me', {}, ['password']],
      ['POST', '/api/v1/videos', { title: 'x' }, ['title', 'description', 'thumbnail_url', 'stream_url']],
      ['PATCH', `/api/v1/videos/${id}`, {}, ['title', 'description', 'thumbnail_url', 'stream_url']]
    ]
  const requests: [name: string, request: InjectOptions][] = []
  for (const [kind, text] of Object.entries(worst)) {
    for (const [method, url, base, fields] of bodies) {
      for (const field of fields) {
        requests.push([`${kind} as ${field} of ${method} ${url}`, {
          method,
          url,
          headers: authorization,
          payload: { ...base, [field]: text.slice(0, 60_000) }
        }])
      }
    }
    const inUrl = encodeURIComponent(text.slice(0, 15_000)).slice(0, 15_000).replace(/%[^%]?$/, '')
    for (
      const url of [
        `/api/v1/videos/${inUrl}`,
        `/api/v1/users/${inUrl}/videos`,
        `/api/v1/videos?limit=${inUrl}`,
        `/api/v1/videos?cursor=${inUrl}`,
        `/api/v1/videos?${inUrl}`,
        `/api/v1/videos/engagement?ids=${inUrl}`,
        `/api/v1/auth/sessions/${inUrl}`,
        `/errors/${inUrl}`,
        `/docs/static/${inUrl}`,
        `/${inUrl}`
      ]
    ) requests.push([`${kind} in ${url.slice(0, 40)}`, { url }])
    const inHeader = Buffer.from(text.slice(0, 15_000)).toString('latin1').replace(/[^\x20-\x7e\x80-\xff]/g, 'x').slice(
      0,
      15_000
    )
    for (
      const name of [
        'if-none-match',
        'accept-encoding',
        'x-forwarded-for',
        'authorization',
        'user-agent',
        'x-request-id',
        'idempotency-key',
        'last-event-id',
        'origin',
        'content-type',
        'cookie'
      ]
    ) {
      requests.push([`${kind} as ${name}`, {
        method: name === 'idempotency-key' ? 'POST' : 'GET',
        url: name === 'idempotency-key' ? `/api/v1/videos/${id}/engagement/comments` : `/api/v1/videos/${id}`,
        headers: { ...authorization, [name]: inHeader }
      }])
    }
  }
  for (
    const [name, payload] of Object.entries({
      'deep arrays': '['.repeat(60_000),
      'deep objects': '{"a":'.repeat(10_000),
      'a long number': `{"email":${'1'.repeat(60_000)}}`,
      'many members': `{${Array.from({ length: 5000 }, (_, n) => `"a${n}":1`).join()}}`
    })
  ) {
    requests.push([name, {
      method: 'POST',
      url: '/api/v1/auth/login',
      headers: { 'content-type': 'application/json' },
      payload
    }])
  }

  // Compiled and connected first.
  for (const [, request] of requests.slice(0, 20)) await app.inject(request)
  const slow: string[] = []
  for (const [name, request] of requests) {
    let status = 0
    const send = async (): Promise<void> => {
      status = (await app.inject(request)).statusCode
    }
    let cost = await costOf(send)
    // Garbage of the requests before it is nobody's attack.
    if (cost > boundMs) cost = await costOf(send)
    if (cost > boundMs) slow.push(`${name}: ${cost.toFixed(0)} ms`)
    if (status >= 500 || status === 0) slow.push(`${name}: ${status}`)
  }
  t.strictSame(slow, [])
  t.ok(requests.length > 300, `${requests.length} requests`)
})

// ---- memory

t.test('what the response cache holds is bounded, keys and headers included, and what nobody asks for expires', async t => {
  let now = 0
  const cache = createResponseCache({ maxBytes: 8_000_000, now: () => now })
  const link = 'x'.repeat(45_000)
  const before = process.memoryUsage().heapUsed
  for (let n = 0; n < 20_000; n++) {
    await cache.get(`${n}:${'k'.repeat(7000)}`, async () => ({ body: '[]', headers: { link: `${n}${link}` } }))
  }
  t.ok(cache.stats.bytes <= 8_000_000, `${cache.stats.bytes} bytes`)
  t.ok(cache.stats.entries < 100, `${cache.stats.entries} entries`)
  global.gc?.()
  t.ok(process.memoryUsage().heapUsed - before < 100_000_000, 'and so is the heap')
  now = 11 * 60_000
  await cache.get('another', async () => ({ body: '[]' }))
  t.equal(cache.stats.entries, 1, 'entries that are too old to be served are dropped')
})

t.test('no map in the process grows with a million clients', async t => {
  const million = 1_000_000
  const writers = createRecentWriters()
  const beats = createRecent<number>(60_000)
  const buckets = createTokenBuckets({ rate: 1, burst: 1000 })
  const known = createKnownVideos({
    read: async ids =>
      ids.map(id => ({
        video_id: id,
        user_id: 1,
        is_adult_content: false,
        view_count: 0,
        generation: 0,
        view_n: 0,
        comment_base: 0,
        comment_n: 0,
        like_count: 0,
        legacy_likes: 0
      }))
  })
  const viewers = createAdultAccess({ gate: 'server', database: { query: async () => [] } })
  const uses = createSessionActivity({ noteUse: async () => {} })
  t.teardown(() => uses.close())
  const bearers = createVerifiedTokens({
    verify: authorization => ({
      user_id: 1,
      email: '',
      username: '',
      iat: 0,
      exp: 1e12,
      sid: authorization!,
      isLegacy: false
    }),
    revocations: { isLoaded: true, isRevoked: () => false }
  })
  for (let n = 0; n < million; n++) {
    writers.add(n)
    beats.get(String(n), '', async () => n).catch(() => {})
    buckets.take(String(n), 0)
    uses.note(String(n))
    bearers.read(String(n))
    if (n % 10 === 0) viewers.viewOf(n).catch(() => {})
    if (n % 10_000 === 0) await known.get(Array.from({ length: 10_000 }, (_, index) => n + index))
  }
  for (
    const [name, size, bound] of [
      ['recent writers', writers.size, 200_000],
      ['recent heartbeats', beats.size, 100_000],
      ['token buckets', buckets.size, 500_001],
      ['known videos', known.size, 100_000],
      ['viewers', viewers.size, 50_001],
      ['session uses', uses.size, 100_000],
      ['bearers', bearers.size, 20_000]
    ] as const
  ) t.ok(size > 0 && size <= bound, `${name}: ${size} of at most ${bound}`)
})

// ---- costs

t.test('the document and the files of the API page are sent as they were serialised and compressed once', async t => {
  const app = await createApp(t, { stores: anyStores() })
  for (
    const [url, cacheControl] of [['/openapi.json', 'public, max-age=300'], [
      '/docs/static/swagger-ui-bundle.js',
      'public, max-age=86400'
    ], ['/docs', /^public/]] as const
  ) {
    const plain = await app.inject(url)
    t.equal(plain.statusCode, 200, url)
    t.match(plain.headers, { etag: /^"[\w-]{27}"$/, 'cache-control': cacheControl, vary: 'Accept-Encoding' }, url)
    t.notOk(plain.headers['content-encoding'])
    for (let round = 0; round < 2; round++) {
      const packed = await app.inject({ url, headers: { 'accept-encoding': 'gzip' } })
      t.match(packed.headers, {
        'content-encoding': 'gzip',
        'content-length': String(packed.rawPayload.length),
        'content-type': plain.headers['content-type']
      })
      t.equal(String(gunzipSync(packed.rawPayload)), plain.body, 'the same bytes')
      t.ok(
        packed.rawPayload.length < plain.rawPayload.length / 2,
        `${packed.rawPayload.length} of ${plain.rawPayload.length} bytes`
      )
      t.equal((await app.inject({ url, headers: { 'if-none-match': String(packed.headers['etag']) } })).statusCode, 304)
    }
  }
  t.match(
    (await app.inject('/docs')).headers['content-security-policy'],
    /default-src 'self'/,
    'the page keeps its own policy'
  )
  await app.inject('/openapi.json')
  const bundle = '/docs/static/swagger-ui-bundle.js'
  await app.inject(bundle)
  let documents = 0
  const { swagger } = app
  app.swagger = ((...args: []) => {
    documents++
    return swagger(...args)
  }) as typeof swagger
  for (let n = 0; n < 10; n++) await app.inject('/openapi.json')
  t.equal(documents, 0, 'it is not serialised again')
})

t.test('a file of the API page is kept under its one plain address, however many spellings of it are asked for', async t => {
  const app = await createApp(t, { stores: anyStores() })
  const bundle = '/docs/static/swagger-ui-bundle.js'
  const ask = (url: string) => app.inject({ url, headers: { 'accept-encoding': 'gzip' } })
  t.equal((await ask(bundle)).headers['content-encoding'], 'gzip', 'the control')
  // Compressing each spelling would take a tenth of a second, and its response would be kept for ever.
  for (
    const url of [
      bundle.replace('swagger', '%73wagger'),
      bundle.replace('bundle', 'b%75ndle'),
      bundle.replace('static/', 'static//')
    ]
  ) {
    const answer = await ask(url)
    t.ok([200, 404].includes(answer.statusCode), `${url}: ${answer.statusCode}`)
    t.equal(answer.headers['content-encoding'], undefined, url)
  }
})

t.test('a request takes tokens by what it costs: files of the API page ten, a batch one for five ids', async t => {
  const app = await createApp(t, {
    stores: anyStores(),
    redisUrl: null,
    env: { RATE_LIMIT_RPS: '1', RATE_LIMIT_BURST: '1000' }
  })
  const { take } = app.limits.address
  let taken = 0
  app.limits.address.take = (client, tokens = 1) => {
    taken += tokens
    return take(client, tokens)
  }
  for (
    const [url, cost] of [['/livez', 1], ['/docs/static/swagger-ui-bundle.js', 10], ['/openapi.json', 2], [
      '/api/v1/videos/engagement?ids=1',
      1
    ], [`/api/v1/videos/engagement?ids=${Array.from({ length: 100 }, (_, n) => n + 1).join()}`, 20]] as const
  ) {
    taken = 0
    t.equal((await app.inject(url)).statusCode, 200, url)
    t.equal(taken, cost, url.slice(0, 50))
  }
  let status = 200
  for (let n = 0; n < 200 && status === 200; n++) {
    status = (await app.inject('/docs/static/swagger-ui-bundle.js')).statusCode
  }
  t.equal(status, 429, 'a hundred of them are as much as a thousand others')
})

t.test('the documentation can be switched off, and the numbers have a port of their own', async t => {
  const off = await createApp(t, { stores: anyStores(), env: { API_DOCS: 'off', METRICS_PORT: '0' } })
  for (const url of ['/docs', '/docs/static/swagger-ui-bundle.js', '/openapi.json', '/metrics']) {
    hasProblem(t, await off.inject(url), 'not_found', {}, url)
  }
  t.equal((await off.inject('/api/v1/videos')).statusCode, 200)
  await listen(off)
  const { port } = off.metrics
  const numbers = await fetch(`http://127.0.0.1:${port}/metrics`)
  t.equal(numbers.status, 200)
  t.match(await numbers.text(), /^halo_workers 1$/m)
  for (const probe of ['/livez', '/readyz', '/startupz']) {
    const answer = await fetch(`http://127.0.0.1:${port}${probe}`)
    t.equal(answer.status, 200, probe)
    t.match(await answer.json(), { status: /alive|ready/ })
  }
  t.equal((await fetch(`http://127.0.0.1:${port}/api/v1/videos`)).status, 404, 'and nothing else is there')
  await off.close()
  await t.rejects(fetch(`http://127.0.0.1:${port}/metrics`))
  t.throws(
    () => loadConfig({ SERVER_PORT: '8080', METRICS_PORT: '8080' }),
    /METRICS_PORT is 8080, which is SERVER_PORT/
  )
})

// ---- quotas

onEachStore(
  t,
  'a user publishes thirty videos at once and then one a minute, and three are live at the same time',
  async (t, stores) => {
    const app = await createApp(t, {
      stores,
      env: { PUBLISHING_LIMIT_PER_HOUR: '60', PUBLISHING_LIMIT_BURST: '30', LIVE_VIDEOS_LIMIT: '3' }
    })
    const [owner, other] = [await signUp(app), await signUp(app)]
    const publish = (who: typeof owner, payload: object = {}) =>
      app.inject({
        method: 'POST',
        url: '/api/v1/videos',
        headers: who.authorization,
        payload: { title: 'x', ...payload }
      })
    const change = (id: number, isLive: boolean) =>
      app.inject({
        method: 'PATCH',
        url: `/api/v1/videos/${id}`,
        headers: owner.authorization,
        payload: { is_live: isLive }
      })
    const live = await Promise.all(Array.from({ length: 8 }, () => publish(owner, { is_live: true })))
    t.equal(live.filter(({ statusCode }) => statusCode === 201).length, 3, 'of eight at once')
    const refused = live.find(({ statusCode }) => statusCode !== 201)!
    hasProblem(t, refused, 'too_many_live_videos', {
      message: '3 of your videos are live already: end one of them first'
    })
    const [one] = live.filter(({ statusCode }) => statusCode === 201).map(answer => answer.json<{ id: number }>().id)
    const { id } = (await publish(owner)).json<{ id: number }>()
    hasProblem(t, await change(id, true), 'too_many_live_videos', { message: /./ })
    t.equal((await change(one!, true)).statusCode, 200, 'one that is live may stay so')
    t.equal((await change(one!, false)).statusCode, 200)
    t.equal((await change(id, true)).statusCode, 200, 'and its place is free when it ends')
    t.equal((await publish(other, { is_live: true })).statusCode, 201, 'others have their own')

    for (let n = 0; n < 5; n++) {
      hasProblem(
        t,
        await publish(owner, { title: '' }),
        'invalid_request',
        { message: /title/ },
        'what is not valid takes nothing'
      )
    }
    const statuses: number[] = []
    for (let n = 0; n < 25; n++) statuses.push((await publish(owner)).statusCode)
    t.equal(statuses.filter(status => status === 201).length, 30 - 9, 'the burst')
    hasProblem(t, await publish(owner), 'rate_limit_exceeded', {
      message: /^This user may make 60 videos an hour with a burst of 30; try again in \d+ s$/
    })
  }
)

t.test('a user has a number of idempotency keys an hour, and comments without a key go on', async t => {
  const app = await createApp(t, { stores: anyStores(), env: { IDEMPOTENCY_KEYS_PER_HOUR: '20' } })
  const { user, authorization } = await signUp(app)
  const id = await addVideo(app, user.id)
  const comment = (key?: string) =>
    app.inject({
      method: 'POST',
      url: `/api/v1/videos/${id}/engagement/comments`,
      headers: { ...authorization, ...key === undefined ? {} : { 'idempotency-key': key } }
    })
  const statuses: number[] = []
  for (let n = 0; n < 22; n++) statuses.push((await comment(`key ${n}`)).statusCode)
  t.equal(statuses.filter(status => status === 200).length, 20)
  const refused = await comment('one more')
  hasProblem(t, refused, 'rate_limit_exceeded', { message: /20 uses of an Idempotency-Key an hour/ })
  t.strictSame(refused.json()['violated-policies'], ['idempotency'])
  t.equal((await comment()).statusCode, 200)
})

t.test('an address holds a number of event streams open, an IPv6 /64 as one', async t => {
  const app = await createApp(t, { stores: anyStores(), env: { STREAMS_PER_ADDRESS: '3', TRUST_PROXY: '127.0.0.1' } })
  const port = await listen(app)
  const { user } = await signUp(app)
  const id = await addVideo(app, user.id)
  const aborts: AbortController[] = []
  t.teardown(() => {
    for (const abort of aborts) abort.abort()
  })
  const open = async (address: string) => {
    const abort = new AbortController()
    aborts.push(abort)
    return await fetch(`http://127.0.0.1:${port}/api/v1/videos/${id}/engagement/stream`, {
      signal: abort.signal,
      headers: { 'x-forwarded-for': address }
    })
  }
  for (let n = 1; n <= 3; n++) t.equal((await open(`2001:db8::${n}`)).status, 200)
  const refused = await open('2001:db8::4')
  t.equal(refused.status, 429)
  t.match(await refused.json(), {
    error: 'rate_limit_exceeded',
    'violated-policies': ['streams'],
    message: 'This address may hold 3 event streams open; close one first'
  })
  t.ok(refused.headers.get('retry-after'))
  t.equal((await open('192.0.2.1')).status, 200, 'another address')
})

// ---- paths, headers, framing

t.test('no path is a 500, and a file that there is not is 404', async t => {
  const app = await createApp(t, { stores: anyStores() })
  for (
    const path of [
      '/docs/static/%2e%2e/x',
      '/docs/static/..%2fx',
      '/docs/static/%2e%2e%2f%2e%2e%2fpackage.json',
      '/docs/static/nope.js',
      '/docs/static/%00',
      '/docs/static/..%5c..%5cx',
      '/docs/static//etc/passwd',
      '/docs/static/.',
      '/docs/static/%2e',
      '/docs/static/'
    ]
  ) {
    const answer = await app.inject(path)
    t.ok([400, 404].includes(answer.statusCode), `${path}: ${answer.statusCode}`)
    t.equal(answer.headers['content-type'], 'application/problem+json; charset=utf-8', path)
  }
  hasProblem(t, await app.inject('/docs/static/nope.js'), 'not_found')
  // app.inject resolves the dots; a socket sends them as they are.
  const port = await listen(app)
  for (const path of ['/docs/static/%2e%2e/x', '/docs/static/%2e%2e%2fx', '/docs/static/../x']) {
    const socket = connect(port, '127.0.0.1')
    socket.write(`GET ${path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n`)
    const [received] = await once(socket, 'data') as [Buffer]
    t.match(String(received), /^HTTP\/1\.1 404 /, path)
    socket.destroy()
  }
  hasProblem(t, await app.inject({ method: 'POST', url: '/docs/static/index.css' }), 'method_not_allowed', {
    message: /not POST/
  })
})

t.test('what Node would answer by itself is a problem with the headers and the log line of any other', async t => {
  const app = await createApp(t, { stores: anyStores() })
  const port = await listen(app)
  for (
    const [name, text, status, code] of [
      ['no Host', 'GET /livez HTTP/1.1\r\n\r\n', 400, 'invalid_request'],
      ['two Hosts', 'GET /livez HTTP/1.1\r\nHost: a\r\nhOST: b\r\n\r\n', 400, 'invalid_request'],
      ['an expectation', 'GET /livez HTTP/1.1\r\nHost: a\r\nExpect: foo\r\n\r\n', 417, 'expectation_failed'],
      ['large headers', `GET /livez HTTP/1.1\r\nHost: a\r\nX: ${'x'.repeat(20_000)}\r\n\r\n`, 431, 'headers_too_large'],
      [
        'bad framing',
        'POST /livez HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n',
        400,
        'invalid_request'
      ],
      [
        'a bad chunk',
        'POST /livez HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n',
        400,
        'invalid_request'
      ],
      ['no HTTP', 'hello\r\n\r\n', 400, 'invalid_request'],
      ['CONNECT', 'CONNECT evil.example:443 HTTP/1.1\r\nHost: evil.example\r\n\r\n', 405, 'method_not_allowed'],
      [
        'a malformed URL',
        'GET /%zz HTTP/1.1\r\nHost: a\r\nOrigin: https://app.example\r\nConnection: close\r\n\r\n',
        400,
        'invalid_request'
      ]
    ] as const
  ) {
    const from = logLines.length
    const answer = await say(port, text)
    const [head, body] = answer.split('\r\n\r\n') as [string, string]
    t.match(head, new RegExp(`^HTTP/1.1 ${status} `), name)
    for (
      const header of [
        'content-type: application/problem\\+json',
        'x-content-type-options: nosniff',
        'x-request-id: [\\w-]+',
        'content-security-policy: default'
      ]
    ) t.match(head, new RegExp(`^${header}`, 'im'), `${name}: ${header}`)
    t.match(JSON.parse(body), { status, error: code, request_id: /./ }, name)
    if (name === 'a malformed URL') t.match(head, /^access-control-allow-origin: \*/im)
    const id = (JSON.parse(body) as { request_id: string }).request_id
    t.ok(logLines.slice(from).some(line => line.includes(id)), `${name}: its line is in the log`)
  }
  t.match(await say(port, 'GET /livez HTTP/1.0\r\n\r\n'), /^HTTP\/1.1 200 /, 'HTTP/1.0 needs no Host')
  t.match(
    await say(port, 'GET /livez HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nConnection: close\r\n\r\n'),
    /HTTP\/1.1 200 /,
    'the control'
  )
})

t.test('a client is known by its address, however its proxy writes it', async t => {
  const app = await createApp(t, {
    stores: anyStores(),
    env: { TRUST_PROXY: '127.0.0.1, 10.0.0.0/8', AUTH_RATE_LIMIT_RPS: '1', AUTH_RATE_LIMIT_BURST: '5' }
  })
  const login = (forwarded: string) =>
    app.inject({
      method: 'POST',
      url: '/api/v1/auth/login',
      headers: { 'x-forwarded-for': forwarded },
      payload: { email: 'nobody@example.com', password: 'wrong' }
    })
  const from = logLines.length
  const startedAt = performance.now()
  const statuses: number[] = []
  for (let port = 50_000; port < 50_012; port++) statuses.push((await login(`203.0.113.9:${port}`)).statusCode)
  t.ok(
    statuses.filter(status => status === 401).length <= 6 + (performance.now() - startedAt) / 1000,
    `each port is no client of its own: ${statuses.join()}`
  )
  t.equal((await login('"203.0.113.9:1"')).statusCode, 429, 'in quotes')
  t.equal((await login('198.51.100.1, 203.0.113.9 , 10.1.2.3')).statusCode, 429, 'behind another proxy')
  t.equal((await login('203.0.113.10')).statusCode, 401, 'another client')
  const audited = logLines.slice(from).filter(line => line.includes('"audit":')).map(line =>
    (JSON.parse(line) as { ip: string }).ip
  )
  t.strictSame(
    [...new Set(audited)].sort(),
    ['203.0.113.10', '203.0.113.9'],
    'lockouts and the audit log have the same address'
  )
  const address = async (forwarded: string): Promise<string> => {
    await app.inject({ url: '/livez', headers: { 'x-forwarded-for': forwarded, 'x-request-id': 'who' } })
    return (JSON.parse(
      logLines.findLast(line => line.includes('"reqId":"who"') && line.includes('"msg":"request"'))!
    ) as { ip: string }).ip
  }
  for (
    const [forwarded, expected] of [
      ['[2001:db8::7]:443', '2001:db8::7'],
      ['"[2001:db8::7]"', '2001:db8::7'],
      ['2001:db8::7', '2001:db8::7'],
      ['203.0.113.9', '203.0.113.9'],
      ['unknown', '127.0.0.1'],
      ['_hidden', '127.0.0.1'],
      ['203.0.113.9, not an address', '127.0.0.1'],
      ['999.1.1.1', '127.0.0.1'],
      ['', '127.0.0.1'],
      ['203.0.113.9,', '127.0.0.1']
    ] as const
  ) t.equal(await address(forwarded), expected, forwarded)
})

// ---- adult content

async function adultScene (t: Test, env: Record<string, string> = {}) {
  const app = await createApp(t, { stores: anyStores(), env })
  const [owner, minor, adult] = [
    await signUp(app, { is_adult: true }),
    await signUp(app),
    await signUp(app, { is_adult: true })
  ]
  await app.inject({
    method: 'PATCH',
    url: '/api/v1/auth/me',
    headers: adult.authorization,
    payload: { adult_mode: true }
  })
  const published = await app.inject({
    method: 'POST',
    url: '/api/v1/videos',
    headers: owner.authorization,
    payload: { title: 'mine', is_adult_content: true }
  })
  return { app, owner, minor, adult, published, id: published.json<{ id: number }>().id }
}

t.test('one rule for adult content, for reads and engagement alike', async t => {
  const { app, owner, minor, adult, published, id } = await adultScene(t)
  t.equal(published.statusCode, 201)
  const ordinary = await addVideo(app, owner.user.id)
  const send = (method: 'GET' | 'POST' | 'DELETE', path: string, who?: typeof owner) =>
    app.inject({ method, url: `/api/v1${path}`, headers: who?.authorization ?? {} })
  for (const [name, who] of [['anonymous', undefined], ['a minor', minor]] as const) {
    hasProblem(t, await send('GET', `/videos/${id}`, who), 'adult_content_restricted', {}, `${name}: a read`)
    hasProblem(
      t,
      await send('GET', `/videos/${id}/engagement`, who),
      'adult_content_restricted',
      {},
      `${name}: counters`
    )
    hasProblem(
      t,
      await send('GET', `/videos/${id}/engagement/stream`, who),
      'adult_content_restricted',
      {},
      `${name}: the stream`
    )
    t.strictSame(
      (await send('GET', `/videos/engagement?ids=${id},${ordinary}`, who)).json<{ video_id: number }[]>().map(one =>
        one.video_id
      ),
      [ordinary],
      `${name}: the batch`
    )
    for (const list of ['/videos', `/users/${owner.user.id}/videos`]) {
      t.strictSame(
        (await send('GET', list, who)).json<{ id: number }[]>().map(one => one.id),
        [ordinary],
        `${name}: ${list}`
      )
    }
  }
  for (const metric of ['likes', 'comments', 'live_viewers']) {
    hasProblem(
      t,
      await send('POST', `/videos/${id}/engagement/${metric}`, minor),
      'adult_content_restricted',
      {},
      metric
    )
  }
  for (const [name, who] of [['its owner, without adult mode', owner], ['an adult', adult]] as const) {
    t.equal(
      (await send('GET', published.headers['location']!.slice('/api/v1'.length), who)).statusCode,
      200,
      `${name}: the Location of the 201`
    )
    for (const list of ['/videos', '/videos?adult=only', `/users/${owner.user.id}/videos`]) {
      t.ok((await send('GET', list, who)).json<{ id: number }[]>().some(one => one.id === id), `${name}: ${list}`)
    }
    t.notOk(
      (await send('GET', '/videos?adult=exclude', who)).json<{ id: number }[]>().some(one => one.id === id),
      `${name}: excluded`
    )
    t.equal((await send('POST', `/videos/${id}/engagement/likes`, who)).statusCode, 200, `${name}: a like`)
    t.match((await send('GET', `/videos/${id}/engagement`, who)).json(), { liked: true })
  }
  t.equal(
    (await send('GET', `/videos/${id}/engagement`, adult)).json<{ like_count: number }>().like_count,
    2,
    'nobody else counts'
  )
  const other = await signUp(app, { is_adult: true })
  await app.inject({
    method: 'POST',
    url: '/api/v1/videos',
    headers: other.authorization,
    payload: { title: 'theirs', is_adult_content: true }
  })
  t.strictSame(
    (await send('GET', '/videos?adult=only', owner)).json<{ id: number }[]>().map(one => one.id),
    [id],
    'an owner sees their own and no others'
  )
})

t.test('who is no adult does not publish adult content', async t => {
  const { app, minor } = await adultScene(t)
  const send = (method: 'POST' | 'PATCH', path: string, payload: object) =>
    app.inject({ method, url: `/api/v1${path}`, headers: minor.authorization, payload })
  hasProblem(t, await send('POST', '/videos', { title: 'x', is_adult_content: true }), 'not_an_adult', {
    message: 'Only adults publish adult content: set is_adult first'
  })
  const { id } = (await send('POST', '/videos', { title: 'x' })).json<{ id: number }>()
  hasProblem(t, await send('PATCH', `/videos/${id}`, { is_adult_content: true, title: 'y' }), 'not_an_adult', {
    message: /./
  })
  t.match(
    (await app.inject(`/api/v1/videos/${id}`)).json(),
    { title: 'x', is_adult_content: false },
    'nothing was changed'
  )
})

t.test('ADULT_CONTENT_GATE=client returns everything, marked as such, as the Go service did', async t => {
  const { app, minor, id } = await adultScene(t, { ADULT_CONTENT_GATE: 'client' })
  t.match((await app.inject(`/api/v1/videos/${id}`)).json(), { id, is_adult_content: true })
  t.match((await app.inject('/api/v1/videos')).json(), [{ id, is_adult_content: true }])
  t.strictSame((await app.inject('/api/v1/videos?adult=exclude')).json(), [])
  t.equal((await app.inject(`/api/v1/videos/${id}/engagement`)).statusCode, 200)
  t.equal(
    (await app.inject({ method: 'POST', url: `/api/v1/videos/${id}/engagement/likes`, headers: minor.authorization }))
      .statusCode,
    200
  )
  t.equal(
    (await app.inject({
      method: 'POST',
      url: '/api/v1/videos',
      headers: minor.authorization,
      payload: { title: 'x', is_adult_content: true }
    })).statusCode,
    201
  )
})

// ---- cache poisoning and filters

onEachStore(t, 'nothing that one client sends appears in the response of another', async (t, stores) => {
  const app = await createApp(t, { stores, env: { STRICT_QUERY: 'off' } })
  const port = await listen(app)
  const { user } = await signUp(app)
  for (let n = 0; n < 4; n++) await addVideo(app, user.id)
  for (const base of ['/api/v1/videos', `/api/v1/users/${user.id}/videos`]) {
    const poison = `_=${'~'.repeat(100)}&x=${'!'.repeat(10_000)}`
    const first = await fetch(`http://127.0.0.1:${port}${base}?limit=2&${poison}`, {
      headers: { 'x-forwarded-host': 'evil.example', origin: 'https://evil.example', 'x-request-id': 'CCCC-1' }
    })
    t.equal(first.status, 200)
    t.notMatch(first.headers.get('link'), /~~~~|!!!!|%7E|%21/, 'not even in their own')
    const second = await fetch(`http://127.0.0.1:${port}${base}?limit=2`)
    const all = JSON.stringify([...second.headers]) + await second.text()
    t.notMatch(all, /~~~~|!!!!|%7E|%21|CCCC-1|evil/, base)
    t.match(second.headers.get('link'), new RegExp(`^<${base}\\?limit=2&cursor=[\\w-]+>; rel="next"$`))
    t.equal(app.responseCache.stats.entries, base === '/api/v1/videos' ? 1 : 2, 'unknown members are part of no key')
  }
})

t.test('a query member that a route does not know is named and refused, on every route', async t => {
  const app = await createApp(t, { stores: anyStores() })
  const { user, authorization } = await signUp(app)
  const id = await addVideo(app, user.id, { is_live: true })
  await addVideo(app, user.id)
  for (
    const [method, path] of [
      ['GET', '/api/v1/videos'],
      ['GET', `/api/v1/videos/${id}`],
      ['GET', `/api/v1/users/${user.id}`],
      ['GET', `/api/v1/users/${user.id}/videos`],
      ['GET', `/api/v1/videos/${id}/engagement`],
      ['GET', '/api/v1/auth/me'],
      ['GET', '/api/v1/auth/sessions'],
      ['POST', `/api/v1/videos/${id}/engagement/likes`],
      ['DELETE', `/api/v1/videos/${id}/engagement/likes`],
      ['GET', '/errors'],
      ['GET', '/openapi.json'],
      ['GET', '/.well-known/jwks.json']
    ] as const
  ) {
    for (const name of ['nope', 'Limit', 'constructor']) {
      hasProblem(t, await app.inject({ method, url: `${path}?${name}=1`, headers: authorization }), 'invalid_request', {
        message: `${name} is not known here`,
        violations: [{ in: 'query', pointer: `/${name}` }]
      }, `${method} ${path}?${name}`)
    }
    t.equal(
      (await app.inject({ method, url: `${path}?_=1&__proto__=x`, headers: authorization })).statusCode,
      200,
      `${method} ${path}: what begins with _ is ignored`
    )
  }
  for (const path of ['/livez', '/readyz', '/startupz', '/health']) {
    t.equal((await app.inject(`${path}?verbose`)).statusCode, 200, `${path}: a probe is not refused for its query`)
  }
  const ids = async (query: string) =>
    (await app.inject(`/api/v1/users/${user.id}/videos?${query}`)).json<{ id: number }[]>().map(one => one.id)
  t.strictSame(await ids('live=true'), [id], 'the list of a user takes the same filters')
  t.equal((await ids('live=false')).length, 1)
  const lenient = await createApp(t, { stores: anyStores(), env: { STRICT_QUERY: 'off' } })
  t.equal((await lenient.inject('/api/v1/videos?nope=1')).statusCode, 200, 'STRICT_QUERY=off')
  t.equal((await lenient.inject('/api/v1/videos?limit=1e1')).statusCode, 400)
})

// ---- boot

t.test('the start in production tells every protection that is off', async t => {
  const env = {
    NODE_ENV: 'production',
    DATABASE_URL: 'postgres://halo:halo@db/halo',
    REDIS_URL: 'redis://cache',
    JWT_SECRET_KEY: 'x'.repeat(32),
    PASSWORD_PEPPER: 'x'.repeat(32),
    CORS_ALLOWED_ORIGINS: 'https://app.example'
  }
  const { warnings } = loadConfig({ ...env, STRICT_QUERY: 'off', ADULT_CONTENT_GATE: 'client' })
  for (
    const name of [
      'PASSWORD_BLOCKLIST',
      'ADULT_CONTENT_GATE',
      'STRICT_QUERY',
      'JWT_ACCEPT_LEGACY',
      'METRICS_PORT',
      'password of PostgreSQL'
    ]
  ) t.ok(warnings.some(warning => warning.includes(name)), name)
  t.strictSame(
    loadConfig({
      ...env,
      DATABASE_URL: 'postgres://halo:a-long-one@db/halo',
      PASSWORD_BLOCKLIST: 'common',
      JWT_ACCEPT_LEGACY: 'false',
      METRICS_PORT: '9090'
    }).warnings,
    []
  )
  t.strictSame(loadConfig({}).warnings.length, 1, 'development is no production')
})

t.test('Accept-Encoding is read with its weights', async t => {
  const app = await createApp(t, { stores: anyStores() })
  for (
    const [accepted, isCompressed] of [
      ['gzip', true],
      ['gzip, deflate, br', true],
      ['deflate, gzip;q=0.5', true],
      ['*', true],
      ['x-gzip', true],
      ['GZIP', true],
      ['br;q=1, *;q=0.1', true],
      ['gzip;q=0, *', false],
      ['*, gzip;q=0', false],
      ['gzip;q=0', false],
      ['gzip;q=0.000', false],
      ['*;q=0', false],
      ['identity', false],
      ['', false],
      ['gzip;q=x', false],
      ['br', false]
    ] as const
  ) {
    t.equal(
      (await app.inject({ url: '/openapi.json', headers: { 'accept-encoding': accepted } }))
        .headers['content-encoding'] === 'gzip',
      isCompressed,
      accepted
    )
  }
})

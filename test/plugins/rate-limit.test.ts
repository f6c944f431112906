import type { AddressInfo } from 'node:net'
import t from 'tap'
import { addVideo, createApp, randomUser, signUp } from '../helpers/app.ts'
import { hasProblem } from '../helpers/problem.ts'
import { anyStores, onEachStore } from '../helpers/stores.ts'

const tight = { RATE_LIMIT_RPS: '1', RATE_LIMIT_BURST: '3', TRUST_PROXY: '127.0.0.1' }
const from = (address: string) => ({ 'x-forwarded-for': address })

onEachStore(
  t,
  'every route, for an address whose bucket is empty, answers 429 before anything else',
  async (t, stores) => {
    const app = await createApp(t, { stores, env: tight })
    const { user, authorization } = await signUp(app)
    const id = await addVideo(app, user.id)
    for (let n = 0; n < 3; n++) {
      t.equal(
        (await app.inject({ url: '/errors', headers: from('192.0.2.1') })).statusCode,
        200
      )
    }
    for (
      const [method, url] of [
        ['GET', '/docs'],
        ['GET', '/openapi.json'],
        ['GET', '/errors'],
        ['GET', '/metrics'],
        ['POST', '/api/v1/auth/register'],
        ['POST', '/api/v1/auth/login'],
        ['GET', '/api/v1/auth/me'],
        ['GET', '/api/v1/videos'],
        ['GET', `/api/v1/videos/${id}`],
        ['GET', `/api/v1/users/${user.id}/videos`],
        ['POST', `/api/v1/videos/${id}/engagement/likes`],
        ['GET', '/nothing/here'],
        ['DELETE', '/health'],
        ['OPTIONS', '/api/v1/videos']
      ] as const
    ) {
      const answer = await app.inject({ method, url, headers: { ...from('192.0.2.1'), authorization: 'Bearer wrong' } })
      hasProblem(t, answer, 'rate_limit_exceeded', {
        message: 'This address may make 1 requests a second with a burst of 3; try again in 1 s'
      }, `${method} ${url}`)
      t.equal(answer.headers['access-control-allow-origin'], undefined)
    }
    const readable = await app.inject({
      url: '/errors',
      headers: { ...from('192.0.2.1'), origin: 'https://app.example' }
    })
    t.equal(readable.statusCode, 429)
    t.equal(readable.headers['access-control-allow-origin'], '*', 'a web page can read why')
    t.equal(
      (await app.inject({ url: '/errors', headers: from('192.0.2.2') })).statusCode,
      200,
      'another address has its own bucket'
    )
    t.equal(
      (await app.inject({ url: '/api/v1/auth/me', headers: { ...from('192.0.2.3'), ...authorization } })).statusCode,
      200
    )
  }
)

t.test('addresses of one IPv6 /64 share a bucket, those of another do not', async t => {
  const app = await createApp(t, { stores: anyStores(), env: tight })
  const status = async (address: string) => (await app.inject({ url: '/errors', headers: from(address) })).statusCode
  for (const address of ['2001:db8:1:2::1', '2001:db8:1:2:ffff::9', '2001:0DB8:0001:0002:0:0:0:3']) {
    t.equal(await status(address), 200, address)
  }
  t.equal(await status('2001:db8:1:2:3:4:5:6'), 429)
  t.equal(await status('2001:db8:1:3::1'), 200)
})

t.test('an address, from a peer that is no trusted proxy, is not believed', async t => {
  const app = await createApp(t, { stores: anyStores(), env: { ...tight, TRUST_PROXY: '' } })
  const statuses: number[] = []
  for (let n = 0; n < 5; n++) {
    statuses.push((await app.inject({ url: '/errors', headers: from(`192.0.2.${n}`) })).statusCode)
  }
  t.strictSame(statuses, [200, 200, 200, 429, 429])
})

onEachStore(t, 'login and register have tighter buckets of their own each', async (t, stores) => {
  const app = await createApp(t, {
    stores,
    env: { AUTH_RATE_LIMIT_RPS: '1', AUTH_RATE_LIMIT_BURST: '2', TRUST_PROXY: '127.0.0.1' }
  })
  // The thread starts with the first password, which takes longer than a token takes to flow in.
  await app.services.passwords.hash('the thread is up')
  const person = randomUser()
  const post = (url: string, payload: object, address = '192.0.2.1') =>
    app.inject({ method: 'POST', url, payload, headers: from(address) })
  t.equal((await post('/api/v1/auth/register', person)).statusCode, 201)
  t.equal((await post('/api/v1/auth/register', {})).statusCode, 400, 'a refused body costs a token as well')
  const message = (kind: string) =>
    new RegExp(`^This address may make 1 ${kind} requests a second with a burst of 2; try again in 1 s$`)
  const refused = await post('/api/v1/auth/register', randomUser())
  hasProblem(t, refused, 'rate_limit_exceeded', { message: message('register') })
  t.strictSame(refused.json<Record<string, unknown>>()['violated-policies'], ['register'])
  t.match(refused.headers, {
    'ratelimit-policy': '"address";q=100000;w=1, "register";q=2;w=2',
    ratelimit: /^"address";r=\d+;t=[01], "register";r=0;t=2$/,
    'x-ratelimit-limit': '2',
    'x-ratelimit-remaining': '0',
    'retry-after': '1'
  })
  t.equal((await post('/api/v1/auth/login', person)).statusCode, 200, 'login still has its own')
  t.equal((await post('/api/v1/auth/login', { ...person, password: 'wrong' })).statusCode, 401)
  hasProblem(t, await post('/api/v1/auth/login', person), 'rate_limit_exceeded', { message: message('login') })
  t.equal((await post('/api/v1/auth/login', person, '192.0.2.2')).statusCode, 200, 'another address has its own')
  t.equal(
    (await app.inject({ url: '/errors', headers: from('192.0.2.1') })).statusCode,
    200,
    'other routes are not affected'
  )
})

t.test('a request that comes through the port costs one token, whichever way it goes', async t => {
  const app = await createApp(t, { stores: anyStores(), env: tight })
  await app.listen({ port: 0, host: '127.0.0.1' })
  const { port } = app.server.address() as AddressInfo
  const statuses: number[] = []
  for (const path of ['/errors', '/api/v1/videos/1', '/nothing', '/errors', '/%']) {
    statuses.push((await fetch(`http://127.0.0.1:${port}${path}`)).status)
  }
  t.strictSame(statuses, [200, 404, 404, 429, 429])
})

t.test('a path that cannot be decoded costs a token as well', async t => {
  const app = await createApp(t, { stores: anyStores(), env: tight })
  for (let n = 0; n < 3; n++) t.equal((await app.inject('/%')).statusCode, 400)
  hasProblem(t, await app.inject('/%'), 'rate_limit_exceeded', { message: /try again in 1 s/ })
})

onEachStore(t, 'every answer says what is left, in the words of the IETF and in the older ones', async (t, stores) => {
  const app = await createApp(t, {
    stores,
    env: { RATE_LIMIT_RPS: '2', RATE_LIMIT_BURST: '5', TRUST_PROXY: '127.0.0.1' }
  })
  const answers = []
  for (let n = 0; n < 7; n++) {
    answers.push(await app.inject({ url: n === 1 ? '/nothing' : '/errors', headers: from('192.0.2.1') }))
  }
  t.strictSame(answers.map(answer => answer.statusCode), [200, 404, 200, 200, 200, 429, 429])
  const fields = answers.map((
    { headers }
  ) => [headers['ratelimit'], headers['x-ratelimit-remaining'], headers['x-ratelimit-reset']])
  t.match(
    fields,
    [4, 3, 2, 1, 0, 0, 0].map(left => [new RegExp(`^"address";r=${left};t=[123]$`), String(left), /^[123]$/])
  )
  for (const { headers } of answers) {
    t.match(headers, { 'ratelimit-policy': '"address";q=5;w=3', 'x-ratelimit-limit': '5' })
  }
  t.match(answers[5]!.headers, { 'retry-after': '1' })
  t.match(
    answers[0]!.headers['access-control-expose-headers'] ??
      (await app.inject({ url: '/errors', headers: { ...from('192.0.2.2'), origin: 'https://app.example' } }))
        .headers['access-control-expose-headers'],
    /RateLimit, RateLimit-Policy, X-RateLimit-Limit/
  )

  const without = await createApp(t, { stores, env: { RATE_LIMIT_LEGACY_HEADERS: 'false' } })
  const { headers } = await without.inject('/errors')
  t.ok('ratelimit' in headers)
  t.notOk('x-ratelimit-limit' in headers)
})

onEachStore(
  t,
  'engagement has a bucket for each user, whatever the address and whichever way it is answered',
  async (t, stores) => {
    const app = await createApp(t, {
      stores,
      env: { ENGAGEMENT_RATE_LIMIT_RPS: '1', ENGAGEMENT_RATE_LIMIT_BURST: '5', TRUST_PROXY: '127.0.0.1' }
    })
    await app.listen({ port: 0, host: '127.0.0.1' })
    const { port } = app.server.address() as AddressInfo
    const [one, other] = [await signUp(app), await signUp(app)]
    const id = await addVideo(app, one.user.id)
    let count = 0
    const comment = (who: typeof one, headers: Record<string, string> = {}) =>
      fetch(`http://127.0.0.1:${port}/api/v1/videos/${id}/engagement/comments`, {
        method: 'POST',
        headers: { ...who.authorization, ...from(`192.0.2.${++count}`), ...headers }
      })
    const answers = []
    for (let n = 0; n < 9; n++) answers.push(await comment(one, n % 4 === 1 ? { 'idempotency-key': `key ${n}` } : {}))
    t.strictSame(answers.map(answer => answer.status), [200, 200, 200, 200, 200, 429, 429, 429, 429])
    for (const [index, answer] of answers.entries()) {
      const left = Math.max(0, 4 - index)
      t.match(Object.fromEntries(answer.headers), {
        'ratelimit-policy': '"address";q=100000;w=1, "engagement";q=5;w=5',
        ratelimit: new RegExp(`^"address";r=99\\d+;t=1, "engagement";r=${left};t=[1-5]$`),
        'x-ratelimit-limit': '5',
        'x-ratelimit-remaining': String(left)
      })
      if (left === 0 && answer.status === 429) {
        t.match(await answer.json(), {
          error: 'rate_limit_exceeded',
          message: 'This user may make 1 engagement requests a second with a burst of 5; try again in 1 s',
          'violated-policies': ['engagement']
        })
        t.equal(answer.headers.get('retry-after'), '1')
      }
    }
    t.equal((await comment(other)).status, 200, 'another user has their own')
    t.equal(
      (await app.inject({ url: `/api/v1/videos/${id}`, headers: one.authorization })).statusCode,
      200,
      'reads are not affected'
    )
    t.equal(
      (await app.inject(`/api/v1/videos/${id}/engagement`)).json<{ comment_count: number }>().comment_count,
      6,
      'what was refused was not counted'
    )
  }
)

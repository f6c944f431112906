import { connect, type AddressInfo } from 'node:net'
import { text } from 'node:stream/consumers'
import t from 'tap'
import { createApp } from '../helpers/app.ts'
import { anyStores } from '../helpers/stores.ts'

const preflight = (origin: string) => ({
  method: 'OPTIONS' as const,
  url: '/api/v1/videos/1/engagement/likes',
  headers: {
    origin,
    'access-control-request-method': 'POST',
    'access-control-request-headers': 'authorization,content-type,x-client-id'
  }
})

t.test('a page of an allowed origin may call and read; one of another origin may not', async t => {
  const app = await createApp(t, {
    stores: anyStores(),
    env: { CORS_ALLOWED_ORIGINS: 'https://app.example, http://localhost:8081' }
  })
  for (const origin of ['https://app.example', 'http://localhost:8081']) {
    const asked = await app.inject(preflight(origin))
    t.equal(asked.statusCode, 204)
    t.match(asked.headers, {
      'access-control-allow-origin': origin,
      'access-control-allow-methods': 'GET, HEAD, POST, PUT, PATCH, DELETE',
      'access-control-allow-headers': 'authorization,content-type,x-client-id',
      'access-control-max-age': '600',
      'access-control-allow-credentials': 'true'
    })
    for (const url of ['/api/v1/videos', '/api/v1/nope', '/api/v1/auth/me', '/api/v1/videos/abc', '/api/v1/%']) {
      const { headers } = await app.inject({ url, headers: { origin } })
      t.equal(headers['access-control-allow-origin'], origin, `${url}: errors can be read as well`)
      t.equal(headers['access-control-allow-credentials'], 'true')
      t.match(headers['access-control-expose-headers'], /ETag.*Retry-After/)
      t.match(headers['vary'], /Origin/)
    }
  }
  for (
    const origin of [
      'https://evil.example',
      'https://app.example.evil.example',
      'http://app.example',
      'null',
      'https://APP.example'
    ]
  ) {
    t.equal((await app.inject(preflight(origin))).headers['access-control-allow-origin'], undefined, origin)
    const { headers } = await app.inject({ url: '/api/v1/videos', headers: { origin } })
    t.equal(headers['access-control-allow-origin'], undefined, origin)
    t.match(headers['vary'], /Origin/)
  }
})

t.test('any origin, in development, may call', async t => {
  const app = await createApp(t, { stores: anyStores(), env: { CORS_ALLOWED_ORIGINS: '*' } })
  t.equal((await app.inject(preflight('https://any.example'))).headers['access-control-allow-origin'], '*')
  t.equal(
    (await app.inject({ url: '/livez', headers: { origin: 'https://any.example' } }))
      .headers['access-control-allow-origin'],
    '*'
  )
  t.equal((await app.inject('/livez')).headers['access-control-allow-origin'], undefined)
})

t.test('a page can read what Node refuses before there is a request', async t => {
  const app = await createApp(t, { stores: anyStores(), env: { CORS_ALLOWED_ORIGINS: 'https://app.example' } })
  await app.listen({ port: 0, host: '127.0.0.1' })
  const { port } = app.server.address() as AddressInfo
  const answerTo = async (head: string): Promise<string> => {
    const socket = connect(port, '127.0.0.1')
    socket.end(head)
    return await text(socket)
  }
  const long = `X-Long: ${'x'.repeat(20_000)}\r\n\r\n`
  const head = (origin: string): string => `GET /livez HTTP/1.1\r\nHost: x\r\nOrigin: ${origin}\r\n${long}`
  const allowed = await answerTo(head('https://app.example'))
  t.match(allowed, /^HTTP\/1.1 431 /)
  t.match(allowed, /\r\naccess-control-allow-origin: https:\/\/app.example\r\n/)
  t.notMatch(await answerTo(head('https://evil.example')), /access-control-allow-origin/)
})

t.test('every answer has the headers of helmet, errors among them', async t => {
  const app = await createApp(t, { stores: anyStores() })
  for (const url of ['/livez', '/nope', '/api/v1/videos/abc', '/%']) {
    const { headers } = await app.inject(url)
    t.match(headers, {
      'content-security-policy': "default-src 'none';frame-ancestors 'none'",
      'strict-transport-security': 'max-age=31536000; includeSubDomains',
      'x-content-type-options': 'nosniff',
      'referrer-policy': 'no-referrer',
      'cross-origin-resource-policy': 'cross-origin'
    }, url)
    t.equal(headers['x-powered-by'], undefined)
  }
})

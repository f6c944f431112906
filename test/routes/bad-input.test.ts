import type { InjectOptions } from 'fastify'
import t from 'tap'
import { createApp, randomUser, signUp } from '../helpers/app.ts'
import { hasProblem } from '../helpers/problem.ts'
import { anyStores, onEachStore } from '../helpers/stores.ts'
import type { ErrorCode } from '../../schemas/error-catalogue.ts'

const huge = `1${'0'.repeat(400)}`
const long = 'x'.repeat(10_000)

/** Values that are no id, in any path that has one. */
const badIds = [
  '0',
  '-1',
  '+1',
  '01',
  '1.0',
  '1.5',
  '1e3',
  '0x10',
  'abc',
  'NaN',
  'Infinity',
  '%20',
  '%201',
  '1%00',
  '%00',
  'null',
  'undefined',
  '9007199254740992',
  '9223372036854775808',
  huge,
  long,
  '%F0%9F%98%80',
  '٣',
  '1;drop table videos',
  "1'",
  '1,2',
  '..%2f1'
]

onEachStore(t, 'a path, with an id that is none, answers invalid_id', async (t, stores) => {
  const app = await createApp(t, { stores })
  const { authorization } = await signUp(app)
  for (const id of badIds) {
    for (
      const request of [
        { url: `/api/v1/videos/${id}` },
        { url: `/api/v1/users/${id}/videos` },
        { method: 'POST', url: `/api/v1/videos/${id}/engagement/likes`, headers: authorization }
      ] as InjectOptions[]
    ) {
      const answer = await app.inject(request)
      hasProblem(
        t,
        answer,
        'invalid_id',
        { violations: [{ in: 'path', pointer: /^\/(user_)?id$/ }] },
        `${request.method ?? 'GET'} ${String(request.url).slice(0, 60)}`
      )
    }
  }
})

onEachStore(t, 'a list, with a limit, offset or filter that is none, answers invalid_request', async (t, stores) => {
  const app = await createApp(t, { stores })
  for (const base of ['/api/v1/videos', '/api/v1/users/1/videos']) {
    t.equal((await app.inject(`${base}?limit=100&offset=0`)).statusCode, 200, 'the control')
    for (
      const query of [
        'limit=0',
        'limit=101',
        'limit=-1',
        'limit=abc',
        'limit=',
        'limit=1.5',
        'limit=1e1',
        'limit=0x10',
        'limit=%2010',
        'limit=10%00',
        `limit=${huge}`,
        `limit=${long}`,
        'limit=%00',
        'limit=NaN',
        'limit=true',
        'limit=1&limit=2',
        'limit=10;',
        'offset=-1',
        'offset=abc',
        'offset=',
        `offset=${huge}`,
        'offset=9007199254740992',
        'offset=1&offset=1',
        'offset=%ED%A0%80'
      ]
    ) {
      hasProblem(t, await app.inject(`${base}?${query}`), 'invalid_request', {
        message: /^(limit|offset) must /,
        violations: [{ in: 'query' }]
      }, `${base}?${query.slice(0, 40)}`)
    }
    t.equal((await app.inject(`${base}?_=123&_ts=x`)).statusCode, 200, 'members of caches and libraries are ignored')
    hasProblem(t, await app.inject(`${base}?utm_source=x`), 'invalid_request', {
      message: 'utm_source is not known here',
      violations: [{ in: 'query', pointer: '/utm_source' }]
    }, 'an unknown member')
  }
  for (const live of ['', '1', '0', 'TRUE', 'yes', 'null', 'true&live=false', long]) {
    hasProblem(t, await app.inject(`/api/v1/videos?live=${live}`), 'invalid_request', {
      message: 'live must be true or false'
    }, `live=${live.slice(0, 20)}`)
  }
})

/** Bodies that are no registration, by what is wrong with them; each differs from a good one in one thing. */
function badRegistrations (): Record<string, unknown> {
  const good = randomUser()
  const wrongTexts = {
    missing: undefined,
    null: null,
    number: 1,
    boolean: true,
    array: ['a@example.com'],
    object: {},
    empty: '',
    NUL: 'a\0b@example.com'
  }
  const cases: Record<string, unknown> = {}
  for (const field of ['email', 'username', 'password', 'display_name'] as const) {
    for (const [name, value] of Object.entries(wrongTexts)) cases[`${field} ${name}`] = { ...good, [field]: value }
    cases[`${field} of 10,000 characters`] = { ...good, [field]: field === 'email' ? `${long}@example.com` : long }
  }
  return {
    ...cases,
    'email without @': { ...good, email: 'example.com' },
    'email with two @': { ...good, email: 'a@b@example.com' },
    'email with a space': { ...good, email: 'a b@example.com' },
    'email with a line break': { ...good, email: 'a@example.com\nBcc: b@example.com' },
    'email of 256 characters': { ...good, email: `${'a'.repeat(244)}@example.com` },
    'username of 2': { ...good, username: 'ab' },
    'username of 31': { ...good, username: 'a'.repeat(31) },
    'username of two after trimming': { ...good, username: ' ab ' },
    'username of spaces': { ...good, username: '     ' },
    'password of 7': { ...good, password: '1234567' },
    'password of 257': { ...good, password: 'a'.repeat(257) },
    'display_name of 51': { ...good, display_name: 'a'.repeat(51) },
    'display_name of spaces': { ...good, display_name: '  ' },
    'is_adult as text': { ...good, is_adult: 'true' },
    'is_adult as number': { ...good, is_adult: 1 },
    'an array': [good],
    'a text': 'text',
    'a number': 1,
    null: null
  }
}

onEachStore(
  t,
  'register, with a body that is wrong in one thing, answers invalid_request and adds nobody',
  async (t, stores) => {
    const app = await createApp(t, { stores })
    for (const [name, body] of Object.entries(badRegistrations())) {
      const answer = await app.inject({
        method: 'POST',
        url: '/api/v1/auth/register',
        headers: { 'content-type': 'application/json' },
        payload: JSON.stringify(body)
      })
      hasProblem(t, answer, 'invalid_request', { message: /./ }, name)
    }
    const { rows } = await app.pg.query('select id from users')
    t.equal(rows.length, 0)
    await signUp(app, { username: 'abc', password: '12345678', display_name: '1' })
    await signUp(app, {
      username: '𝒳'.repeat(30),
      password: '🔑'.repeat(256 / 2),
      display_name: '😀'.repeat(50),
      email: `${'a'.repeat(243)}@example.com`
    })
    await signUp(app, { role: 'admin', adult_mode: true, id: 1 })
    t.pass('the controls at the edges are registered; members that the contract does not name are left alone')
    const { rows: [last] } = await app.pg.query('select adult_mode from users order by id desc limit 1')
    t.strictSame(last, { adult_mode: false }, 'and do nothing')
  }
)

onEachStore(t, 'register and login, with an unpaired surrogate, answer invalid_request', async (t, stores) => {
  const app = await createApp(t, { stores })
  const text = JSON.stringify(randomUser())
  for (const field of ['username', 'password', 'display_name', 'email']) {
    const payload = text.replace(new RegExp(`("${field}":")`), '$1\\ud83d')
    hasProblem(
      t,
      await app.inject({
        method: 'POST',
        url: '/api/v1/auth/register',
        headers: { 'content-type': 'application/json' },
        payload
      }),
      'invalid_request',
      {
        message: new RegExp(
          `^${field} (has a character that cannot be stored|must be of one alphabet|must be an email address)`
        )
      },
      field
    )
  }
  hasProblem(
    t,
    await app.inject({
      method: 'POST',
      url: '/api/v1/auth/login',
      headers: { 'content-type': 'application/json' },
      payload: '{"email":"\\udc00","password":"x"}'
    }),
    'invalid_request',
    { message: /^email has a character that cannot be stored/ }
  )
})

onEachStore(t, 'login, with values of a wrong kind, answers invalid_request', async (t, stores) => {
  const app = await createApp(t, { stores })
  for (
    const body of [
      {},
      { email: 'a@example.com' },
      { password: 'x' },
      { email: 1, password: 'x' },
      { email: 'a', password: null },
      { email: '', password: 'x' },
      { email: 'a', password: '' },
      { email: 'a\0', password: 'x' },
      { email: 'a', password: '\0' },
      { email: long, password: 'x' },
      { email: 'a', password: long },
      { email: { $gt: '' }, password: 'x' }
    ]
  ) {
    hasProblem(t, await app.inject({ method: 'POST', url: '/api/v1/auth/login', payload: body }), 'invalid_request', {
      message: /./
    }, JSON.stringify(body).slice(0, 60))
  }
  hasProblem(
    t,
    await app.inject({ method: 'POST', url: '/api/v1/auth/login', payload: { email: "' or 1=1 --", password: 'x' } }),
    'invalid_credentials',
    {},
    'SQL is only text'
  )
})

/** What is not the JSON that it says, or does not say that it is JSON: on each route with a body. */
const badBodies: [name: string, type: string | undefined, body: string | Buffer, code: ErrorCode][] = [
  ['nothing', 'application/json', '', 'invalid_request'],
  ['truncated JSON', 'application/json', '{"email":"a@example.com"', 'invalid_request'],
  ['no JSON', 'application/json', 'email=a', 'invalid_request'],
  ['JSON with a comment', 'application/json', '{/* */"email":"a"}', 'invalid_request'],
  ['JSON with a trailing comma', 'application/json', '{"email":"a",}', 'invalid_request'],
  ['two values', 'application/json', '{}{}', 'invalid_request'],
  ['a byte order mark in the middle', 'application/json', '{"a":1}\uFEFF', 'invalid_request'],
  [
    'one name twice',
    'application/json',
    '{"email":"a@example.com","email":"b@example.com","password":"12345678"}',
    'invalid_request'
  ],
  [
    'one name twice, once escaped',
    'application/json',
    '{"email":"a@example.com","\\u0065mail":"b@example.com","password":"12345678"}',
    'invalid_request'
  ],
  [
    'a poisoned prototype',
    'application/json',
    '{"__proto__":{"is_adult":true},"email":"a@example.com"}',
    'invalid_request'
  ],
  ['a poisoned constructor', 'application/json', '{"constructor":{"prototype":{"x":1}}}', 'invalid_request'],
  ['deep arrays', 'application/json', '['.repeat(30_000) + ']'.repeat(30_000), 'invalid_request'],
  ['deep objects', 'application/json', '{"a":'.repeat(10_000) + '1' + '}'.repeat(10_000), 'invalid_request'],
  ['a number beyond all', 'application/json', `{"email":${huge},"password":1e999}`, 'invalid_request'],
  ['bytes that are no UTF-8', 'application/json', Buffer.from([0x7b, 0x22, 0xff, 0xfe, 0x22, 0x7d]), 'invalid_request'],
  ['no media type', undefined, '{"email":"a@example.com","password":"12345678"}', 'unsupported_media_type'],
  ['a form', 'application/x-www-form-urlencoded', 'email=a', 'unsupported_media_type'],
  ['text', 'text/plain', '{}', 'unsupported_media_type'],
  ['a multipart form', 'multipart/form-data; boundary=x', '--x--', 'unsupported_media_type'],
  ['another charset', 'application/json; charset=iso-8859-1', '{}', 'unsupported_media_type'],
  ['another parameter', 'application/json; boundary=x', '{}', 'unsupported_media_type'],
  ['a longer type', 'application/jsonp', '{}', 'unsupported_media_type'],
  ['a list of types', 'application/json, text/plain', '{}', 'unsupported_media_type'],
  ['a suffix', 'application/merge-patch+json', '{}', 'unsupported_media_type'],
  ['a malformed type', 'application json', '{}', 'unsupported_media_type'],
  ['an empty type', ' ', '{}', 'unsupported_media_type'],
  ['2 MB', 'application/json', `{"email":"${'x'.repeat(2_000_000)}"}`, 'payload_too_large']
]

onEachStore(t, 'a body, that is not the JSON it should be, is refused by its code', async (t, stores) => {
  const app = await createApp(t, { stores })
  for (const url of ['/api/v1/auth/register', '/api/v1/auth/login']) {
    for (const [name, type, payload, code] of badBodies) {
      const answer = await app.inject({
        method: 'POST',
        url,
        headers: type === undefined ? {} : { 'content-type': type },
        payload
      })
      hasProblem(t, answer, code, { message: /./ }, `${url}: ${name}`)
    }
  }
  for (
    const type of [
      'application/json',
      'application/json; charset=utf-8',
      'Application/JSON;charset="UTF-8"',
      'application/json ; charset=utf8'
    ]
  ) {
    const answer = await app.inject({
      method: 'POST',
      url: '/api/v1/auth/register',
      headers: { 'content-type': type },
      payload: JSON.stringify(randomUser())
    })
    t.equal(answer.statusCode, 201, `the control: ${type}`)
  }
})

t.test('an address that does not exist answers 404, and a method that it does not take 405 with Allow', async t => {
  const app = await createApp(t, { stores: anyStores() })
  for (
    const url of [
      '/client/../package.json',
      '/client/package.json',
      '/client/page',
      '/api',
      '/api/v1',
      '/api/v1/video',
      '/api/v2/videos',
      '/api/v1/videos/1/engagements',
      '/favicon.ico',
      '/../etc/passwd',
      `/${long}`,
      '/wp-login.php?x=%00'
    ]
  ) {
    hasProblem(t, await app.inject(url), 'not_found', {}, url.slice(0, 40))
  }
  for (
    const [method, url, allow] of [
      ['DELETE', '/health', 'GET, HEAD'],
      ['GET', '/api/v1/auth/register', 'POST'],
      ['PUT', '/api/v1/auth/login', 'POST'],
      ['POST', '/api/v1/auth/me', 'DELETE, GET, HEAD, PATCH'],
      ['DELETE', '/api/v1/videos?limit=abc', 'GET, HEAD, POST'],
      ['PATCH', '/api/v1/users/1/videos', 'GET, HEAD'],
      ['GET', '/api/v1/videos/1/engagement/likes', 'DELETE, POST'],
      ['PUT', '/api/v1/videos/1/engagement/stream', 'GET'],
      ['TRACE', '/api/v1/videos/1', 'DELETE, GET, HEAD, PATCH']
    ] as const
  ) {
    const answer = await app.inject({ method: method as 'GET', url })
    hasProblem(
      t,
      answer,
      'method_not_allowed',
      { message: `This address takes ${allow}, not ${method}` },
      `${method} ${url}`
    )
    t.equal(answer.headers['allow'], allow)
  }
})

t.test('a path, that cannot be decoded, answers invalid_request', async t => {
  const app = await createApp(t, { stores: anyStores() })
  for (const url of ['/api/v1/videos/%', '/api/v1/videos/%zz', '/api/v1/videos/%E0%A4%A', '/%c0%ae']) {
    hasProblem(t, await app.inject(url), 'invalid_request', { message: /./ }, url)
  }
})

t.test('a request id, with the form of one, is taken over; another is replaced', async t => {
  const app = await createApp(t, { stores: anyStores() })
  const idOf = async (given: string) =>
    (await app.inject({ url: '/api/v1/nope', headers: { 'x-request-id': given } })).json<{ request_id: string }>()
      .request_id
  t.equal(await idOf('my-request.1'), 'my-request.1')
  for (const bad of ['a b', 'a\tb', '"', '<script>', 'é', 'x'.repeat(65), '']) {
    t.match(await idOf(bad), /^[0-9a-f]{8}-[0-9a-z]+$/, bad)
  }
})

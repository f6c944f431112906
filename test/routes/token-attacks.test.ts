import { createHmac, generateKeyPairSync, sign as signBytes, type KeyObject } from 'node:crypto'
import t from 'tap'
import { createRefreshTokens } from '../../services/accounts/refresh-tokens.ts'
import { createCursors } from '../../services/videos/cursors.ts'
import { addVideo, createApp, secret, signUp, type App } from '../helpers/app.ts'
import { hasProblem } from '../helpers/problem.ts'
import { anyStores } from '../helpers/stores.ts'
import { signToken } from '../helpers/token.ts'

type Json = Record<string, unknown>

const encode = (value: unknown): string =>
  Buffer.from(typeof value === 'string' ? value : JSON.stringify(value)).toString('base64url')
const decode = (part: string): Json => JSON.parse(Buffer.from(part, 'base64url').toString()) as Json

function signed (header: unknown, payload: unknown, key: string = secret, hash = 'sha256'): string {
  const text = `${encode(header)}.${encode(payload)}`
  return `${text}.${createHmac(hash, key).update(text).digest('base64url')}`
}

async function scene (t: Parameters<typeof createApp>[0], env: Record<string, string> = {}) {
  const app = await createApp(t, { stores: anyStores(), env })
  const { token, refresh_token: refreshToken, user } = await signUp(app)
  const [head, body] = token.split('.') as [string, string, string]
  return {
    app,
    token,
    refreshToken,
    user,
    header: decode(head),
    claims: decode(body),
    videoId: await addVideo(app, user.id)
  }
}

const me = (app: App, authorization: string) => app.inject({ url: '/api/v1/auth/me', headers: { authorization } })

/** Each is refused; and where a token is only welcome, it is none. */
async function refuses (t: Parameters<typeof createApp>[0], app: App, tokens: Record<string, string>) {
  for (const [name, token] of Object.entries(tokens)) {
    hasProblem(t, await me(app, `Bearer ${token}`), 'unauthorized', { message: /./ }, name)
    // Twice: what was refused is not remembered as good.
    t.equal((await me(app, `Bearer ${token}`)).statusCode, 401, `${name}, again`)
    t.equal(
      (await app.inject({ url: '/api/v1/videos', headers: { authorization: `Bearer ${token}` } })).statusCode,
      200,
      `${name}, where none is needed`
    )
  }
}

t.test('an access token says what RFC 9068 asks for, beside the claims that clients decode', async t => {
  const { header, claims, user } = await scene(t)
  t.match(header, { alg: 'HS256', typ: 'at+jwt', kid: /^[\w-]{16}$/ })
  t.equal(Object.keys(header).length, 3)
  t.match(claims, {
    iss: 'halo',
    aud: 'halo-api',
    client_id: 'halo',
    sub: String(user.id),
    jti: /^[\w-]{16}$/,
    sid: /^[\w-]{22}$/,
    user_id: user.id,
    email: user.email,
    username: user.username
  })
  t.equal(claims['exp'] as number - (claims['iat'] as number), 86_400)
  t.equal(claims['nbf'], claims['iat'])
})

t.test('headers: no algorithm but the key’s, no member that ours do not have', async t => {
  const { app, header, claims, token } = await scene(t)
  const { publicKey } = generateKeyPairSync('ed25519')
  const jwk = publicKey.export({ format: 'jwk' })
  t.equal((await me(app, `Bearer ${signed(header, claims)}`)).statusCode, 200, 'the control: signed by hand')
  const [, body, mac] = token.split('.') as [string, string, string]
  const unsigned = ['none', 'None', 'NONE', 'nOnE', 'none '].flatMap(alg => [
    [`alg ${alg}`, `${encode({ ...header, alg })}.${body}.`],
    [`alg ${alg}, with a signature`, `${encode({ ...header, alg })}.${body}.${mac}`]
  ])
  await refuses(t, app, {
    ...Object.fromEntries(unsigned) as Record<string, string>,
    'no alg': signed({ ...header, alg: undefined }, claims),
    'alg as a list': signed({ ...header, alg: ['HS256'] }, claims),
    'alg hs256': signed({ ...header, alg: 'hs256' }, claims),
    HS384: signed({ ...header, alg: 'HS384' }, claims, secret, 'sha384'),
    HS512: signed({ ...header, alg: 'HS512' }, claims, secret, 'sha512'),
    RS256: signed({ ...header, alg: 'RS256' }, claims),
    EdDSA: signed({ ...header, alg: 'EdDSA' }, claims),
    'kid of a path': signed({ ...header, kid: '../../../../dev/null' }, claims, ''),
    'kid of SQL': signed({ ...header, kid: "' union select 'key" }, claims, 'key'),
    'kid of a prototype': signed({ ...header, kid: '__proto__' }, claims),
    'kid constructor': signed({ ...header, kid: 'constructor' }, claims),
    'kid as a number': signed({ ...header, kid: 1 }, claims),
    'kid null': signed({ ...header, kid: null }, claims),
    'kid ""': signed({ ...header, kid: '' }, claims),
    jku: signed({ ...header, jku: 'https://evil.example/jwks.json' }, claims),
    x5u: signed({ ...header, x5u: 'https://evil.example/cert.pem' }, claims),
    x5c: signed({ ...header, x5c: ['MII'] }, claims),
    jwk: signed({ ...header, jwk }, claims),
    crit: signed({ ...header, crit: ['exp'] }, claims),
    'crit []': signed({ ...header, crit: [] }, claims),
    b64: signed({ ...header, b64: false }, claims),
    'typ JWT': signed({ ...header, typ: 'JWT' }, claims),
    'typ of a refresh token': signed({ ...header, typ: 'rt+jwt' }, claims),
    'no typ': signed({ ...header, typ: undefined }, claims),
    'a header that is a list': signed([header], claims),
    'a header that is null': signed('null', claims),
    'a header that is no JSON': signed('{', claims)
  })
})

t.test('claims: every one is looked at, also of who could sign', async t => {
  const { app, header, claims } = await scene(t)
  const now = Math.floor(Date.now() / 1000)
  const bent = (change: Json) => signed(header, { ...claims, ...change })
  t.equal(
    (await me(app, `Bearer ${bent({ iat: now + 50, nbf: now + 50 })}`)).statusCode,
    200,
    'a clock that is ahead by less than a minute'
  )
  t.equal((await me(app, `Bearer ${bent({ more: 1 })}`)).statusCode, 200, 'a control: more claims')
  await refuses(t, app, {
    'a list': signed(header, [claims]),
    text: signed(header, '"text"'),
    null: signed(header, 'null'),
    'no JSON': signed(header, '{"user_id":'),
    'exp as text': bent({ exp: String(claims['exp']) }),
    'no exp': bent({ exp: undefined }),
    'exp null': bent({ exp: null }),
    'exp 0': bent({ exp: 0 }),
    'exp passed': bent({ exp: now - 1 }),
    'exp as 1e999': signed(header, JSON.stringify(claims).replace(/"exp":\d+/, '"exp":1e999')),
    'nbf far': bent({ nbf: now + 86_400 }),
    'nbf after the allowed skew': bent({ nbf: now + 70 }),
    'iat after the allowed skew': bent({ iat: now + 70 }),
    'exp just over, without allowance': bent({ exp: now - 1 }),
    'nbf as text': bent({ nbf: String(now) }),
    'no nbf': bent({ nbf: undefined }),
    'iat as text': bent({ iat: String(now) }),
    'no iat': bent({ iat: undefined }),
    'another issuer': bent({ iss: 'https://other.example' }),
    'no issuer': bent({ iss: undefined }),
    'another audience': bent({ aud: 'other-api' }),
    'an audience in a list': bent({ aud: ['other-api', 'halo-api'] }),
    'another client': bent({ client_id: 'other' }),
    'no sub': bent({ sub: undefined }),
    'another sub': bent({ sub: '999' }),
    'sub as a number': bent({ sub: claims['user_id'] }),
    'no jti': bent({ jti: undefined }),
    'no sid': bent({ sid: undefined }),
    'a sid that is none': bent({ sid: '../x' }),
    'no user_id': bent({ user_id: undefined }),
    'user_id as text': bent({ user_id: String(claims['user_id']) }),
    'user_id 0': bent({ user_id: 0, sub: '0' }),
    'user_id 1.5': bent({ user_id: 1.5, sub: '1.5' }),
    'user_id beyond 2^53': signed(
      header,
      JSON.stringify(claims).replace(/"user_id":\d+/, '"user_id":9007199254740993')
    ),
    'email as a number': bent({ email: 1 })
  })
})

t.test('spelling: one token has one, and a header one token', async t => {
  const { app, token } = await scene(t)
  const [head, body, mac] = token.split('.') as [string, string, string]
  const alphabet = 'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_'
  const twin = mac.slice(0, -1) + alphabet[alphabet.indexOf(mac.at(-1)!) ^ 1]!
  t.equal((await me(app, `Bearer ${token}`)).statusCode, 200, 'the control')
  t.same(Buffer.from(twin, 'base64url'), Buffer.from(mac, 'base64url'), 'the same bytes')
  await refuses(t, app, {
    'another spelling of the signature': `${head}.${body}.${twin}`,
    'padding of the signature': `${token}=`,
    'padding of the body': `${head}.${body}=.${mac}`,
    'base64 and not base64url': `${head}.${body}.${mac.replaceAll('-', '+').replaceAll('_', '/')}+`,
    'a dot before': `.${token}`,
    'a dot after': `${token}.`,
    'a dot more': `${head}..${body}.${mac}`,
    'four parts': `${token}.${mac}`,
    'two parts': `${head}.${body}`,
    'no signature': `${head}.${body}.`,
    'no body': `${head}..${mac}`,
    'no header': `.${body}.${mac}`,
    'dots alone': '..',
    'the parts in another order': `${body}.${head}.${mac}`,
    'a letter more in the signature': `${token}A`,
    'a letter less in the signature': token.slice(0, -1),
    'upper case': token.toUpperCase(),
    'a very long one': `${head}.${body}${'A'.repeat(5000)}.${mac}`
  })
  for (
    const [name, authorization] of Object.entries({
      'a space before': `Bearer  ${token}`,
      'two tokens': `Bearer ${token} ${token}`,
      'two with a comma': `Bearer ${token}, Bearer ${token}`,
      'a comma after': `Bearer ${token},`,
      'a tab': `Bearer\t${token}`,
      'in quotes': `Bearer "${token}"`,
      'another scheme': `Basic ${token}`,
      'no scheme': token,
      'no token': 'Bearer ',
      nothing: ''
    })
  ) hasProblem(t, await me(app, authorization), 'unauthorized', { message: /./ }, name)
  t.equal((await me(app, `bEARER ${token}`)).statusCode, 200, 'the scheme has no letter case (RFC 9110 §11.1)')
  t.equal((await me(app, `Bearer ${token} `)).statusCode, 401, 'a space after; over HTTP the parser takes it away')
})

t.test('a secret is changed without logging anybody out, and one that left the ring counts no more', async t => {
  const before = await scene(t)
  const next = 'another secret of the tests, long enough to sign with'
  const databaseUrl = before.app.pg.pool.options.connectionString!
  const stores = anyStores()
  const withKeys = (env: Record<string, string>) =>
    createApp(t, { stores, databaseUrl, redisUrl: stores.redisUrl, env })
  const { token, refreshToken, user } = before
  const legacy = signToken(secret, user.id)

  const rotated = await withKeys({ JWT_SECRET_KEY: next, JWT_PREVIOUS_KEYS: JSON.stringify([secret]) })
  for (const one of [token, legacy]) t.equal((await me(rotated, `Bearer ${one}`)).statusCode, 200)
  const answer = await rotated.inject({
    method: 'POST',
    url: '/api/v1/auth/refresh',
    payload: { refresh_token: refreshToken }
  })
  t.equal(answer.statusCode, 200)
  const fresh = answer.json<{ token: string, refresh_token: string }>()
  t.not(decode(fresh.token.split('.')[0]!)['kid'], before.header['kid'], 'the new key signs')

  const later = await withKeys({ JWT_SECRET_KEY: next })
  for (const one of [token, legacy]) hasProblem(t, await me(later, `Bearer ${one}`), 'unauthorized', { message: /./ })
  t.equal((await me(later, `Bearer ${fresh.token}`)).statusCode, 200)
  t.equal(
    (await later.inject({ method: 'POST', url: '/api/v1/auth/refresh', payload: { refresh_token: refreshToken } }))
      .statusCode,
    401
  )
  t.equal(
    (await later.inject({
      method: 'POST',
      url: '/api/v1/auth/refresh',
      payload: { refresh_token: fresh.refresh_token }
    })).statusCode,
    200
  )
})

t.test('tokens of the Go service are taken while they may be, and are what they were', async t => {
  const { app, user, header, claims } = await scene(t)
  const token = signToken(secret, user.id)
  t.equal((await me(app, `Bearer ${token}`)).statusCode, 200, 'the control')
  const legacy = decode(token.split('.')[1]!)
  const golang = { alg: 'HS256', typ: 'JWT' }
  t.equal((await me(app, `Bearer ${signed({ alg: 'HS256' }, legacy)}`)).statusCode, 200, 'typ is optional in a JWT')
  const now = Math.floor(Date.now() / 1000)
  await refuses(t, app, {
    'another secret': signed(golang, legacy, 'x'.repeat(40)),
    'of another issuer': signed(golang, { ...legacy, iss: 'other' }),
    'with an audience': signed(golang, { ...legacy, aud: 'halo-api' }),
    'ours without its kid': signed({ ...header, kid: undefined }, claims),
    'ours without kid and type': signed(golang, claims),
    'typ at+jwt': signed({ alg: 'HS256', typ: 'at+jwt' }, legacy),
    expired: signed(golang, { ...legacy, exp: now - 1 }),
    'not yet valid': signed(golang, { ...legacy, nbf: now + 3600 }),
    'no exp': signed(golang, { ...legacy, exp: undefined })
  })
  const strict = await createApp(t, {
    stores: anyStores(),
    env: { JWT_ACCEPT_LEGACY: 'false' },
    databaseUrl: app.pg.pool.options.connectionString!,
    redisUrl: null
  })
  hasProblem(t, await me(strict, `Bearer ${token}`), 'unauthorized', { message: /./ }, 'after the switch')
})

t.test('EdDSA: other services verify by the published key; HS and EdDSA are not confused', async t => {
  const pair = generateKeyPairSync('ed25519')
  const der = (key: KeyObject, type: 'pkcs8' | 'spki') =>
    key.export({ format: 'der', type } as never) as unknown as Buffer
  const env = { JWT_SIGNING_KEY: der(pair.privateKey, 'pkcs8').toString('base64') }
  const { app, token, user, header, claims } = await scene(t, env)
  t.match(header, { alg: 'EdDSA', typ: 'at+jwt' })
  t.equal((await me(app, `Bearer ${token}`)).statusCode, 200)
  const jwks = await app.inject('/.well-known/jwks.json')
  t.equal(jwks.statusCode, 200)
  const { keys } = jwks.json<{ keys: Json[] }>()
  t.match(keys, [{ kty: 'OKP', crv: 'Ed25519', alg: 'EdDSA', use: 'sig', kid: header['kid'] }])
  t.notOk(JSON.stringify(keys).includes('"d"'), 'no private part')
  const key = await crypto.subtle.importKey(
    'jwk',
    { kty: 'OKP', crv: 'Ed25519', x: keys[0]!['x'] as string },
    'Ed25519',
    false,
    ['verify']
  )
  const [head, body, mac] = token.split('.') as [string, string, string]
  t.ok(
    await crypto.subtle.verify('Ed25519', key, Buffer.from(mac, 'base64url'), Buffer.from(`${head}.${body}`)),
    'by somebody who has the published key alone'
  )

  const signedBy = (header: unknown, key: KeyObject) => {
    const text = `${encode(header)}.${encode(claims)}`
    return `${text}.${signBytes(null, Buffer.from(text), key).toString('base64url')}`
  }
  t.equal((await me(app, `Bearer ${signedBy(header, pair.privateKey)}`)).statusCode, 200, 'the control')
  const hs = decode((await signUpHs(t)).split('.')[0]!)
  await refuses(t, app, {
    'HS256 with the public key in PEM': signed(
      { ...header, alg: 'HS256' },
      claims,
      pair.publicKey.export({ format: 'pem', type: 'spki' }) as string
    ),
    'HS256 with the public key in DER': signed(
      { ...header, alg: 'HS256' },
      claims,
      der(pair.publicKey, 'spki').toString('latin1')
    ),
    'EdDSA under the name of the secret': signedBy({ ...header, kid: hs['kid'] }, pair.privateKey),
    'another key pair': signedBy(header, generateKeyPairSync('ed25519').privateKey)
  })
  t.equal((await me(app, `Bearer ${signToken(secret, user.id)}`)).statusCode, 200, 'the secret is still in the ring')

  const next = generateKeyPairSync('ed25519')
  const after = await createApp(t, {
    stores: anyStores(),
    databaseUrl: app.pg.pool.options.connectionString!,
    redisUrl: null,
    env: {
      JWT_SIGNING_KEY: der(next.privateKey, 'pkcs8').toString('base64'),
      JWT_PREVIOUS_KEYS: `ed25519:${der(pair.publicKey, 'spki').toString('base64')}`
    }
  })
  t.equal((await me(after, `Bearer ${token}`)).statusCode, 200, 'the key before, of which the public half is enough')
  t.equal((await after.inject('/.well-known/jwks.json')).json<{ keys: Json[] }>().keys.length, 2)
  t.strictSame(
    (await (await scene(t)).app.inject('/.well-known/jwks.json')).json(),
    { keys: [] },
    'a secret is not published'
  )
})

async function signUpHs (t: Parameters<typeof createApp>[0]): Promise<string> {
  return (await scene(t)).token
}

t.test('a token of a user who was deleted is refused everywhere', async t => {
  const { app } = await scene(t)
  const { token, user } = await signUp(app, {})
  const videoId = await addVideo(app, user.id)
  const other = await signUp(app)
  await app.inject({
    method: 'DELETE',
    url: '/api/v1/auth/me',
    headers: { authorization: `Bearer ${token}` },
    payload: { password: 'correct horse' }
  })
  for (
    const [method, url] of [['GET', '/api/v1/auth/me'], ['POST', '/api/v1/videos'], [
      'POST',
      `/api/v1/videos/${videoId}/engagement/likes`
    ], ['GET', '/api/v1/auth/sessions']] as const
  ) {
    t.equal(
      (await app.inject({
        method,
        url,
        headers: { authorization: `Bearer ${token}` },
        ...method === 'POST' && url.endsWith('videos') ? { payload: { title: 'x' } } : {}
      })).statusCode,
      401,
      url
    )
  }
  t.equal((await me(app, `Bearer ${other.token}`)).statusCode, 200, 'the control')
  t.equal((await me(app, `Bearer ${signToken(secret, user.id)}`)).statusCode, 401, 'of the Go service as well')
})

t.test('a short secret of the Go service verifies its tokens, and nothing of this service', async t => {
  const short = 'go secret'
  const app = await createApp(t, { stores: anyStores(), env: { JWT_PREVIOUS_KEYS: JSON.stringify([short]) } })
  const { user, token } = await signUp(app)
  t.equal((await me(app, `Bearer ${signToken(short, user.id)}`)).statusCode, 200)
  t.equal((await me(app, `Bearer ${token}`)).statusCode, 200, 'the control')
  const kid = createHmac('sha256', short).update('kid').digest('base64url').slice(0, 16)
  const claims = decode(token.split('.')[1]!)
  const sid = String(claims['sid'])
  const refresh = createRefreshTokens([short]).encode({ sid, generation: 0 })
  hasProblem(
    t,
    await app.inject({ method: 'POST', url: '/api/v1/auth/refresh', payload: { refresh_token: refresh } }),
    'invalid_refresh_token'
  )
  const cursor = createCursors([short]).encode({ createdMicros: 1n, id: 1 }, JSON.stringify([null, null, null]))
  hasProblem(t, await app.inject(`/api/v1/videos?cursor=${cursor}`), 'invalid_cursor')
  await refuses(t, app, { 'ours, signed with it': signed({ alg: 'HS256', typ: 'at+jwt', kid }, claims, short) })
})

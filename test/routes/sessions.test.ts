import { setTimeout as sleep } from 'node:timers/promises'
import t from 'tap'
import { createApp, createDatabase, logLines, randomUser, secret, signUp, type App } from '../helpers/app.ts'
import { createFaultyProxy } from '../helpers/faulty-proxy.ts'
import { hasProblem } from '../helpers/problem.ts'
import { createClient, passTime, type Tokens } from '../helpers/sessions.ts'
import { anyStores, availableStores, didNotRun, needsRedis, onEachStore } from '../helpers/stores.ts'
import { signToken } from '../helpers/token.ts'

const sidOf = (token: string): string =>
  (JSON.parse(Buffer.from(token.split('.')[1]!, 'base64url').toString()) as { sid: string }).sid

/** The audit lines that a test has made. */
function audits (from: number): Record<string, unknown>[] {
  return logLines.slice(from).filter(line => line.includes('"audit":')).map(line =>
    JSON.parse(line) as Record<string, unknown>
  )
}

async function registered (app: App) {
  const person = randomUser()
  const client = createClient(app)
  const answer = await client.send('POST', 'register', { payload: person })
  return { person, client, tokens: answer.json<Tokens>() }
}

onEachStore(
  t,
  'register and login answer with a token, its seconds and a refresh token, which gives the next ones',
  async (t, stores) => {
    const app = await createApp(t, { stores })
    const { person, client, tokens } = await registered(app)
    t.strictSame(Object.keys(tokens), ['token', 'expires_in', 'refresh_token', 'user'])
    t.equal(tokens.expires_in, 86_400)
    const login = await client.login(person.email, person.password)
    t.not(login.refresh_token, tokens.refresh_token)
    let last = login
    for (let n = 0; n < 3; n++) {
      const answer = await client.refresh(last.refresh_token)
      t.equal(answer.statusCode, 200)
      t.equal(answer.headers['cache-control'], 'no-store')
      const next = answer.json<Tokens>()
      t.not(next.refresh_token, last.refresh_token)
      t.not(next.token, last.token)
      t.strictSame(next.user, tokens.user)
      t.equal(sidOf(next.token), sidOf(login.token), 'the session is the same')
      t.equal(await client.statusOf(next.token), 200)
      last = next
    }
  }
)

onEachStore(
  t,
  'a refresh token that comes again within ten seconds has the same answer; one whose successor was used is refused, and after them ends the session',
  async (t, stores) => {
    const app = await createApp(t, { stores })
    const { client, tokens } = await registered(app)
    const next = (await client.refresh(tokens.refresh_token)).json<Tokens>()
    const lost = await client.refresh(tokens.refresh_token)
    t.equal(lost.statusCode, 200, 'its answer was lost')
    t.equal(lost.json<Tokens>().refresh_token, next.refresh_token)
    const both = await Promise.all([client.refresh(next.refresh_token), client.refresh(next.refresh_token)])
    t.strictSame(both.map(answer => answer.statusCode), [200, 200], 'two at once')
    t.equal(both[0].json<Tokens>().refresh_token, both[1].json<Tokens>().refresh_token)
    const last = both[0].json<Tokens>()

    const from = logLines.length
    hasProblem(t, await client.refresh(tokens.refresh_token), 'invalid_refresh_token', {}, 'a tab that is late')
    t.equal(await client.statusOf(last.token), 200, 'ends nothing')
    await passTime(app, 11)
    hasProblem(
      t,
      await client.refresh(tokens.refresh_token),
      'invalid_refresh_token',
      {},
      'the same after ten seconds'
    )
    t.equal(await client.statusOf(last.token), 401, 'its access tokens do not count any more')
    hasProblem(
      t,
      await client.refresh(last.refresh_token),
      'invalid_refresh_token',
      {},
      'the newest one of the session'
    )
    t.match(audits(from), [{
      audit: 'refresh_reused',
      userId: tokens.user.id,
      sessionId: sidOf(tokens.token),
      ip: '203.0.113.1'
    }])
  }
)

onEachStore(t, 'a session ends in the end, and its access tokens with it', async (t, stores) => {
  const app = await createApp(t, { stores, env: { SESSION_LIFETIME_DAYS: '1', JWT_EXPIRATION_HOURS: '48' } })
  const { client, tokens } = await registered(app)
  t.ok(tokens.expires_in <= 86_400 && tokens.expires_in > 86_300, 'no token outlives its session')
  await app.pg.query("update sessions set expires_at = now() + interval '100 seconds'")
  const refreshed = (await client.refresh(tokens.refresh_token)).json<Tokens>()
  t.ok(refreshed.expires_in <= 100 && refreshed.expires_in > 90)
  await app.pg.query("update sessions set expires_at = now() - interval '1 second'")
  hasProblem(t, await client.refresh(refreshed.refresh_token), 'invalid_refresh_token')
  t.strictSame((await client.send('GET', 'sessions', { token: tokens.token })).json(), [])
})

onEachStore(t, 'who is logged in sees their sessions, and ends one or all of them', async (t, stores) => {
  const app = await createApp(t, { stores })
  const { person, client, tokens } = await registered(app)
  const phone =
    (await createClient(app, '203.0.113.2').send('POST', 'login', { payload: person, userAgent: 'a phone' })).json<
      Tokens
    >()
  const stranger = await registered(app)
  const list = (await client.send('GET', 'sessions', { token: tokens.token })).json<Record<string, unknown>[]>()
  const timestamp = /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/
  t.match(list, [
    {
      id: sidOf(phone.token),
      address: '203.0.113.2',
      user_agent: 'a phone',
      is_current: false,
      created_at: timestamp,
      last_used_at: timestamp,
      expires_at: timestamp
    },
    { id: sidOf(tokens.token), address: '203.0.113.1', user_agent: 'a test', is_current: true }
  ])
  t.equal(list.length, 2)

  for (const id of [sidOf(stranger.tokens.token), 'A'.repeat(22)]) {
    hasProblem(t, await client.send('DELETE', `sessions/${id}`, { token: tokens.token }), 'not_found', {
      message: 'You have no session with this id'
    })
  }
  hasProblem(t, await client.send('DELETE', 'sessions/1', { token: tokens.token }), 'invalid_request', {
    message: /session_id/
  })
  t.equal(await stranger.client.statusOf(stranger.tokens.token), 200, 'nobody ends the session of another')

  const from = logLines.length
  t.equal((await client.send('DELETE', `sessions/${sidOf(phone.token)}`, { token: tokens.token })).statusCode, 204)
  hasProblem(t, await client.send('GET', 'me', { token: phone.token }), 'unauthorized', {
    message: 'The session of this access token has ended'
  })
  hasProblem(t, await client.refresh(phone.refresh_token), 'invalid_refresh_token')
  t.equal(await client.statusOf(tokens.token), 200)

  const logout = await client.send('POST', 'logout', { token: tokens.token })
  t.strictSame([logout.statusCode, logout.body], [204, ''])
  t.equal(await client.statusOf(tokens.token), 401)
  hasProblem(t, await client.refresh(tokens.refresh_token), 'invalid_refresh_token')
  t.equal((await client.send('POST', 'logout', { token: tokens.token })).statusCode, 401, 'twice')

  const logins = await Promise.all([1, 2, 3].map(() => client.login(person.email, person.password)))
  t.equal((await client.send('POST', 'logout-all', { token: logins[0]!.token })).statusCode, 204)
  for (const { token, refresh_token: refreshToken } of logins) {
    t.equal(await client.statusOf(token), 401)
    t.equal((await client.refresh(refreshToken)).statusCode, 401)
  }
  t.equal(await stranger.client.statusOf(stranger.tokens.token), 200)
  t.strictSame(audits(from).map(line => line['audit']), [
    'session_ended',
    'logout',
    'login',
    'login',
    'login',
    'logout_all'
  ])
  for (const line of audits(from)) t.match(line, { userId: tokens.user.id, ip: '203.0.113.1', reqId: /./ })
})

onEachStore(
  t,
  'another process refuses a token within a second of its session’s end, however it ended',
  async (t, stores) => {
    const databaseUrl = await createDatabase(t, stores)
    const options = { stores, databaseUrl, redisUrl: stores.redisUrl }
    const [here, there] = [await createApp(t, options), await createApp(t, options)]
    await Promise.all([here.ready(), there.ready()])
    const far = createClient(there)
    const ends: Record<
      string,
      (client: ReturnType<typeof createClient>, tokens: Tokens, person: { password: string }) => Promise<unknown>
    > = {
      logout: (client, { token }) => client.send('POST', 'logout', { token }),
      'logout-all': (client, { token }) => client.send('POST', 'logout-all', { token }),
      'a deleted account': (client, { token }, { password }) =>
        client.send('DELETE', 'me', { token, payload: { password } }),
      'a reused refresh token': async (client, { refresh_token: first }) => {
        await client.refresh((await client.refresh(first)).json<Tokens>().refresh_token)
        await passTime(here, 11)
        await client.refresh(first)
      },
      'a row that was deleted by hand': (client, { user }) =>
        here.pg.query('delete from sessions where user_id = $1', [user.id])
    }
    for (const [name, end] of Object.entries(ends)) {
      const { person, client, tokens } = await registered(here)
      t.equal(await far.statusOf(tokens.token), 200, `${name}: the control`)
      // What is not seen twice is not from memory.
      t.equal(await far.statusOf(tokens.token), 200)
      await end(client, tokens, person)
      const endedAt = performance.now()
      let status = 200
      while (status === 200 && performance.now() - endedAt < 3000) {
        status = await far.statusOf(tokens.token)
        await sleep(20)
      }
      t.equal(status, 401, name)
      t.comment(`${name}: after ${Math.round(performance.now() - endedAt)} ms`)
    }
  }
)

onEachStore(t, 'a process that begins later knows who was logged out before', async (t, stores) => {
  const databaseUrl = await createDatabase(t, stores)
  const options = { stores, databaseUrl, redisUrl: stores.redisUrl }
  const app = await createApp(t, options)
  const { client, tokens, person } = await registered(app)
  const other = await client.login(person.email, person.password)
  await client.send('POST', 'logout', { token: tokens.token })
  const later = createClient(await createApp(t, options))
  t.equal(await later.statusOf(tokens.token), 401)
  t.equal(await later.statusOf(other.token), 200)
})

t.test('a token of the Go service is logged out too, alone and with all others of its user', async t => {
  const app = await createApp(t, { stores: anyStores() })
  const { user, token } = await signUp(app)
  const client = createClient(app)
  const [one, two] = [signToken(secret, user.id), signToken(secret, user.id, { jitter: 1 })]
  t.equal(await client.statusOf(one), 200)
  t.equal((await client.send('POST', 'logout', { token: one })).statusCode, 204)
  t.equal(await client.statusOf(one), 401)
  t.equal(await client.statusOf(two), 200, 'another of the same user goes on')
  await client.send('POST', 'logout-all', { token })
  await sleep(1000)
  t.equal(await client.statusOf(two), 401)
  t.equal((await client.send('POST', 'logout-all', { token: two })).statusCode, 401)
})

t.test('who changes the password with a token of the Go service goes on with it, and its other tokens end', async t => {
  const app = await createApp(t, { stores: anyStores() })
  const person = randomUser()
  const { user } = await signUp(app, person)
  const client = createClient(app)
  const [one, two] = [signToken(secret, user.id), signToken(secret, user.id, { jitter: 1 })]
  const change = { current_password: person.password, new_password: 'another password' }
  t.equal((await client.send('POST', 'password', { token: one, payload: change })).statusCode, 204)
  await sleep(1000)
  t.strictSame([await client.statusOf(one), await client.statusOf(two)], [200, 401])
})

t.test('what was revoked stays so when tokens are made shorter, and is forgotten when none is left', async t => {
  const stores = anyStores()
  const databaseUrl = await createDatabase(t, stores)
  const app = await createApp(t, { stores, databaseUrl, redisUrl: stores.redisUrl })
  const { client, tokens } = await registered(app)
  await client.send('POST', 'logout', { token: tokens.token })
  const { rows: [row] } = await app.pg.query<{ hours: number }>(
    'select extract(epoch from until - now()) / 3600 as hours from revocations'
  )
  t.ok(row!.hours > 23.9 && row!.hours < 24.1)
  await app.pg.query("update revocations set revoked_at = now() - interval '20 hours'")
  const shorter = createClient(
    await createApp(t, { stores, databaseUrl, redisUrl: stores.redisUrl, env: { JWT_EXPIRATION_HOURS: '1' } })
  )
  t.equal(await shorter.statusOf(tokens.token), 401)
})

t.test('who was logged out is learnt in time also while the background is busy', async t => {
  const stores = anyStores()
  const databaseUrl = await createDatabase(t, stores)
  const options = { stores, databaseUrl, redisUrl: stores.redisUrl }
  const [here, there] = [await createApp(t, options), await createApp(t, options)]
  const { client, tokens } = await registered(here)
  const far = createClient(there)
  t.equal(await far.statusOf(tokens.token), 200)
  const busy = [1, 2].map(() => there.backgroundPool.query('select pg_sleep(4)'))
  await sleep(100)
  await client.send('POST', 'logout', { token: tokens.token })
  await sleep(1500)
  t.equal(await far.statusOf(tokens.token), 401)
  await Promise.all(busy)
})

t.test('the last use of a session is noted', async t => {
  const app = await createApp(t, { stores: anyStores() })
  const { client, tokens } = await registered(app)
  await app.pg.query("update sessions set last_used_at = now() - interval '1 hour'")
  await client.statusOf(tokens.token)
  await app.services.sessionActivity.write()
  const [session] = (await client.send('GET', 'sessions', { token: tokens.token })).json<{ last_used_at: string }[]>()
  t.ok(Date.now() - Date.parse(session!.last_used_at) < 60_000)
})

t.test('a password that is changed while sessions cannot be ended is not changed', async t => {
  const app = await createApp(t, { stores: anyStores() })
  const { person, client, tokens, tokens: { token } } = await registered(app)
  const other = await client.login(person.email, person.password)
  const blocker = await app.pg.pool.connect()
  await blocker.query('begin')
  await blocker.query('select from sessions where user_id = $1 for share', [tokens.user.id])
  const change = { current_password: person.password, new_password: 'another password' }
  hasProblem(t, await client.send('POST', 'password', { token, payload: change }), 'service_unavailable')
  await blocker.query('rollback')
  blocker.release()
  t.ok(await client.login(person.email, person.password), 'the old one is still the password')
  t.equal((await client.send('POST', 'password', { token, payload: change })).statusCode, 204)
  t.equal(await client.statusOf(other.token), 401)
})

t.test('Redis unavailable has no part in who is logged in', async t => {
  const stores = availableStores().find(({ redisUrl }) => redisUrl !== null)
  if (!stores) return didNotRun(t, needsRedis)
  const proxy = await createFaultyProxy(t, stores.redisUrl!, 6379)
  const app = await createApp(t, { stores, redisUrl: proxy.url })
  for (const fault of ['refuse', 'silence'] as const) {
    await proxy.forward()
    await proxy[fault]()
    const { person, client, tokens } = await registered(app)
    const login = await client.login(person.email, person.password)
    t.equal((await client.refresh(login.refresh_token)).statusCode, 200, fault)
    t.equal((await client.send('POST', 'logout', { token: tokens.token })).statusCode, 204, fault)
    t.equal(await client.statusOf(tokens.token), 401, fault)
    t.equal(await client.statusOf(login.token), 200, fault)
  }
})

t.test('PostgreSQL away: who is known goes on, nobody is logged out by mistake; a process that begins believes nobody', async t => {
  const stores = anyStores()
  const databaseUrl = await createDatabase(t, stores)
  const proxy = await createFaultyProxy(t, databaseUrl, 5432)
  const app = await createApp(t, { stores, databaseUrl: proxy.url, redisUrl: stores.redisUrl })
  const { client, tokens, person } = await registered(app)
  const ended = await client.login(person.email, person.password)
  await client.send('POST', 'logout', { token: ended.token })
  await proxy.refuse()
  const authorization = (token: string) => ({ authorization: `Bearer ${token}` })
  const status = async (of: App, token: string) =>
    (await of.inject({ method: 'POST', url: '/api/v1/videos/1/engagement/nothing', headers: authorization(token) }))
      .statusCode
  t.equal(await status(app, tokens.token), 400, 'past the token')
  t.equal(await status(app, ended.token), 401)
  for (
    const [method, path, payload] of [['POST', 'logout', undefined], ['POST', 'refresh', {
      refresh_token: tokens.refresh_token
    }], ['POST', 'login', person]] as const
  ) {
    const answer = await client.send(method, path, { token: tokens.token, ...payload ? { payload } : {} })
    hasProblem(t, answer, 'service_unavailable', {}, path)
  }
  t.equal(await status(app, tokens.token), 400, 'a logout that failed has not logged out')

  const late = await createApp(t, { stores, databaseUrl: proxy.url, redisUrl: stores.redisUrl })
  const answer = await late.inject({
    method: 'POST',
    url: '/api/v1/videos/1/engagement/nothing',
    headers: authorization(ended.token)
  })
  hasProblem(t, answer, 'service_unavailable')
  await proxy.forward()
  for (let tries = 0; await status(late, tokens.token) !== 400 && tries < 100; tries++) await sleep(50)
  t.equal(await status(late, tokens.token), 400, 'it asks until it knows')
  t.equal(await status(late, ended.token), 401)
})

t.test('refresh tokens and access tokens do not stand for each other, and what was bent is none', async t => {
  const app = await createApp(t, { stores: anyStores() })
  const { client, tokens } = await registered(app)
  hasProblem(t, await client.send('GET', 'me', { token: tokens.refresh_token }), 'unauthorized', { message: /./ })
  const [head, sid, mac] = [tokens.refresh_token.slice(0, 13), sidOf(tokens.token), tokens.refresh_token.split('.')[2]!]
  const last = 'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_'
  const twin = mac.slice(0, -1) + last[last.indexOf(mac.at(-1)!) ^ 1]!
  for (
    const [name, bent] of Object.entries({
      'an access token': tokens.token,
      'another generation': `${head}${sid}.1.${mac}`,
      'another session': `${head}${'A'.repeat(22)}.0.${mac}`,
      'no signature': `${head}${sid}.0.`,
      'a bent signature': `${head}${sid}.0.${'A'.repeat(43)}`,
      'another spelling of the signature': `${head}${sid}.0.${twin}`,
      'a leading zero': `${head}${sid}.00.${mac}`,
      'a space': ` ${tokens.refresh_token}`,
      padding: `${tokens.refresh_token}=`,
      'a NUL': `${tokens.refresh_token}\0`,
      'no prefix': tokens.refresh_token.slice(13)
    })
  ) hasProblem(t, await client.refresh(bent), 'invalid_refresh_token', {}, name)
  for (
    const payload of [{}, { refresh_token: 1 }, { refresh_token: '' }, { refresh_token: 'x'.repeat(2000) }, {
      refresh_token: [tokens.refresh_token]
    }]
  ) {
    t.equal((await client.send('POST', 'refresh', { payload })).statusCode, 400, JSON.stringify(payload).slice(0, 30))
  }
  t.equal((await client.refresh(tokens.refresh_token)).statusCode, 200, 'the control: none of it ended the session')
})

t.test('a user has SESSIONS_PER_USER sessions, and the one that was used longest ago goes', async t => {
  const few = await createApp(t, { stores: anyStores(), env: { SESSIONS_PER_USER: '2' } })
  const one = await registered(few)
  const logins = [1, 2, 3].map(() => () => one.client.login(one.person.email, one.person.password))
  for (const login of logins) await login()
  t.equal((await few.pg.query('select from sessions')).rowCount, 2)

  const app = await createApp(t, { stores: anyStores() })
  const { client, tokens, person } = await registered(app)
  await app.pg.query(
    `insert into sessions (id, user_id, expires_at, tokens_until, address, user_agent, last_used_at)
    select lpad(n::text, 22, '0'), $1, now() + interval '1 day', now() + interval '1 day', '', '', now() - n * interval '1 minute' from generate_series(1, 99) n`,
    [tokens.user.id]
  )
  await client.login(person.email, person.password)
  const { rows } = await app.pg.query<{ id: string }>(
    'select id from sessions where user_id = $1 order by last_used_at desc',
    [tokens.user.id]
  )
  t.equal(rows.length, 100)
  t.notOk(rows.some(row => row.id === '99'.padStart(22, '0')))
  const { rows: [revoked] } = await app.pg.query<{ count: number }>(
    'select count(*) from revocations where session_id = $1',
    ['99'.padStart(22, '0')]
  )
  t.equal(revoked!.count, 1)
})

import { createHash } from 'node:crypto'
import t from 'tap'
import { createLoginThrottle } from '../../services/accounts/login-throttle.ts'
import { comparisonKey } from '../../services/accounts/users.ts'
import { ApiError } from '../../services/shared/errors.ts'
import { createApp, logLines, randomUser, signUp, type App } from '../helpers/app.ts'
import { hasProblem } from '../helpers/problem.ts'
import { createClient } from '../helpers/sessions.ts'
import { anyStores, onEachStore } from '../helpers/stores.ts'

const login = (app: App, address: string, email: string, password: string) =>
  createClient(app, address).send('POST', 'login', { payload: { email, password } })

/** Lets time pass for the waits, in seconds. */
const pass = (app: App, seconds: number) =>
  app.pg.query(
    "update login_attempts set last_at = last_at - $1 * interval '1 second', running_at = running_at - $1 * interval '1 second'",
    [seconds]
  )

async function scene (t: Parameters<typeof createApp>[0], stores = anyStores()) {
  const app = await createApp(t, { stores })
  const person = randomUser()
  await signUp(app, person)
  // Where the account was made does not count as known here.
  await app.pg.query('delete from known_addresses')
  let compared = 0
  const { verify } = app.services.passwords
  app.services.passwords.verify = async (password, stored) => {
    if (stored !== undefined) compared++
    return await verify(password, stored)
  }
  return { app, person, compared: () => compared }
}

onEachStore(t, 'who guesses waits, longer with each guess, and the owner elsewhere does not', async (t, stores) => {
  const { app, person } = await scene(t, stores)
  const [attacker, owner] = ['198.51.100.1', '203.0.113.9']
  const guesses = []
  for (let n = 0; n < 5; n++) guesses.push(await login(app, attacker, person.email, `guess ${n}`))
  const waiting = await login(app, attacker, person.email, person.password)
  t.equal(waiting.statusCode, 401, 'the right one, while it has to wait')
  const withoutId = (
    { statusCode, body, headers: { date, 'x-request-id': id, ratelimit, 'x-ratelimit-remaining': left, ...headers } }:
      typeof waiting
  ) => ({ statusCode, headers, body: body.replace(/"request_id":"[^"]*"/, '') })
  t.strictSame(withoutId(waiting), withoutId(guesses[0]!), 'and the answer is that of a wrong one')
  t.equal((await login(app, owner, person.email, person.password)).statusCode, 200, 'at another address')
  await pass(app, 1.5)
  t.equal((await login(app, attacker, person.email.toUpperCase(), 'guess 5')).statusCode, 401)
  await pass(app, 1.5)
  t.equal(
    (await login(app, attacker, person.email, person.password)).statusCode,
    401,
    'after the sixth it is two seconds'
  )
  await pass(app, 1)
  t.equal(
    (await login(app, attacker, person.email, person.password)).statusCode,
    200,
    'what was tried while waiting made it no longer'
  )
  t.equal((await login(app, attacker, person.email, 'guess')).statusCode, 401)
  t.equal((await login(app, attacker, person.email, person.password)).statusCode, 200, 'and the count starts again')
})

t.test('the wait doubles up to a quarter of an hour, to a minute where the owner has been, and after a quiet hour the count starts again', async t => {
  const { app } = await scene(t)
  const attempts = createLoginThrottle(app.database)
  const unknown = { account: 'a@example.com', address: '198.51.100.1', isKnownAddress: false }
  const known = { ...unknown, isKnownAddress: true }
  const pairKey = hash('pair:198.51.100.1:a@example.com')
  t.equal(await attempts.begin(unknown), true)
  await attempts.fail(unknown)
  for (
    const [attempt, failures, waited, mayTry] of [
      [unknown, 4, 0, true],
      [unknown, 5, 0.5, false],
      [unknown, 5, 1.5, true],
      [unknown, 6, 1.5, false],
      [unknown, 6, 2.5, true],
      [unknown, 9, 15, false],
      [unknown, 9, 17, true],
      [unknown, 15, 890, false],
      [unknown, 15, 910, true],
      [unknown, 40, 890, false],
      [unknown, 40, 905, true],
      [unknown, 1_000_000, 890, false],
      [unknown, 1_000_000, 905, true],
      [known, 1_000_000, 55, false],
      [known, 1_000_000, 65, true],
      [known, 4, 0, true]
    ] as const
  ) {
    await app.pg.query(
      "update login_attempts set failures = $1, running = 0, last_at = now() - $2 * interval '1 second' where key = $3",
      [failures, waited, pairKey]
    )
    t.equal(await attempts.begin(attempt), mayTry, `${failures} failures, the last one ${waited} s ago`)
    if (mayTry) await attempts.withdraw(attempt)
  }
  await app.pg.query("update login_attempts set failures = 1000, last_at = now() - interval '61 minutes'")
  t.equal(await attempts.begin(known), true)
  await attempts.fail(known)
  t.match((await app.pg.query('select failures, running from login_attempts where key = $1', [pairKey])).rows, [{
    failures: 1,
    running: 0
  }])
})

const hash = (text: string): string => createHash('sha256').update(text).digest('base64url')

onEachStore(t, 'a hundred guesses at once are five, and one more for each wait that is over', async (t, stores) => {
  const { app, person, compared } = await scene(t, stores)
  app.services.passwords.requireRoom = () => {}
  const { verify } = app.services.passwords
  app.services.passwords.verify = async (password, stored) =>
    stored === undefined ? false : await verify(password, stored)
  const startedAt = performance.now()
  const answers = await Promise.all(
    Array.from({ length: 100 }, (_, n) => login(app, '198.51.100.1', person.email, `guess ${n}`))
  )
  const seconds = (performance.now() - startedAt) / 1000
  // A login that finds five running tries again for a second, and then is refused.
  t.ok(answers.every(({ statusCode }) => statusCode === 401 || statusCode === 503))
  // The first wait takes a second: on a busy machine more of them are over.
  t.ok(compared() >= 5 && compared() <= 10 + seconds, `${compared()} were verified in ${seconds} s`)
})

onEachStore(t, 'many logins at once with the right password are all right', async (t, stores) => {
  const { app, person } = await scene(t, stores)
  app.services.passwords.requireRoom = () => {}
  const answers = await Promise.all(
    Array.from({ length: 8 }, () => login(app, '203.0.113.9', person.email, person.password))
  )
  t.strictSame(answers.map(answer => answer.statusCode), Array(8).fill(200))
  const { rows } = await app.pg.query<{ failures: number, running: number }>(
    'select failures, running from login_attempts where running > 0 or failures > 8'
  )
  t.strictSame(rows, [], 'and nothing is left of it')
  await app.pg.query('update login_attempts set running = 5')
  t.equal(
    (await login(app, '203.0.113.9', person.email, person.password)).statusCode,
    503,
    'while too many run it is not known whether it may'
  )
  await app.pg.query("update login_attempts set running = 5, running_at = now() - interval '11 seconds'")
  t.equal(
    (await login(app, '203.0.113.9', person.email, person.password)).statusCode,
    200,
    'those of a process that died are forgotten'
  )
})

onEachStore(
  t,
  'a crowd cannot lock the owner out: not at all in a network where they were before, and elsewhere chance decides',
  async (t, stores) => {
    const { app, person, compared } = await scene(t, stores)
    const home = '2001:db8:1:2::7'
    t.equal((await login(app, home, person.email, person.password)).statusCode, 200)
    await app.pg.query('delete from sessions')
    for (let n = 0; n < 60; n++) await login(app, `2001:db8:${(n + 100).toString(16)}::1`, person.email, 'guess')
    t.ok(compared() < 55, `${compared() - 1} of 60 guesses were looked at`)
    t.equal(
      (await login(app, '2001:db8:1:2:ffff::8', person.email, person.password)).statusCode,
      200,
      'at home, at another address of its network, and after a logout'
    )
    const rolls: number[] = []
    const lucky = createLoginThrottle(app.database, { chance: () => rolls.push(0) && 0 })
    const unlucky = createLoginThrottle(app.database, { chance: () => 0.999 })
    const road = { account: comparisonKey(person.email), address: '192.0.2.1', isKnownAddress: false }
    t.equal(await unlucky.begin(road), false)
    t.equal(await lucky.begin(road), true)
    t.equal(rolls.length, 1)
    await pass(app, 61)
    t.equal(
      await unlucky.begin({ ...road, address: '192.0.2.2' }),
      true,
      'a minute after the crowd has gone nothing is left to chance'
    )
  }
)

t.test('an address that fails at many accounts is told to wait, but for those who were there before', async t => {
  const { app, person } = await scene(t)
  const address = '198.51.100.77'
  t.equal((await login(app, address, person.email, person.password)).statusCode, 200)
  for (let n = 0; n < 50; n++) {
    t.equal((await login(app, address, `nobody${n}@example.com`, 'password123')).statusCode, 401)
  }
  const refused = await login(app, address, 'nobody@example.com', 'password123')
  hasProblem(t, refused, 'rate_limit_exceeded', {
    message: /^Too many passwords were wrong at this address; try again in 1 s$/
  })
  t.equal((await login(app, address, person.email, person.password)).statusCode, 200, 'whose address it is')
  t.equal((await login(app, '198.51.100.78', 'nobody@example.com', 'password123')).statusCode, 401, 'another address')
  await pass(app, 2)
  t.equal((await login(app, address, 'nobody@example.com', 'password123')).statusCode, 401)
})

t.test('an email of nobody has the same waits and the same answers', async t => {
  const { app } = await scene(t)
  const bodies = new Set<string>()
  for (let n = 0; n < 8; n++) {
    const answer = await login(app, '198.51.100.1', 'nobody@example.com', 'guess')
    t.equal(answer.statusCode, 401)
    bodies.add(answer.body.replace(/"request_id":"[^"]*"/, ''))
  }
  t.equal(bodies.size, 1)
  const { rows } = await app.pg.query<{ key: string, failures: number }>(
    'select key, failures from login_attempts order by failures'
  )
  t.match(rows, [{ failures: 5 }, { failures: 5 }, { failures: 5 }], 'of the pair, the address and the account')
  t.notOk(JSON.stringify(rows).includes('nobody'))
})

t.test('a try that no thread had time for costs nothing', async t => {
  const { app, person } = await scene(t)
  const { verify } = app.services.passwords
  app.services.passwords.verify = async () => {
    throw Object.assign(new (await import('../../services/shared/errors.ts')).ApiError('server_busy'))
  }
  for (let n = 0; n < 10; n++) {
    t.equal((await login(app, '198.51.100.1', person.email, person.password)).statusCode, 503)
  }
  app.services.passwords.verify = verify
  t.equal((await login(app, '198.51.100.1', person.email, person.password)).statusCode, 200)
})

t.test('the password of who is logged in is guarded in the same way', async t => {
  const { app, person } = await scene(t)
  const client = createClient(app, '198.51.100.1')
  const { token } = await client.login(person.email, person.password)
  for (let n = 0; n < 5; n++) {
    t.equal(
      (await client.send('POST', 'password', {
        token,
        payload: { current_password: `guess ${n}`, new_password: 'a new password' }
      })).statusCode,
      403
    )
  }
  t.equal((await client.send('DELETE', 'me', { token, payload: { password: person.password } })).statusCode, 403)
  await pass(app, 2)
  t.equal((await client.send('DELETE', 'me', { token, payload: { password: person.password } })).statusCode, 204)
})

t.test('the account of a failed login is in the log as a keyed hash: another secret, another hash', async t => {
  const hashes: string[] = []
  for (const secret of ['a'.repeat(32), 'b'.repeat(32), 'b'.repeat(32)]) {
    const app = await createApp(t, { stores: anyStores(), env: { JWT_SECRET_KEY: secret } })
    const from = logLines.length
    t.equal((await login(app, '203.0.113.5', 'Nobody@Halo.example', 'guess')).statusCode, 401)
    const line = logLines.slice(from).find(one => one.includes('"audit":"login_failed"'))
    hashes.push((JSON.parse(line!) as { account: string }).account)
  }
  t.not(hashes[0], hashes[1])
  t.equal(hashes[1], hashes[2])
})

t.test('a login or a registration that would wait too long for a password thread is refused before anything is read or written', async t => {
  const app = await createApp(t, { stores: anyStores(), env: {} })
  app.services.passwords.requireRoom = () => {
    throw new ApiError('server_busy')
  }
  let queries = 0
  app.database.query = async () => {
    queries++
    return []
  }
  t.equal((await login(app, '203.0.113.5', 'nobody@halo.example', 'guess')).statusCode, 503)
  t.equal((await app.inject({ method: 'POST', url: '/api/v1/auth/register', payload: randomUser() })).statusCode, 503)
  t.equal(queries, 0)
})

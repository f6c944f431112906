import { createHash } from 'node:crypto'
import t from 'tap'
import { createLoginAttempts } from '../../services/login-attempts.ts'
import { createApp, randomUser, signUp, type App } from '../helpers/app.ts'
import { createClient } from '../helpers/sessions.ts'
import { anyStores, onEachStore } from '../helpers/stores.ts'

const login = (app: App, address: string, email: string, password: string) =>
  createClient(app, address).send('POST', 'login', { payload: { email, password } })

/** Lets time pass for the waits, in seconds. */
const pass = (app: App, seconds: number) =>
  app.pg.query("update login_attempts set last_at = last_at - $1 * interval '1 second'", [seconds])

async function scene (t: Parameters<typeof createApp>[0], stores = anyStores()) {
  const app = await createApp(t, { stores })
  const person = randomUser()
  await signUp(app, person)
  // Where the account was made does not count as known here.
  await app.pg.query('delete from sessions')
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
  const withoutId = ({ statusCode, body, headers: { date, 'x-request-id': id, ...headers } }: typeof waiting) => ({ statusCode, headers, body: body.replace(/"request_id":"[^"]*"/, '') })
  t.strictSame(withoutId(waiting), withoutId(guesses[0]!), 'and the answer is that of a wrong one')
  t.equal((await login(app, owner, person.email, person.password)).statusCode, 200, 'at another address')
  await pass(app, 1.5)
  t.equal((await login(app, attacker, person.email.toUpperCase(), 'guess 5')).statusCode, 401)
  await pass(app, 1.5)
  t.equal((await login(app, attacker, person.email, person.password)).statusCode, 401, 'after the sixth it is two seconds')
  await pass(app, 1)
  t.equal((await login(app, attacker, person.email, person.password)).statusCode, 200, 'what was tried while waiting made it no longer')
  t.equal((await login(app, attacker, person.email, 'guess')).statusCode, 401)
  t.equal((await login(app, attacker, person.email, person.password)).statusCode, 200, 'and it begins anew')
})

t.test('the wait doubles up to a quarter of an hour, for an account as a whole up to half a minute, and after a quiet hour it begins anew', async t => {
  const { app } = await scene(t)
  const attempts = createLoginAttempts(app.database)
  const pair = { account: 'a@example.com', address: '198.51.100.1', isKnownAddress: true }
  const set = (failures: number, waited: number, where = 'true') =>
    app.pg.query(`update login_attempts set failures = $1, last_at = now() - $2 * interval '1 second' where ${where}`, [failures, waited])
  t.equal(await attempts.begin(pair), true)
  for (const [failures, waited, mayTry] of [
    [4, 0, true], [5, 0.5, false], [5, 1.1, true], [6, 1.5, false], [6, 2.1, true], [9, 15, false], [9, 17, true],
    [15, 890, false], [15, 910, true], [40, 890, false], [40, 901, true], [1_000_000, 890, false], [1_000_000, 901, true]
  ] as const) {
    await set(failures, waited)
    t.equal(await attempts.begin(pair), mayTry, `${failures} failures, the last one ${waited} s ago`)
  }
  await set(1000, 3601)
  t.equal(await attempts.begin(pair), true)
  t.match((await app.pg.query('select failures from login_attempts')).rows, [{ failures: 1 }])

  const elsewhere = { ...pair, isKnownAddress: false }
  t.equal(await attempts.begin(elsewhere), true)
  for (const [failures, waited, mayTry] of [[19, 0, true], [20, 0.5, false], [20, 1.1, true], [25, 1.5, false], [25, 2.1, true], [100, 29, false], [1_000_000, 31, true]] as const) {
    await app.pg.query('delete from login_attempts')
    await attempts.begin(elsewhere)
    await set(failures, waited, `key <> '${pairKey(pair)}'`)
    t.equal(await attempts.begin(elsewhere), mayTry, `${failures} failures at the account, the last one ${waited} s ago`)
    const { rows } = await app.pg.query<{ failures: number }>('select failures from login_attempts where key = $1', [pairKey(pair)])
    t.equal(rows[0]!.failures, mayTry ? 2 : 1, 'what is not tried is not counted')
  }
})

const pairKey = ({ account, address }: { account: string, address: string }): string =>
  createHash('sha256').update(`pair:${address}:${account}`).digest('base64url')

onEachStore(t, 'a hundred guesses at once are five', async (t, stores) => {
  const { app, person, compared } = await scene(t, stores)
  app.services.passwords.requireRoom = () => {}
  const { verify } = app.services.passwords
  app.services.passwords.verify = async (password, stored) => stored === undefined ? false : await verify(password, stored)
  const answers = await Promise.all(Array.from({ length: 100 }, (_, n) => login(app, '198.51.100.1', person.email, `guess ${n}`)))
  t.strictSame([...new Set(answers.map(answer => answer.statusCode))], [401])
  t.equal(compared(), 5)
})

onEachStore(t, 'a crowd cannot lock the owner out: not at all where they were before, and elsewhere for seconds', async (t, stores) => {
  const { app, person, compared } = await scene(t, stores)
  const home = '203.0.113.9'
  t.equal((await login(app, home, person.email, person.password)).statusCode, 200)
  for (let n = 0; n < 40; n++) await login(app, `198.51.100.${n}`, person.email, 'guess')
  t.ok(compared() < 25, `${compared() - 1} of 40 guesses were looked at`)
  t.equal((await login(app, home, person.email, person.password)).statusCode, 200, 'at home')
  t.equal((await login(app, '192.0.2.1', person.email, person.password)).statusCode, 401, 'on the road')
  await app.pg.query('update login_attempts set failures = 100000 where failures >= 20')
  await pass(app, 31)
  t.equal((await login(app, '192.0.2.1', person.email, person.password)).statusCode, 200, 'half a minute later, however many have tried')
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
  const { rows } = await app.pg.query<{ key: string, failures: number }>('select key, failures from login_attempts order by failures')
  t.match(rows, [{ failures: 5 }, { failures: 5 }], 'of the address and of the account')
  t.notOk(JSON.stringify(rows).includes('nobody'))
})

t.test('a try that no thread had time for costs nothing', async t => {
  const { app, person } = await scene(t)
  const { verify } = app.services.passwords
  app.services.passwords.verify = async () => { throw Object.assign(new (await import('../../services/errors.ts')).ApiError('server_busy')) }
  for (let n = 0; n < 10; n++) t.equal((await login(app, '198.51.100.1', person.email, person.password)).statusCode, 503)
  app.services.passwords.verify = verify
  t.equal((await login(app, '198.51.100.1', person.email, person.password)).statusCode, 200)
})

t.test('the password of who is logged in is guarded in the same way', async t => {
  const { app, person } = await scene(t)
  const client = createClient(app, '198.51.100.1')
  const { token } = await client.login(person.email, person.password)
  for (let n = 0; n < 5; n++) t.equal((await client.send('POST', 'password', { token, payload: { current_password: `guess ${n}`, new_password: 'a new password' } })).statusCode, 403)
  t.equal((await client.send('DELETE', 'me', { token, payload: { password: person.password } })).statusCode, 403)
  await pass(app, 2)
  t.equal((await client.send('DELETE', 'me', { token, payload: { password: person.password } })).statusCode, 204)
})

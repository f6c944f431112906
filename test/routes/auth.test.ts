import { createHmac } from 'node:crypto'
import bcrypt from 'bcryptjs'
import t from 'tap'
import { addVideo, createApp, randomUser, runSql, secret, signUp } from '../helpers/app.ts'
import { hasProblem } from '../helpers/problem.ts'
import { anyStores, onEachStore } from '../helpers/stores.ts'

interface SessionBody {
  token: string
  user: Record<string, unknown>
}

const timestamp = /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/

onEachStore(
  t,
  'register, with a new email and username, answers 201 with a token and the whole user',
  async (t, stores) => {
    const app = await createApp(t, { stores })
    const person = { ...randomUser(), is_adult: true }
    const response = await app.inject({ method: 'POST', url: '/api/v1/auth/register', payload: person })
    t.equal(response.statusCode, 201)
    const { token, user } = response.json<SessionBody>()
    const { id, created_at: created, updated_at: updated, ...rest } = user
    t.ok(Number.isInteger(id), 'ids are JSON integers')
    t.match(created, timestamp)
    t.match(updated, timestamp)
    t.strictSame(rest, {
      email: person.email,
      username: person.username,
      display_name: person.display_name,
      bio: '',
      avatar_url: '',
      is_adult: true,
      adult_mode: false
    }, 'shows every member of the contract and no hash')

    const claims = JSON.parse(Buffer.from(token.split('.')[1]!, 'base64url').toString()) as Record<string, number>
    t.match(claims, { user_id: id, email: person.email, username: person.username })
    t.equal(claims['exp']! - claims['iat']!, 24 * 3600, 'a token is valid for 24 h')
    t.ok(claims['nbf']! <= claims['iat']!, 'and from now on')
  }
)

onEachStore(t, 'register, with an email or username taken in another letter case, answers 409', async (t, stores) => {
  const app = await createApp(t, { stores })
  const taken = randomUser()
  await signUp(app, taken)
  for (
    const overrides of [
      { email: taken.email },
      { email: taken.email.toUpperCase() },
      { username: taken.username },
      { username: taken.username.toUpperCase() },
      { username: taken.username.replace('user', 'ｕｓｅｒ') }
    ]
  ) {
    const response = await app.inject({
      method: 'POST',
      url: '/api/v1/auth/register',
      payload: { ...randomUser(), ...overrides }
    })
    hasProblem(t, response, 'user_exists', {}, JSON.stringify(overrides))
  }
})

onEachStore(t, 'register, with fifty identical requests at once, leaves one user', async (t, stores) => {
  const app = await createApp(t, { stores })
  app.services.passwords.hash = async () => 'not hashed: the queue is not under test'
  const person = randomUser()
  const answers = await Promise.all(
    Array.from({ length: 50 }, () => app.inject({ method: 'POST', url: '/api/v1/auth/register', payload: person }))
  )
  const statuses = answers.map(answer => answer.statusCode)
  t.equal(statuses.filter(status => status === 201).length, 1)
  // The queue of the password hashes refuses some when the machine is busy.
  t.ok(statuses.every(status => [201, 409, 503].includes(status)) && statuses.includes(409), String(statuses))
  const { rows } = await app.pg.query('select id from users')
  t.equal(rows.length, 1)
})

onEachStore(t, 'login, with the right password, answers 200 with a token that works', async (t, stores) => {
  const app = await createApp(t, { stores })
  const person = randomUser()
  const { user } = await signUp(app, person)
  for (const email of [person.email, person.email.toUpperCase()]) {
    const response = await app.inject({
      method: 'POST',
      url: '/api/v1/auth/login',
      payload: { email, password: person.password }
    })
    t.equal(response.statusCode, 200)
    const body = response.json<SessionBody>()
    t.strictSame(body.user, user)
    const me = await app.inject({ url: '/api/v1/auth/me', headers: { authorization: `Bearer ${body.token}` } })
    t.equal(me.statusCode, 200)
    t.strictSame(me.json(), user)
  }
})

onEachStore(t, 'login, with a wrong password and with an unknown email, gives the same answer', async (t, stores) => {
  const app = await createApp(t, { stores })
  const person = randomUser()
  await signUp(app, person)
  const wrong = await app.inject({
    method: 'POST',
    url: '/api/v1/auth/login',
    payload: { email: person.email, password: 'wrong' }
  })
  const unknown = await app.inject({
    method: 'POST',
    url: '/api/v1/auth/login',
    payload: { email: 'nobody@example.com', password: 'wrong' }
  })
  hasProblem(t, wrong, 'invalid_credentials')
  hasProblem(t, unknown, 'invalid_credentials')
})

t.test('login, of a user whom the Go service registered, takes the plain bcrypt hash', async t => {
  const app = await createApp(t, { stores: anyStores() })
  await app.pg.query(
    'insert into users (email, username, password_hash, display_name) values ($1, $2, $3, $4)',
    ['Old@Example.com', 'old', bcrypt.hashSync('a password from Go', 10).replace('$2b$', '$2a$'), 'Old']
  )
  const response = await app.inject({
    method: 'POST',
    url: '/api/v1/auth/login',
    payload: { email: 'old@example.com', password: 'a password from Go' }
  })
  t.equal(response.statusCode, 200)
})

onEachStore(t, 'the own profile, of a user who was deleted, answers 401', async (t, stores) => {
  const app = await createApp(t, { stores })
  const { user, authorization } = await signUp(app)
  await app.pg.query('delete from users where id = $1', [user.id])
  hasProblem(t, await app.inject({ url: '/api/v1/auth/me', headers: authorization }), 'unauthorized', {
    message: 'The user of this token no longer exists'
  })
})

t.test('a protected route, with anything but one valid token, answers 401', async t => {
  const app = await createApp(t, { stores: anyStores() })
  const { token, user } = await signUp(app)
  const videoId = await addVideo(app, user.id)
  const part = (value: unknown) => Buffer.from(JSON.stringify(value)).toString('base64url')
  const sign = (header: object, payload: object, key = secret) => {
    const body = `${part(header)}.${part(payload)}`
    return `${body}.${createHmac('sha256', key).update(body).digest('base64url')}`
  }
  const now = Math.floor(Date.now() / 1000)
  const claims = { user_id: user.id, email: user.email, username: user.username, iat: now, nbf: now, exp: now + 60 }
  const header = { alg: 'HS256', typ: 'JWT' }
  const accepted = (authorization: string) => app.inject({ url: '/api/v1/auth/me', headers: { authorization } })

  t.equal((await accepted(`Bearer ${token}`)).statusCode, 200, 'the control')
  t.equal((await accepted(`bearer ${token}`)).statusCode, 200, 'the scheme has no letter case (RFC 9110 §11.1)')
  t.equal(
    (await accepted(`Bearer ${sign(header, claims)}`)).statusCode,
    200,
    'a token of the Go service: the same secret and claims'
  )

  const [head, body, signature] = token.split('.') as [string, string, string]
  for (
    const [name, authorization] of Object.entries({
      'another key': `Bearer ${sign(header, claims, 'another key that is long enough to be one')}`,
      expired: `Bearer ${sign(header, { ...claims, exp: now - 1 })}`,
      'not valid yet': `Bearer ${sign(header, { ...claims, nbf: now + 3600 })}`,
      'no expiry': `Bearer ${sign(header, { ...claims, exp: undefined })}`,
      'no user': `Bearer ${sign(header, { ...claims, user_id: undefined })}`,
      'a user id that is text': `Bearer ${sign(header, { ...claims, user_id: String(user.id) })}`,
      'alg none': `Bearer ${part({ alg: 'none' })}.${body}.`,
      'another algorithm': `Bearer ${part({ alg: 'HS512', typ: 'JWT' })}.${body}.${signature}`,
      'no signature': `Bearer ${head}.${body}.`,
      'two parts': `Bearer ${head}.${body}`,
      'a bent signature': `Bearer ${head}.${body}.${signature.slice(0, -2)}AA`,
      'two tokens': `Bearer ${token} ${token}`,
      'two tokens with a comma': `Bearer ${token}, Bearer ${token}`,
      'another scheme': `Basic ${token}`,
      'a scheme alone': 'Bearer',
      'a scheme and a space': 'Bearer ',
      'a token alone': token,
      nothing: ''
    })
  ) {
    const answer = await app.inject({ url: '/api/v1/auth/me', headers: { authorization } })
    hasProblem(t, answer, 'unauthorized', { message: /./ }, name)
    const like = await app.inject({
      method: 'POST',
      url: `/api/v1/videos/${videoId}/engagement/likes`,
      headers: { authorization }
    })
    t.equal(like.statusCode, 401, `${name}, for a like`)
  }
  hasProblem(t, await app.inject('/api/v1/auth/me'), 'unauthorized', {}, 'no header')
})

t.test('register, when the password queue is full, answers 503 and writes nothing', async t => {
  const app = await createApp(t, { stores: anyStores(), env: { PASSWORD_COST: '12' } })
  const answers = await Promise.all(
    Array.from(
      { length: 40 },
      () => app.inject({ method: 'POST', url: '/api/v1/auth/register', payload: randomUser() })
    )
  )
  const refused = answers.filter(answer => answer.statusCode === 503)
  const accepted = answers.filter(answer => answer.statusCode === 201)
  t.equal(refused.length + accepted.length, 40, 'everyone has an answer')
  t.ok(refused.length > 0 && accepted.length > 0, `${refused.length} refused, ${accepted.length} accepted`)
  hasProblem(t, refused[0]!, 'server_busy')
  const { rows: [row] } = await app.pg.query<{ count: number }>('select count(*) from users')
  t.equal(row!.count, accepted.length)
})

t.test('a hash, with a row that holds one, is in no answer', async t => {
  const app = await createApp(t, { stores: anyStores() })
  const person = randomUser()
  const { authorization } = await signUp(app, person)
  await runSql(
    app.pg.pool.options.connectionString!,
    "alter table users add column internal_note text default 'never shown'"
  )
  const login = await app.inject({ method: 'POST', url: '/api/v1/auth/login', payload: person })
  const me = await app.inject({ url: '/api/v1/auth/me', headers: authorization })
  for (const { body } of [login, me]) t.notMatch(body, /\$2[aby]\$|password|never shown|email_key/)
})

import bcrypt from 'bcryptjs'
import t from 'tap'
import { addVideo, createApp, createDatabase, logLines, randomUser, signUp, type App } from '../helpers/app.ts'
import { hasProblem } from '../helpers/problem.ts'
import { createClient, type Tokens } from '../helpers/sessions.ts'
import { anyStores, onEachStore } from '../helpers/stores.ts'
import { until } from '../helpers/until.ts'

async function registered (app: App, overrides: Record<string, unknown> = {}) {
  const person = { ...randomUser(), ...overrides }
  const client = createClient(app)
  const answer = await client.send('POST', 'register', { payload: person })
  if (answer.statusCode !== 201) throw new Error(answer.body)
  return { person, client, tokens: answer.json<Tokens>(), token: answer.json<Tokens>().token }
}

const hashOf = async (app: App, id: number): Promise<string> =>
  (await app.pg.query<{ password_hash: string }>('select password_hash from users where id = $1', [id])).rows[0]!
    .password_hash

onEachStore(
  t,
  'the own profile, changed: what is named changes, exactly as sent, and nothing else',
  async (t, stores) => {
    const app = await createApp(t, { stores })
    const { client, tokens, token } = await registered(app)
    const patch = (payload: object) => client.send('PATCH', 'me', { token, payload })
    const bio = ' Streams — on Fridays 🎬\n  '
    const answer = await patch({ bio, avatar_url: 'https://cdn.example/a.webp' })
    t.equal(answer.statusCode, 200)
    const { updated_at: updatedAt, ...rest } = answer.json<Record<string, unknown>>()
    const { updated_at: before, ...unchanged } = tokens.user
    t.strictSame(rest, { ...unchanged, bio, avatar_url: 'https://cdn.example/a.webp' })
    t.ok((updatedAt as string) > (before as string))
    t.match((await patch({ display_name: 'Ä', avatar_url: '' })).json(), { display_name: 'Ä', avatar_url: '', bio })
    t.match(
      (await app.inject(`/api/v1/users/${tokens.user.id}`)).json(),
      { display_name: 'Ä', bio },
      'as everybody sees it'
    )
    const two = await Promise.all([patch({ bio: 'one' }), patch({ display_name: 'Two' })])
    t.ok(two.every(({ statusCode }) => statusCode === 200))
    t.match(
      (await client.send('GET', 'me', { token })).json(),
      { bio: 'one', display_name: 'Two' },
      'two at once both stay'
    )

    for (
      const [payload, name] of [
        [{}, ''],
        [{ email: 'other@example.com' }, 'email'],
        [{ id: 1 }, 'id'],
        [{ password_hash: 'x' }, 'password_hash'],
        [{ display_name: '' }, 'display_name'],
        [{ display_name: '   ' }, 'display_name'],
        [{ display_name: 'x'.repeat(51) }, 'display_name'],
        [{ bio: 'x'.repeat(1001) }, 'bio'],
        [{ bio: 'a\0b' }, 'bio'],
        [{ bio: '\ud800' }, 'bio'],
        [{ avatar_url: 'javascript:alert(1)' }, 'avatar_url'],
        [{ avatar_url: `https://x.example/${'y'.repeat(10_000)}` }, 'avatar_url'],
        [{ is_adult: 'true' }, 'is_adult'],
        [{ adult_mode: 1 }, 'adult_mode'],
        [{ bio: 7 }, 'bio']
      ] as const
    ) {
      hasProblem(t, await patch(payload), 'invalid_request', {
        message: /./,
        violations: [{ in: 'body', pointer: name === '' ? '' : `/${name}` }]
      }, JSON.stringify(payload).slice(0, 50))
    }
    t.equal((await app.inject({ method: 'PATCH', url: '/api/v1/auth/me', payload: { bio: 'x' } })).statusCode, 401)
  }
)

onEachStore(
  t,
  'adult mode is for adults, and has its effect at once here and within a second elsewhere',
  async (t, stores) => {
    const databaseUrl = await createDatabase(t, stores)
    const options = { stores, databaseUrl, redisUrl: stores.redisUrl }
    const [app, there] = [await createApp(t, options), await createApp(t, options)]
    const { client, token } = await registered(app)
    const patch = (payload: object) => client.send('PATCH', 'me', { token, payload })
    const owner = await signUp(app)
    const id = await addVideo(app, owner.user.id, { is_adult_content: true })
    const status = async (at: App) =>
      (await at.inject({ url: `/api/v1/videos/${id}`, headers: { authorization: `Bearer ${token}` } })).statusCode
    t.strictSame([await status(app), await status(there)], [403, 403])
    hasProblem(t, await patch({ adult_mode: true }), 'not_an_adult')
    hasProblem(t, await patch({ adult_mode: true, is_adult: false }), 'not_an_adult')
    t.match(
      (await client.send('GET', 'me', { token })).json(),
      { is_adult: false, adult_mode: false },
      'nothing is half changed'
    )
    t.match((await patch({ adult_mode: true, is_adult: true })).json(), { is_adult: true, adult_mode: true })
    t.equal(await status(app), 200)
    await new Promise(resolve => setTimeout(resolve, 1000))
    t.equal(await status(there), 200)
    t.match(
      (await patch({ is_adult: false })).json(),
      { is_adult: false, adult_mode: false },
      'who is no adult has no adult mode'
    )
    t.equal(await status(app), 403)
    t.match((await patch({ is_adult: true })).json(), { is_adult: true, adult_mode: false })
    t.match((await patch({ adult_mode: true })).json(), { adult_mode: true })
    t.match((await patch({ adult_mode: false })).json(), { is_adult: true, adult_mode: false })
  }
)

onEachStore(t, 'a new password takes the old one, and ends all other sessions', async (t, stores) => {
  const app = await createApp(t, { stores })
  const { person, client, tokens, token } = await registered(app)
  const other = await client.login(person.email, person.password)
  const from = logLines.length
  const change = (current: string, next: string) =>
    client.send('POST', 'password', { token, payload: { current_password: current, new_password: next } })
  hasProblem(t, await change('not it', 'a new password'), 'wrong_password')
  hasProblem(t, await change(person.password, 'short'), 'invalid_request', { message: /new_password/ })
  t.equal(await client.statusOf(other.token), 200, 'nothing has changed')
  t.equal((await change(person.password, 'a new password')).statusCode, 204)
  t.equal(await client.statusOf(token), 200, 'this session goes on')
  t.equal(await client.statusOf(other.token), 401)
  t.equal((await client.refresh(other.refresh_token)).statusCode, 401)
  t.equal((await client.refresh(tokens.refresh_token)).statusCode, 200)
  t.equal((await client.send('POST', 'login', { payload: person })).statusCode, 401)
  t.ok(await client.login(person.email, 'a new password'))
  const lines = logLines.slice(from).filter(line => line.includes('"audit":'))
  for (const event of ['password_change_failed', 'password_changed']) {
    t.equal(lines.filter(line => line.includes(`"audit":"${event}"`) && line.includes('"userId"')).length, 1, event)
  }

  const both = await Promise.all(['first one', 'second one'].map(next => change('a new password', next)))
  t.strictSame(both.map(answer => answer.statusCode).sort(), [204, 403], 'of two at once one is too late')
})

onEachStore(t, 'an account, deleted, takes its videos, likes and sessions with it', async (t, stores) => {
  const app = await createApp(t, { stores, counterTimes: { collectGapMs: 50 } })
  const { person, client, tokens, token } = await registered(app)
  const other = await signUp(app)
  const own = await addVideo(app, tokens.user.id)
  const others = await addVideo(app, other.user.id)
  await app.inject({
    method: 'POST',
    url: `/api/v1/videos/${others}/engagement/likes`,
    headers: { authorization: `Bearer ${token}` }
  })
  await app.counters.flusher.flush({ isForced: true })
  const remove = (payload: object) => client.send('DELETE', 'me', { token, payload })
  for (const payload of [{}, { password: 1 }, { password: '' }]) t.equal((await remove(payload)).statusCode, 400)
  t.equal((await client.send('DELETE', 'me', { token })).statusCode, 400)
  hasProblem(t, await remove({ password: 'not it' }), 'wrong_password')
  t.equal(await client.statusOf(token), 200)
  const answer = await remove({ password: person.password })
  t.strictSame([answer.statusCode, answer.body], [204, ''])
  t.equal(await client.statusOf(token), 401)
  t.equal((await client.refresh(tokens.refresh_token)).statusCode, 401)
  t.equal((await client.send('POST', 'login', { payload: person })).statusCode, 401)
  t.equal((await app.inject(`/api/v1/users/${tokens.user.id}`)).statusCode, 404)
  await app.services.accountPurge.run()
  for (
    const [table, column] of [['videos', 'user_id'], ['sessions', 'user_id'], ['video_likes', 'user_id'], [
      'users',
      'id'
    ]] as const
  ) {
    t.equal((await app.pg.query(`select from ${table} where ${column} = $1`, [tokens.user.id])).rows.length, 0, table)
  }
  await until(
    'the like is gone',
    async () =>
      (await app.inject(`/api/v1/videos/${others}/engagement`)).json<{ like_count: number }>().like_count === 0
  )
  t.equal((await app.inject(`/api/v1/videos/${own}`)).statusCode, 404)
  t.equal((await client.send('POST', 'register', { payload: person })).statusCode, 201, 'the name is free again')
})

t.test('an account with very many videos and likes is deleted all the same', async t => {
  const app = await createApp(t, { stores: anyStores() })
  const { person, client, tokens, token } = await registered(app)
  const other = await signUp(app)
  await app.backgroundPool.query({
    text: "insert into videos (user_id, title) select $1, 'x' from generate_series(1, 4000)",
    values: [tokens.user.id]
  })
  await app.backgroundPool.query({
    text: "insert into videos (user_id, title) select $1, 'x' from generate_series(1, 4000)",
    values: [other.user.id]
  })
  await app.backgroundPool.query(
    'insert into video_likes (video_id, user_id, liked, generation, version) select id, $1, true, 1, 1 from videos where user_id = $2',
    [tokens.user.id, other.user.id]
  )
  // Each statement that a request waits for may take half a second.
  t.equal((await client.send('DELETE', 'me', { token, payload: { password: person.password } })).statusCode, 204)
  await app.services.accountPurge.run()
  const { rows } = await app.pg.query<{ count: number }>('select count(*) from videos where user_id = $1', [
    tokens.user.id
  ])
  t.equal(rows[0]!.count, 0)
})

t.test('a login re-hashes a hash of the Go service or of another cost, and the password still works', async t => {
  const app = await createApp(t, { stores: anyStores(), env: { PASSWORD_COST: '5' } })
  const client = createClient(app)
  const long = 'x'.repeat(72)
  for (
    const [name, password, hash] of [
      ['go', 'a password from Go', bcrypt.hashSync('a password from Go', 4).replace('$2b$', '$2a$')],
      ['long', long, bcrypt.hashSync(long, 4)]
    ] as const
  ) {
    const { rows: [row] } = await app.pg.query<{ id: number }>(
      'insert into users (email, username, password_hash, display_name) values ($1, $2, $3, $2) returning id',
      [`${name}@example.com`, `user of ${name}`, hash]
    )
    t.ok(await client.login(`${name}@example.com`, password), name)
    for (let tries = 0; tries < 100 && (await hashOf(app, row!.id)) === hash; tries++) {
      await new Promise(resolve => setTimeout(resolve, 20))
    }
    t.match(await hashOf(app, row!.id), /^halo1\$[\w-]{8}\$\$2b\$05\$/)
    t.ok(await client.login(`${name}@example.com`, password), 'and after it')
  }
  t.equal(
    (await client.send('POST', 'login', { payload: { email: 'long@example.com', password: `${long}2` } })).statusCode,
    401,
    'from then on every byte counts'
  )

  // Go used only 72 bytes of a longer password: a login that mistypes the rest must not store the mistyped text.
  const { rows: [row] } = await app.pg.query<{ id: number }>(
    "insert into users (email, username, password_hash, display_name) values ('longer@example.com', 'longer', $1, 'x') returning id",
    [bcrypt.hashSync(`${long}right`, 4)]
  )
  const { token } = await client.login('longer@example.com', `${long}mistyped`)
  await new Promise(resolve => setTimeout(resolve, 200))
  t.match(await hashOf(app, row!.id), /^\$2b\$04/)
  t.ok(await client.login('longer@example.com', `${long}right`))
  const change = { current_password: `${long}right`, new_password: `${long}right` }
  t.equal((await client.send('POST', 'password', { token, payload: change })).statusCode, 204)
  t.equal(
    (await client.send('POST', 'login', { payload: { email: 'longer@example.com', password: `${long}mistyped` } }))
      .statusCode,
    401
  )
})

t.test('passwords of every kind log in as they were set, and in no other way', async t => {
  const app = await createApp(t, { stores: anyStores() })
  for (
    const password of [
      'correct horse battery',
      '12345678',
      '        ',
      'pässwörd',
      '密码密码密码密码',
      '🔑🔑🔑🔑🔑🔑🔑🔑',
      'x'.repeat(256),
      '$2b$10$abc',
      "' or 1=1 --",
      '\t\t\t\t\t\t\t\t'
    ]
  ) {
    const { person, client } = await registered(app, { password })
    t.ok(await client.login(person.email, password), JSON.stringify(password).slice(0, 20))
    t.equal(
      (await client.send('POST', 'login', { payload: { email: person.email, password: `${password.slice(0, -2)}Q` } }))
        .statusCode,
      401
    )
  }
  const client = createClient(app)
  for (
    const [name, password] of Object.entries({
      'of 7': '1234567',
      'of 257': 'x'.repeat(257),
      'with a NUL': 'correct\0horse',
      'half a pair': 'correct horse \ud83d',
      empty: ''
    })
  ) {
    hasProblem(
      t,
      await client.send('POST', 'register', { payload: { ...randomUser(), password } }),
      'invalid_request',
      { message: /password/ },
      name
    )
  }
  t.equal(
    (await client.send('POST', 'register', { payload: { ...randomUser(), password: 'x'.repeat(1_000_000) } }))
      .statusCode,
    413,
    'of a megabyte'
  )
  t.equal(
    (await client.send('POST', 'login', { payload: { email: 'a@example.com', password: 'x'.repeat(1_000_000) } }))
      .statusCode,
    413
  )
})

t.test('with a blocklist common passwords are refused at registration and at a change, and nowhere else', async t => {
  const stores = anyStores()
  const databaseUrl = await createDatabase(t, stores)
  const free = await registered(await createApp(t, { stores, databaseUrl, redisUrl: stores.redisUrl }), {
    password: 'password123'
  })
  const app = await createApp(t, {
    stores,
    databaseUrl,
    redisUrl: stores.redisUrl,
    env: { PASSWORD_BLOCKLIST: 'common' }
  })
  const client = createClient(app)
  hasProblem(
    t,
    await client.send('POST', 'register', { payload: { ...randomUser(), password: 'password123' } }),
    'password_too_common'
  )
  const person = randomUser()
  for (const password of [person.username, person.email]) {
    hasProblem(t, await client.send('POST', 'register', { payload: { ...person, password } }), 'password_too_common', {
      message: /username or the email/
    })
  }
  t.equal((await client.send('POST', 'register', { payload: person })).statusCode, 201, 'the control')
  const { token } = await client.login(free.person.email, 'password123')
  hasProblem(
    t,
    await client.send('POST', 'password', {
      token,
      payload: { current_password: 'password123', new_password: 'iloveyou1' }
    }),
    'password_too_common'
  )
  t.ok(await client.login(free.person.email, 'password123'), 'it is still the password')
})

t.test('usernames that would pass for another one are refused', async t => {
  const app = await createApp(t, { stores: anyStores() })
  const client = createClient(app)
  for (
    const [name, username] of Object.entries({
      'a Cyrillic letter in a Latin name': 'pаypal',
      'a Greek one': 'αdmin',
      'an Armenian one': 'օwner',
      'a zero width space': 'ad\u200bmin',
      'a direction': 'ad\u202emin',
      'a soft hyphen': 'ad\u00admin',
      'a NUL': 'ad\0min',
      'private use': 'ad\ue000min',
      'a variation selector': 'adm\ufe0fin',
      'a grapheme joiner': 'ad\u034fmin',
      'a Hangul filler': 'ro\u115fot',
      'a Braille blank': 'mo\u2800der',
      'a joiner in a Latin name': 'ad\u200cmin',
      'a joiner before a vowel sign': 'क\u094d\u200dी',
      'nothing to see': '\u3164\u3164\u3164',
      'a stack of marks': `ab${'\u0316'.repeat(13)}`,
      'two spaces': 'bob  smith',
      'signs alone': '---'
    })
  ) {
    hasProblem(
      t,
      await client.send('POST', 'register', { payload: { ...randomUser(), username } }),
      'invalid_request',
      { message: /^username/ },
      name
    )
  }
  for (const username of ['пользователь', 'χρήστης', '東京タワー', 'user東京', 'Jürgen 1', '이용자', 'مستخدم', 'نامه\u200cای', 'ක්\u200dෂමා', 'श्\u200dयाम', 'র\u200d্যাব']) {
    t.equal(
      (await client.send('POST', 'register', { payload: { ...randomUser(), username } })).statusCode,
      201,
      username
    )
  }
  for (
    const [one, other] of [['σοφοσ', 'ΣΟΦΟΣ'], ['σοφία', 'ΣΟΦΊΑ'], ['straße', 'STRASSE'], [
      'Ålesund',
      'a\u030alesund'
    ]] as const
  ) {
    t.equal(
      (await client.send('POST', 'register', { payload: { ...randomUser(), username: one } })).statusCode,
      201,
      one
    )
    hasProblem(
      t,
      await client.send('POST', 'register', { payload: { ...randomUser(), username: other } }),
      'user_exists',
      {},
      other
    )
  }
})

t.test('what a keyboard adds around an email or a username is removed, and costs no attempt', async t => {
  const app = await createApp(t, { stores: anyStores() })
  const client = createClient(app)
  const { email, username, password } = randomUser()
  const registered = await client.send('POST', 'register', {
    payload: { email: ` ${email}\u200b `, username: `\u00a0${username}\ufeff\n`, password, display_name: 'A Person' }
  })
  t.match(registered.json(), { user: { email, username } })
  hasProblem(
    t,
    await client.send('POST', 'register', { payload: { ...randomUser(), username: ` ${username}` } }),
    'user_exists'
  )
  for (let attempt = 0; attempt < 8; attempt++) {
    t.equal((await client.send('POST', 'login', { payload: { email: `\t${email}\u2060 `, password } })).statusCode, 200)
  }
  hasProblem(t, await client.send('POST', 'login', { payload: { email: ' \u200b', password } }), 'invalid_request', {
    message: 'email must not be empty'
  })
})

t.test('names that differ in a joiner alone are one name', async t => {
  const app = await createApp(t, { stores: anyStores() })
  const client = createClient(app)
  const payload = { ...randomUser(), username: 'می\u200cخواهم' }
  t.equal((await client.send('POST', 'register', { payload })).statusCode, 201)
  hasProblem(
    t,
    await client.send('POST', 'register', { payload: { ...randomUser(), username: 'میخواهم' } }),
    'user_exists'
  )
})

t.test('registration takes international addresses, and null for what may be left out', async t => {
  const app = await createApp(t, { stores: anyStores() })
  const client = createClient(app)
  for (const email of ['jörg@example.com', 'jorg@exämple.de', 'δοκιμή@παράδειγμα.δοκιμή', '用户@例子.广告']) {
    const payload = { ...randomUser(), email, is_adult: null }
    const answer = await client.send('POST', 'register', { payload })
    t.match(answer.json(), { user: { email, is_adult: false } })
    t.equal((await client.send('POST', 'login', { payload: { email, password: payload.password } })).statusCode, 200)
  }
  for (
    const email of ['jörg', 'jörg@', 'a@b@example.com', 'a b@example.com', 'a@-example.com', 'a@example', 'a@\u05d0a.com', 'a..b@example.com']
  ) {
    hasProblem(t, await client.send('POST', 'register', { payload: { ...randomUser(), email } }), 'invalid_request', {
      message: 'email must be an email address, such as name@example.com'
    }, email)
  }
  const { token } = await client.login('jörg@example.com', randomUser().password)
  const changed = await client.send('PATCH', 'me', { token, payload: { bio: 'Hello', display_name: null } })
  t.match(changed.json(), { bio: 'Hello', display_name: 'A Person' })
  hasProblem(t, await client.send('PATCH', 'me', { token, payload: { bio: null } }), 'invalid_request', {
    message: 'body must not be empty'
  })
})

t.test('validation errors are sentences for people', async t => {
  const app = await createApp(t, { stores: anyStores() })
  const client = createClient(app)
  const sentences: [change: Record<string, unknown>, message: string][] = [
    [{ password: 'short' }, 'password must have at least 8 characters'],
    [{ password: 'x'.repeat(300) }, 'password must have at most 256 characters'],
    [{ username: undefined }, 'username is missing'],
    [{ username: 7 }, 'username must be a text'],
    [{ display_name: '' }, 'display_name must not be empty'],
    [{ display_name: '\u200b' }, 'display_name has no visible character'],
    [{ is_adult: 'yes' }, 'is_adult must be true or false']
  ]
  for (const [change, message] of sentences) {
    hasProblem(t, await client.send('POST', 'register', { payload: { ...randomUser(), ...change } }), 'invalid_request', {
      message
    })
  }
  const page = (query: string) => app.inject(`/api/v1/videos?${query}`)
  hasProblem(t, await page('limit=0'), 'invalid_request', { message: 'limit must be 1 or more' })
  hasProblem(t, await page('limit=101'), 'invalid_request', { message: 'limit must be 100 or less' })
  hasProblem(t, await page('limit=x'), 'invalid_request', { message: 'limit must be a whole number' })
  hasProblem(t, await page('adult=maybe'), 'invalid_request', { message: 'adult must be one of include, exclude, only' })
})

onEachStore(t, 'a registration that is repeated with its Idempotency-Key answers with a session of the same user', async (t, stores) => {
  const app = await createApp(t, { stores })
  const person = randomUser()
  const register = (key: string, payload: object) =>
    app.inject({ method: 'POST', url: '/api/v1/auth/register', headers: { 'idempotency-key': key }, payload })
  const both = await Promise.all([register('one', person), register('one', person)])
  const again = await register('one', person)
  const answers = [...both, again]
  t.strictSame(answers.map(answer => answer.statusCode), [201, 201, 201])
  t.equal(new Set(answers.map(answer => answer.json<Tokens>().user.id)).size, 1)
  t.equal(answers.filter(answer => answer.headers['idempotency-replayed'] === 'true').length, 2)
  t.equal(await createClient(app).statusOf(again.json<Tokens>().token), 200)
  hasProblem(t, await register('one', { ...person, password: 'another password' }), 'invalid_credentials')
  hasProblem(t, await register('one', { ...person, display_name: 'Somebody else' }), 'idempotency_key_reused')
  hasProblem(t, await register('two', person), 'user_exists')
  hasProblem(t, await createClient(app).send('POST', 'register', { payload: person }), 'user_exists')
})

t.test('with PASSWORD_REHASH=off a login leaves the hash that the Go service can read', async t => {
  const app = await createApp(t, { stores: anyStores(), env: { PASSWORD_REHASH: 'off', PASSWORD_COST: '5' } })
  const hash = bcrypt.hashSync('a password from Go', 4)
  const { rows: [row] } = await app.pg.query<{ id: number }>(
    "insert into users (email, username, password_hash, display_name) values ('go@example.com', 'go', $1, 'Go') returning id",
    [hash]
  )
  t.ok(await createClient(app).login('go@example.com', 'a password from Go'))
  await new Promise(resolve => setTimeout(resolve, 200))
  t.equal(await hashOf(app, row!.id), hash)
})

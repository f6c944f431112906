import t from 'tap'
import { createApp, signUp, type App, type Session } from '../helpers/app.ts'
import { hasProblem } from '../helpers/problem.ts'
import { anyStores, onEachStore } from '../helpers/stores.ts'

const send = (
  app: App,
  person: Partial<Session>,
  method: 'POST' | 'PATCH' | 'DELETE' | 'GET',
  path: string,
  payload?: unknown
) =>
  app.inject({
    method,
    url: `/api/v1/videos${path}`,
    headers: { ...person.authorization, ...payload === undefined ? {} : { 'content-type': 'application/json' } },
    ...payload === undefined ? {} : { payload: typeof payload === 'string' ? payload : JSON.stringify(payload) }
  })

interface Video {
  id: number
  title: string
  is_live: boolean
  updated_at: string
  created_at: string
}

onEachStore(t, 'a video is published, changed, and deleted by its owner', async (t, stores) => {
  const app = await createApp(t, { stores })
  const owner = await signUp(app)
  const created = await send(app, owner, 'POST', '', { title: 'Night train' })
  t.equal(created.statusCode, 201)
  const video = created.json<Video>()
  t.equal(created.headers['location'], `/api/v1/videos/${video.id}`)
  t.match(video, {
    user_id: owner.user.id,
    title: 'Night train',
    description: '',
    thumbnail_url: '',
    stream_url: '',
    is_live: false,
    is_adult_content: false,
    view_count: 0,
    like_count: 0,
    live_viewers: 0
  })
  t.strictSame(withoutTimes((await send(app, {}, 'GET', `/${video.id}`)).json()), withoutTimes(video))

  const text = { title: '  Ünïcode 🌃 <b>"&amp;"</b> ', description: 'a\nb\u2067\u05d0\u2069\t ' }
  const all = {
    ...text,
    thumbnail_url: 'https://cdn.example/ä.png?x=1#y',
    stream_url: 'HTTP://stream.example:8080/1',
    is_live: true,
    is_adult_content: false
  }
  const full = await send(app, owner, 'POST', '', all)
  t.match(full.json(), {
    ...all,
    thumbnail_url: 'https://cdn.example/%C3%A4.png?x=1#y',
    stream_url: 'http://stream.example:8080/1'
  }, 'texts are kept exactly as sent, addresses as every browser writes them')

  const live = await send(app, owner, 'PATCH', `/${video.id}`, { is_live: true })
  t.equal(live.statusCode, 200)
  t.match(live.json(), { id: video.id, title: 'Night train', is_live: true, created_at: video.created_at })
  t.ok(live.json<Video>().updated_at > video.updated_at)
  t.match((await send(app, {}, 'GET', '?live=true')).json(), [{}, { id: video.id }])
  t.match((await send(app, owner, 'PATCH', `/${video.id}`, { is_live: false, description: 'over' })).json(), {
    is_live: false,
    description: 'over',
    title: 'Night train'
  })
  t.match(
    (await send(app, owner, 'PATCH', `/${video.id}`, { description: '' })).json(),
    { description: '' },
    'a text can be taken away'
  )

  const removed = await send(app, owner, 'DELETE', `/${video.id}`)
  t.equal(removed.statusCode, 204)
  t.equal(removed.body, '')
  for (const [method, payload] of [['GET'], ['DELETE'], ['PATCH', { title: 'x' }]] as const) {
    hasProblem(t, await send(app, owner, method, `/${video.id}`, payload), 'not_found', {
      message: `There is no video ${video.id}`
    }, `${method} afterwards`)
  }
  t.match((await send(app, {}, 'GET', '')).json(), [{ id: full.json<Video>().id }])
})

const withoutTimes = (video: object) => ({ ...video, counters: undefined })

onEachStore(t, 'a video of somebody else is neither changed nor deleted', async (t, stores) => {
  const app = await createApp(t, { stores })
  const owner = await signUp(app)
  const other = await signUp(app)
  const { id } = (await send(app, owner, 'POST', '', { title: 'mine' })).json<Video>()
  const message = { message: `Video ${id} belongs to somebody else` }
  hasProblem(t, await send(app, other, 'PATCH', `/${id}`, { title: 'yours' }), 'forbidden', message)
  hasProblem(t, await send(app, other, 'DELETE', `/${id}`), 'forbidden', message)
  for (const method of ['PATCH', 'DELETE'] as const) {
    hasProblem(
      t,
      await send(app, {}, method, `/${id}`, method === 'PATCH' ? { title: 'x' } : undefined),
      'unauthorized'
    )
    hasProblem(
      t,
      await send(app, owner, method, `/${id + 1}`, method === 'PATCH' ? { title: 'x' } : undefined),
      'not_found',
      { message: /./ }
    )
    for (const bad of ['0', 'x', '-1', '9007199254740992']) {
      hasProblem(
        t,
        await send(app, owner, method, `/${bad}`, method === 'PATCH' ? { title: 'x' } : undefined),
        'invalid_id'
      )
    }
  }
  hasProblem(t, await send(app, {}, 'POST', '', { title: 'x' }), 'unauthorized')
  t.match((await send(app, {}, 'GET', `/${id}`)).json(), { title: 'mine' })
  await app.pg.query('delete from users where id = $1', [other.user.id])
  hasProblem(t, await send(app, other, 'POST', '', { title: 'of nobody' }), 'unauthorized', {
    message: 'The user of this token no longer exists'
  })
})

/** A body, and the words that must name what is wrong with it. */
const badBodies: [body: unknown, names: RegExp][] = [
  [{ title: '' }, /^title /],
  [{ title: '   ' }, /^title /],
  [{ title: '\u3000\u00a0' }, /^title /],
  [{ title: 'x'.repeat(256) }, /^title /],
  [{ title: '\ud800' }, /^title has a character/],
  [{ title: 'a\0b' }, /^title has a character/],
  [{ title: 7 }, /^title /],
  [{ title: 7 }, /^title /],
  [{ title: 'x', description: 'x'.repeat(10_001) }, /^description /],
  ...[
    'javascript:alert(1)',
    'https://halo.example@evil.example/',
    'https://user:pass@cdn.example/',
    'https:\\\\evil.example',
    'https://cdn.example/a\\b',
    'https://cdn.example/"onload=',
    'https://cdn.example/<script>',
    "https://cdn.example/'",
    'https://cdn.example/\u202egpj.exe',
    'https://cdn.example/\u200b',
    'https://cdn.example/\u0085'
  ].map(url => [{ title: 'x', stream_url: url }, /^stream_url must be an http or https address/] as [object, RegExp]),
  [{ title: 'x', stream_url: 'data:text/html,x' }, /^stream_url /],
  [{ title: 'x', stream_url: '//cdn.example/1' }, /^stream_url /],
  [{ title: 'x', stream_url: 'http:cdn.example' }, /^stream_url /],
  [{ title: 'x', stream_url: 'https://' }, /^stream_url /],
  [{ title: 'x', stream_url: 'https://a b' }, /^stream_url /],
  [{ title: 'x', stream_url: 'https://a.example/\nb' }, /^stream_url /],
  [{ title: 'x', stream_url: ' https://a.example/' }, /^stream_url /],
  [{ title: 'x', thumbnail_url: `https://a.example/${'x'.repeat(10_000)}` }, /^thumbnail_url /],
  [{ title: 'x', is_live: 'true' }, /^is_live /],
  [{ title: 'x', is_live: 1 }, /^is_live /],
  [{ title: 'x', user_id: 1 }, /^user_id is not known here$/],
  [{ title: 'x', view_count: 1_000_000 }, /^view_count is not known here$/],
  [{ title: 'x', Title: 'y' }, /^Title is not known here$/],
  [[], /./],
  ['"x"', /./],
  ['null', /./]
]

onEachStore(t, 'a video with wrong members is refused by their names, and nothing is written', async (t, stores) => {
  const app = await createApp(t, { stores })
  const owner = await signUp(app)
  const { id } = (await send(app, owner, 'POST', '', { title: 'the control', stream_url: 'https://a.example/1' })).json<
    Video
  >()
  for (const [body, names] of badBodies) {
    for (const [method, path] of [['POST', ''], ['PATCH', `/${id}`]] as const) {
      hasProblem(
        t,
        await send(app, owner, method, path, body),
        'invalid_request',
        { message: names },
        `${method} ${JSON.stringify(body).slice(0, 60)}`
      )
    }
  }
  hasProblem(
    t,
    await send(app, owner, 'POST', '', {}),
    'invalid_request',
    { message: /^title / },
    'POST without a title'
  )
  hasProblem(
    t,
    await send(app, owner, 'PATCH', `/${id}`, {}),
    'invalid_request',
    { message: 'body must not be empty' },
    'PATCH with nothing in it'
  )
  t.match((await send(app, {}, 'GET', '')).json(), [{ id, title: 'the control', stream_url: 'https://a.example/1' }])
  t.equal((await send(app, owner, 'POST', '', { title: 'x'.repeat(255) })).statusCode, 201, 'as long as it may be')
})

onEachStore(
  t,
  'two changes at once of different members both stay, and a deletion between them loses neither word',
  async (t, stores) => {
    const app = await createApp(t, { stores })
    const owner = await signUp(app)
    const { id } = (await send(app, owner, 'POST', '', { title: 'a' })).json<Video>()
    await Promise.all([
      send(app, owner, 'PATCH', `/${id}`, { title: 'b' }),
      send(app, owner, 'PATCH', `/${id}`, { description: 'c' }),
      send(app, owner, 'PATCH', `/${id}`, { is_live: true })
    ])
    t.match((await send(app, {}, 'GET', `/${id}`)).json(), { title: 'b', description: 'c', is_live: true })
    const answers = await Promise.all([
      send(app, owner, 'PATCH', `/${id}`, { title: 'd' }),
      send(app, owner, 'DELETE', `/${id}`),
      send(app, owner, 'POST', `/${id}/engagement/likes`),
      send(app, {}, 'GET', ''),
      send(app, {}, 'GET', `/${id}`),
      send(app, owner, 'DELETE', `/${id}`)
    ])
    const allowed = [[200, 404], [204, 404], [200, 404], [200], [200, 404], [204, 404]]
    answers.forEach(({ statusCode }, index) => t.ok(allowed[index]!.includes(statusCode), `${index}: ${statusCode}`))
    t.equal([answers[1], answers[5]].filter(answer => answer!.statusCode === 204).length, 1, 'deleted once')
  }
)

onEachStore(t, 'a public profile shows no email and no settings', async (t, stores) => {
  const app = await createApp(t, { stores })
  const { user } = await signUp(app)
  const answer = await app.inject(`/api/v1/users/${user.id}`)
  t.strictSame(answer.json(), {
    id: user.id,
    username: user.username,
    display_name: 'A Person',
    bio: '',
    avatar_url: '',
    created_at: user['created_at']
  })
  hasProblem(t, await app.inject(`/api/v1/users/${user.id + 1}`), 'not_found', {
    message: `There is no user ${user.id + 1}`
  })
  for (const bad of ['0', 'me', '1.0']) hasProblem(t, await app.inject(`/api/v1/users/${bad}`), 'invalid_id')
})

t.test('texts that hide, reorder or overprint what stands beside them are refused in every member', async t => {
  const app = await createApp(t, { stores: anyStores() })
  const owner = await signUp(app)
  const me = (payload: object) =>
    app.inject({ method: 'PATCH', url: '/api/v1/auth/me', headers: owner.authorization, payload })
  const fields: Record<string, [send: (text: string) => ReturnType<typeof send>, isLine: boolean]> = {
    title: [title => send(app, owner, 'POST', '', { title }), true],
    description: [description => send(app, owner, 'POST', '', { title: 'A video', description }), false],
    display_name: [name => me({ display_name: name }), true],
    bio: [bio => me({ bio }), false]
  }
  const refused = {
    'a\u202eb': 'has a text direction override, or a direction control that is not closed',
    'a\u2067b': 'has a text direction override, or a direction control that is not closed',
    'a\u0007b': 'has a control character',
    '\u200b\u2060': 'has no visible character',
    [`Z${'\u0337'.repeat(20)}`]: 'has more than 8 combining marks on one character'
  }
  for (const [field, [sendText, isLine]] of Object.entries(fields)) {
    for (const [text, fault] of Object.entries(refused)) {
      hasProblem(t, await sendText(text), 'invalid_request', { message: new RegExp(`^${field} ${fault}`) }, field)
    }
    const lines = await sendText('one\ntwo\ttabs')
    if (isLine) hasProblem(t, lines, 'invalid_request', { message: `${field} has a control character or a line break` })
    else t.ok(lines.statusCode < 300, field)
    t.ok((await sendText('कर्\u200dता می\u200cخواهم 👩\u200d👩\u200d👧 ❤\ufe0f \u2067שלום\u2069')).statusCode < 300, field)
  }
})

onEachStore(t, 'a repeated POST with the same Idempotency-Key publishes one video', async (t, stores) => {
  const app = await createApp(t, { stores, env: { LIVE_VIDEOS_LIMIT: '1' } })
  const owner = await signUp(app)
  const publish = (key: string, payload: object, person: Session = owner) =>
    app.inject({
      method: 'POST',
      url: '/api/v1/videos',
      headers: { ...person.authorization, 'idempotency-key': key },
      payload
    })
  const live = { title: 'On air', is_live: true }
  const first = await publish('one', live)
  const again = await publish('one', live)
  t.strictSame([first.statusCode, again.statusCode], [201, 201], 'the second live video does not count against the limit')
  t.equal(again.json<Video>().id, first.json<Video>().id)
  t.equal(again.headers['location'], first.headers['location'])
  t.strictSame([first.headers['idempotency-replayed'], again.headers['idempotency-replayed']], [undefined, 'true'])
  hasProblem(t, await publish('one', { title: 'Another' }), 'idempotency_key_reused')
  hasProblem(t, await publish('two', live), 'too_many_live_videos', { message: /./ })
  await send(app, owner, 'PATCH', `/${first.json<Video>().id}`, { is_live: false })
  t.equal((await publish('two', live)).statusCode, 201, 'a refused request has used no key')

  const others = await Promise.all(Array.from({ length: 8 }, () => publish('three', { title: 'At once' })))
  t.strictSame([...new Set(others.map(answer => answer.statusCode))], [201])
  t.equal(new Set(others.map(answer => answer.json<Video>().id)).size, 1)
  t.equal(others.filter(answer => answer.headers['idempotency-replayed'] === undefined).length, 1)

  const stranger = await signUp(app)
  t.not((await publish('three', { title: 'At once' }, stranger)).json<Video>().id, others[0]!.json<Video>().id)
  await send(app, stranger, 'DELETE', `/${(await publish('three', { title: 'At once' }, stranger)).json<Video>().id}`)
  hasProblem(t, await publish('three', { title: 'At once' }, stranger), 'not_found', { message: /./ }, 'it was deleted')
  for (const key of ['', 'x'.repeat(256)]) hasProblem(t, await publish(key, live), 'invalid_request', { message: /./ })
})

onEachStore(t, 'a change with If-Match changes only the version that was read', async (t, stores) => {
  const app = await createApp(t, { stores })
  const [owner, viewer] = [await signUp(app), await signUp(app)]
  const { id } = (await send(app, owner, 'POST', '', { title: 'first' })).json<Video>()
  const read = () => app.inject({ url: `/api/v1/videos/${id}`, headers: owner.authorization })
  const patch = (title: string, condition: string) =>
    app.inject({
      method: 'PATCH',
      url: `/api/v1/videos/${id}`,
      headers: { ...owner.authorization, 'if-match': condition },
      payload: { title }
    })
  const etag = String((await read()).headers['etag'])
  await app.inject({ method: 'POST', url: `/api/v1/videos/${id}/engagement/comments`, headers: viewer.authorization })
  const second = await patch('second', etag)
  t.equal(second.statusCode, 200, 'a counted comment changes no content')
  hasProblem(t, await patch('third', etag), 'precondition_failed')
  t.match((await read()).json(), { title: 'second' })
  t.equal((await patch('third', String(second.headers['etag']))).statusCode, 200, 'the ETag of the answer goes on')
  const gzip = String((await read()).headers['etag']).replace(/"$/, '-gzip"')
  t.equal((await patch('fourth', `"other", ${gzip}`)).statusCode, 200, 'one of a list')
  t.equal((await patch('fifth', '*')).statusCode, 200, 'any version')
  for (const condition of ['"x"', `W/${String((await read()).headers['etag'])}`, 'nonsense', '""', ',']) {
    hasProblem(t, await patch('sixth', condition), 'precondition_failed', {}, condition)
  }
  for (let round = 0; round < 10; round++) {
    const tag = String((await read()).headers['etag'])
    const all = await Promise.all(Array.from({ length: 6 }, (_, n) => patch(`${round}.${n}`, tag)))
    t.strictSame(
      all.map(answer => answer.statusCode).sort(),
      [200, 412, 412, 412, 412, 412],
      'of several at once one wins'
    )
  }
  const other = await signUp(app)
  hasProblem(
    t,
    await app.inject({ method: 'PATCH', url: `/api/v1/videos/${id}`, headers: { ...other.authorization, 'if-match': '"x"' }, payload: { title: 'x' } }),
    'forbidden',
    { message: /./ }
  )
})

onEachStore(t, 'no two versions of a video have the same number, however many are written at once', async (t, stores) => {
  const app = await createApp(t, { stores })
  const owner = await signUp(app)
  const { id } = (await send(app, owner, 'POST', '', { title: 'first' })).json<Video>()
  const seen: string[] = []
  for (let round = 0; round < 5; round++) {
    const answers = await Promise.all(
      Array.from({ length: 40 }, (_, n) => send(app, owner, 'PATCH', `/${id}`, { title: `${round}.${n}`, is_live: n % 2 === 0 }))
    )
    t.strictSame([...new Set(answers.map(answer => answer.statusCode))], [200], 'and none waits for another for ever')
    const { rows } = await app.pg.query<{ ms: string }>(
      'select floor(extract(epoch from updated_at) * 1000)::text as ms from videos where id = $1',
      [id]
    )
    seen.push(rows[0]!.ms)
  }
  t.equal(new Set(seen).size, 5)
  await app.pg.query(`
    create table versions (at timestamptz);
    create function note_version() returns trigger language plpgsql as $$ begin insert into versions values (date_trunc('milliseconds', new.updated_at)); return null; end $$;
    create trigger note_version after update on videos for each row execute function note_version()`)
  await Promise.all(Array.from({ length: 64 }, (_, n) => send(app, owner, 'PATCH', `/${id}`, { title: `x${n}` })))
  const { rows: counts } = await app.pg.query('select count(*) as all, count(distinct at) as different from versions')
  t.strictSame(counts, [{ all: 64, different: 64 }])
})

onEachStore(t, 'a "go live" that is sent again while the first one takes the last place publishes one video', async (t, stores) => {
  const app = await createApp(t, { stores, env: { LIVE_VIDEOS_LIMIT: '1' } })
  for (let round = 0; round < 8; round++) {
    const owner = await signUp(app)
    const answers = await Promise.all(Array.from({ length: 6 }, () =>
      app.inject({
        method: 'POST',
        url: '/api/v1/videos',
        headers: { ...owner.authorization, 'idempotency-key': 'live' },
        payload: { title: 'On air', is_live: true }
      })))
    t.strictSame(answers.map(answer => answer.statusCode), [201, 201, 201, 201, 201, 201])
    t.equal(new Set(answers.map(answer => answer.json<Video>().id)).size, 1)
  }
})

onEachStore(t, 'one Idempotency-Key with several payloads at once publishes one of them, and refuses the others', async (t, stores) => {
  const app = await createApp(t, { stores })
  const owner = await signUp(app)
  for (let round = 0; round < 8; round++) {
    const answers = await Promise.all(Array.from({ length: 6 }, (_, n) =>
      app.inject({
        method: 'POST',
        url: '/api/v1/videos',
        headers: { ...owner.authorization, 'idempotency-key': `round ${round}` },
        payload: { title: `payload ${n}` }
      })))
    t.strictSame(answers.map(answer => answer.statusCode).sort(), [201, 422, 422, 422, 422, 422])
  }
})

import t, { type Test } from 'tap'
import { addVideo, createApp, runSql, signUp, type App } from '../helpers/app.ts'
import { hasProblem } from '../helpers/problem.ts'
import { availableStores, didNotRun, needsRedis, onEachStore, type Stores } from '../helpers/stores.ts'

/** Half a minute of watching, in a fraction of a second. */
const quick = { presenceMs: 600, watchedMs: 250, viewWindowMs: 2500, collectGapMs: 50, warmMs: 400 }

interface Counters {
  live_viewers: number | null
  like_count: number
  comment_count: number
  view_count: number
  liked?: boolean | null
  counters: { stale: boolean, as_of: string | null }
}

interface Person {
  user: { id: number }
  authorization: { authorization: string }
}

async function setUp (t: Test, stores: Stores, options: Partial<Parameters<typeof createApp>[1]> = {}) {
  const app = await createApp(t, { stores, counterTimes: quick, ...options })
  const owner = await signUp(app)
  return { app, owner, id: await addVideo(app, owner.user.id, { view_count: 3 }) }
}

async function engage (
  t: Test,
  app: App,
  person: Person,
  method: 'POST' | 'DELETE',
  path: string,
  headers: Record<string, string> = {}
): Promise<Counters> {
  const response = await app.inject({
    method,
    url: `/api/v1/videos/${path}`,
    headers: { ...person.authorization, ...headers }
  })
  t.equal(response.statusCode, 200, `${method} ${path}: ${response.body}`)
  const { message, data } = response.json<{ message: string, data: Counters }>()
  t.equal(message, 'Engagement recorded')
  return data
}

const counted = async (app: App, id: number, person?: Person): Promise<Counters> =>
  (await app.inject({ url: `/api/v1/videos/${id}/engagement`, headers: person?.authorization ?? {} })).json()

/** Waits until PostgreSQL has everything. */
const flushed = (app: App): Promise<void> => app.counters.flusher.flush({ isForced: true })

const sleep = (ms: number): Promise<void> => new Promise(resolve => setTimeout(resolve, ms))

onEachStore(t, 'a like is a state: repeated or taken back twice it changes nothing', async (t, stores) => {
  const { app, owner, id } = await setUp(t, stores)
  const other = await signUp(app)
  const likes = `${id}/engagement/likes`
  const first = await engage(t, app, owner, 'POST', likes)
  t.strictSame(first, {
    live_viewers: 0,
    like_count: 1,
    comment_count: 0,
    view_count: 3,
    liked: true,
    counters: { stale: false, as_of: first.counters.as_of }
  })
  t.match(await engage(t, app, owner, 'POST', likes), { like_count: 1, liked: true })
  t.match(await engage(t, app, other, 'POST', likes), { like_count: 2, liked: true })
  t.match(await engage(t, app, owner, 'DELETE', likes), { like_count: 1, liked: false })
  t.match(await engage(t, app, owner, 'DELETE', likes), { like_count: 1, liked: false })
  await flushed(app)
  const rows = await app.pg.query('select user_id, liked from video_likes where video_id = $1 order by user_id', [id])
  t.strictSame(rows.rows, [{ user_id: owner.user.id, liked: false }, { user_id: other.user.id, liked: true }])
  t.match((await app.pg.query('select like_count from video_counters where video_id = $1', [id])).rows, [{
    like_count: 1
  }])
  t.match(await counted(app, id, owner), { like_count: 1, liked: false })
  t.match(await counted(app, id, other), { like_count: 1, liked: true })
  t.notOk('liked' in await counted(app, id), 'nobody asked')
  t.notOk(
    'liked' in
      (await app.inject({ url: `/api/v1/videos/${id}/engagement`, headers: { authorization: 'Bearer nonsense' } }))
        .json<object>(),
    'a token that is not valid is none, where none is needed'
  )
})

onEachStore(t, 'the likes of a video, gone cold and out of the store, come back from PostgreSQL', async (t, stores) => {
  const { app, owner, id } = await setUp(t, stores)
  const people = await Promise.all(Array.from({ length: 5 }, () => signUp(app)))
  for (const person of people) await engage(t, app, person, 'POST', `${id}/engagement/likes`)
  await flushed(app)
  await sleep(quick.warmMs + 100)
  await app.counters.store.collect()
  const [stored] = await app.counters.store.read([id])
  t.equal(stored!.likes, null, 'the control: it is cold')
  t.match(await counted(app, id, people[0]), { like_count: 5, liked: true })
  t.match(await counted(app, id, owner), { like_count: 5, liked: false })
  t.match(
    await engage(t, app, people[0]!, 'POST', `${id}/engagement/likes`),
    { like_count: 5 },
    'the fifth like of five'
  )
  t.match(await engage(t, app, owner, 'POST', `${id}/engagement/likes`), { like_count: 6 })
  t.match(await engage(t, app, people[1]!, 'DELETE', `${id}/engagement/likes`), { like_count: 5 })
})

onEachStore(t, 'viewers are who sent a heartbeat: at once, once each, and gone when silent', async (t, stores) => {
  const { app, owner, id } = await setUp(t, stores)
  const other = await signUp(app)
  const viewers = `${id}/engagement/live_viewers`
  t.match(await engage(t, app, owner, 'POST', viewers), { live_viewers: 1, liked: false })
  t.match(await engage(t, app, owner, 'POST', viewers), { live_viewers: 1 }, 'one user in three tabs is one viewer')
  t.match(await engage(t, app, other, 'POST', viewers), { live_viewers: 2 })
  t.match((await app.inject('/api/v1/videos')).json(), [{ id, live_viewers: 2 }])
  t.match(await engage(t, app, owner, 'DELETE', viewers), { live_viewers: 1 })
  t.match(await engage(t, app, owner, 'DELETE', viewers), { live_viewers: 1 }, 'who has left cannot leave again')
  t.match(await engage(t, app, owner, 'POST', viewers), { live_viewers: 2 }, 'and may come back')
  await sleep(quick.presenceMs + 100)
  t.match(await counted(app, id), { live_viewers: 0 })
  await flushed(app)
  t.match((await app.pg.query('select peak_live_viewers from video_counters where video_id = $1', [id])).rows, [{
    peak_live_viewers: 2
  }])
})

onEachStore(
  t,
  'a view comes from watching for a while, once in a window, and reaches PostgreSQL',
  async (t, stores) => {
    const { app, owner, id } = await setUp(t, stores)
    const beat = () => app.counters.store.heartbeat(id, owner.user.id)
    await beat()
    // A young generation takes those who are there for counted: they may have been, before.
    await sleep(quick.viewWindowMs + 100)
    await beat()
    t.match(await counted(app, id), { view_count: 3 }, 'a glance is no view')
    await sleep(quick.watchedMs + 50)
    await beat()
    t.match(await counted(app, id), { view_count: 4 })
    for (let n = 0; n < 3; n++) {
      await sleep(quick.watchedMs + 50)
      await beat()
    }
    t.match(await counted(app, id), { view_count: 4 }, 'once in a window')
    await flushed(app)
    t.match((await app.pg.query('select view_count from videos where id = $1', [id])).rows, [{ view_count: 4 }])
    t.match(await counted(app, id), { view_count: 4 }, 'the ledger and the store do not add up to twice')

    const guest = await signUp(app)
    await app.counters.store.heartbeat(id, guest.user.id)
    await sleep(quick.presenceMs + 100)
    await app.counters.store.heartbeat(id, guest.user.id)
    t.match(await counted(app, id), { view_count: 4 }, 'two glances with a gap between them are no view')
  }
)

onEachStore(
  t,
  'a hundred heartbeats a second of one viewer are answered, and reach the store once a second',
  async (t, stores) => {
    const { app, owner, id } = await setUp(t, stores)
    let reached = 0
    const { heartbeat } = app.counters.store
    app.counters.store.heartbeat = (...args) => {
      reached++
      return heartbeat(...args)
    }
    for (let n = 0; n < 50; n++) {
      t.match(await engage(t, app, owner, 'POST', `${id}/engagement/live_viewers`), {
        live_viewers: 1
      })
    }
    t.ok(reached <= 3, `${reached} of 50 reached the store`)
  }
)

onEachStore(t, 'a comment counts each time, and with an Idempotency-Key once', async (t, stores) => {
  const { app, owner, id } = await setUp(t, stores)
  const other = await signUp(app)
  const send = (person: Person, key: string | undefined, payload?: unknown, video = id) =>
    app.inject({
      method: 'POST',
      url: `/api/v1/videos/${video}/engagement/comments`,
      headers: {
        ...person.authorization,
        ...key === undefined ? {} : { 'idempotency-key': key },
        ...payload === undefined ? {} : { 'content-type': 'application/json' }
      },
      ...payload === undefined ? {} : { payload: JSON.stringify(payload) }
    })
  t.match((await send(owner, undefined)).json(), { data: { comment_count: 1 } })
  t.match((await send(owner, undefined)).json(), { data: { comment_count: 2 } })

  const first = await send(owner, 'key-1', { text: 'hello' })
  t.match(first.json(), { data: { comment_count: 3 } })
  await send(other, undefined)
  const second = await send(owner, 'key-1', { text: 'hello' })
  t.equal(second.statusCode, 200)
  t.equal(second.body, first.body, 'the same answer')
  t.equal(second.headers['idempotency-replayed'], 'true')
  t.notOk(first.headers['idempotency-replayed'])
  hasProblem(t, await send(owner, 'key-1', { text: 'other' }), 'idempotency_key_reused')
  hasProblem(t, await send(owner, 'key-1'), 'idempotency_key_reused')
  t.match(await counted(app, id), { comment_count: 4 }, 'and one effect')

  t.match(
    (await send(other, 'key-1', { text: 'hello' })).json(),
    { data: { comment_count: 5 } },
    'a key is its owner’s'
  )
  const next = await addVideo(app, owner.user.id)
  t.match(
    (await send(owner, 'key-1', { text: 'hello' }, next)).json(),
    { data: { comment_count: 1 } },
    'and its video’s'
  )

  const many = await Promise.all(Array.from({ length: 20 }, () => send(owner, 'key-2')))
  t.strictSame([...new Set(many.map(answer => answer.statusCode))].sort(), [200, 409], 'in flight')
  hasProblem(t, many.find(answer => answer.statusCode === 409)!, 'idempotency_in_flight')
  t.equal((await send(owner, 'key-2')).statusCode, 200)
  t.match(await counted(app, id), { comment_count: 6 })

  for (const bad of ['', 'x'.repeat(256)]) {
    hasProblem(
      t,
      await send(owner, bad),
      'invalid_request',
      { message: /idempotency-key/ },
      `a key of ${bad.length} characters`
    )
  }
  for (const payload of ['{', 'null,']) {
    hasProblem(
      t,
      await app.inject({
        method: 'POST',
        url: `/api/v1/videos/${id}/engagement/comments`,
        headers: { ...owner.authorization, 'content-type': 'application/json' },
        payload
      }),
      'invalid_request',
      { message: /./ }
    )
  }
  t.match(await counted(app, id), { comment_count: 6 })
})

onEachStore(
  t,
  'a comment with a key, repeated after the store lost its memory, is still counted once',
  async (t, stores) => {
    const { app, owner, id } = await setUp(t, stores)
    const send = (key: string) =>
      app.inject({
        method: 'POST',
        url: `/api/v1/videos/${id}/engagement/comments`,
        headers: { ...owner.authorization, 'idempotency-key': key }
      })
    t.equal((await send('a')).statusCode, 200)
    t.equal((await send('b')).statusCode, 200)
    await flushed(app)
    const databaseUrl = `postgres://${new URL(stores.adminUrl).username}@${
      new URL(stores.adminUrl).host
    }/${(await app.pg.query('select current_database() as name')).rows[0].name as string}`
    // A new process with an empty store, on the same database.
    const reborn = await createApp(t, { stores, databaseUrl, counterTimes: quick })
    const repeat = (key: string) =>
      reborn.inject({
        method: 'POST',
        url: `/api/v1/videos/${id}/engagement/comments`,
        headers: { ...owner.authorization, 'idempotency-key': key }
      })
    await sleep(100)
    t.match((await repeat('c')).json(), { data: { comment_count: 3 } }, 'the count goes on where it was')
    await reborn.pg.query("update comment_receipts set counted_at = counted_at - interval '5 seconds'")
    t.match((await repeat('a')).json(), { data: { comment_count: 3 } })
    t.match((await repeat('b')).json(), { data: { comment_count: 3 } })
    t.match((await repeat('d')).json(), { data: { comment_count: 4 } }, 'the control: a new key counts')
  }
)

onEachStore(
  t,
  'the counters of many videos come in the order of the ids, without those that do not exist',
  async (t, stores) => {
    const { app, owner, id } = await setUp(t, stores)
    const ids = [id]
    while (ids.length < 100) ids.push(await addVideo(app, owner.user.id))
    await engage(t, app, owner, 'POST', `${ids[7]}/engagement/likes`)
    await engage(t, app, owner, 'POST', `${ids[8]}/engagement/live_viewers`)
    const ask = (query: string) =>
      app.inject({ url: `/api/v1/videos/engagement?ids=${query}`, headers: owner.authorization })
    const all = (await ask([...ids].reverse().join(','))).json<(Counters & { video_id: number })[]>()
    t.strictSame(all.map(one => one.video_id), [...ids].reverse())
    t.strictSame(all.filter(one => one.liked).map(one => one.video_id), [ids[7]])
    t.match(all.find(one => one.video_id === ids[8]), { live_viewers: 1, like_count: 0, liked: false })
    t.strictSame((await ask(`${id},${id + 5000},${id}`)).json<{ video_id: number }[]>().map(one => one.video_id), [id])
    t.strictSame((await ask('9007199254740991')).json(), [])
    for (
      const bad of [
        '',
        '0',
        '-1',
        '1,',
        ',1',
        '1,,2',
        'a',
        '1.5',
        '9007199254740992',
        '9223372036854775808',
        '1e3',
        ' 1',
        '1%002',
        Array.from({ length: 101 }, (_, n) => n + 1).join(',')
      ]
    ) {
      hasProblem(t, await ask(bad), 'invalid_request', { message: /ids/ }, `ids=${bad.slice(0, 30)}`)
    }
    hasProblem(t, await app.inject('/api/v1/videos/engagement'), 'invalid_request', { message: /ids/ }, 'no ids')
  }
)

onEachStore(t, 'a page of 100 videos costs one statement and one round trip', async (t, stores) => {
  const { app, owner } = await setUp(t, stores)
  for (let n = 0; n < 100; n++) await addVideo(app, owner.user.id)
  await app.inject('/api/v1/videos?limit=99')
  let statements = 0
  const { query } = app.database
  app.database.query = (...args: Parameters<typeof query>) => {
    statements++
    return query(...args)
  }
  let reads = 0
  const { read } = app.counters.store
  app.counters.store.read = (...args) => {
    reads++
    return read(...args)
  }
  t.equal((await app.inject('/api/v1/videos?limit=100')).json<unknown[]>().length, 100)
  t.strictSame({ statements, reads }, { statements: 1, reads: 1 })
})

onEachStore(
  t,
  'engagement, with a wrong id, metric, token or video, is refused and counts nothing',
  async (t, stores) => {
    const { app, owner, id } = await setUp(t, stores)
    const send = (
      path: string,
      method: 'POST' | 'DELETE' = 'POST',
      headers: Record<string, string> = owner.authorization
    ) => app.inject({ method, url: `/api/v1/videos/${path}`, headers })
    hasProblem(t, await send(`${id}/engagement/shares`), 'invalid_metric')
    hasProblem(t, await send('abc/engagement/shares'), 'invalid_id')
    for (const metric of ['likes', 'comments', 'live_viewers']) {
      for (const bad of ['abc', '0', '-1', '1.5', '9007199254740992', '9223372036854775808', '%00']) {
        hasProblem(
          t,
          await send(`${bad}/engagement/${metric}`),
          'invalid_id',
          {},
          `${bad} ${metric}`
        )
      }
      hasProblem(t, await send(`${id}/engagement/${metric}`, 'POST', {}), 'unauthorized')
      hasProblem(t, await send(`${id + 1}/engagement/${metric}`), 'not_found', {
        message: `There is no video ${id + 1}`
      })
      hasProblem(t, await send(`9007199254740991/engagement/${metric}`), 'not_found', { message: /./ })
    }
    hasProblem(t, await send(`${id}/engagement/likes`, 'DELETE', {}), 'unauthorized')
    hasProblem(
      t,
      await send(`${id}/engagement/comments`, 'DELETE'),
      'method_not_allowed',
      { message: /POST/ },
      'comments are not taken back'
    )
    hasProblem(t, await app.inject(`/api/v1/videos/${id + 1}/engagement`), 'not_found', { message: /./ })
    hasProblem(t, await app.inject('/api/v1/videos/x/engagement'), 'invalid_id')
    const next = await addVideo(app, owner.user.id)
    t.match(
      (await app.inject(`/api/v1/videos/${next}`)).json(),
      { like_count: 0, comment_count: 0, live_viewers: 0 },
      'the video that came later has none of it'
    )
  }
)

onEachStore(t, 'engagement, with an empty body of any media type, is counted as clients send it', async (t, stores) => {
  const { app, owner, id } = await setUp(t, stores)
  for (const type of ['application/json', 'application/x-www-form-urlencoded', 'text/plain']) {
    const response = await app.inject({
      method: 'POST',
      url: `/api/v1/videos/${id}/engagement/comments`,
      headers: { ...owner.authorization, 'content-type': type, 'content-length': '0' }
    })
    t.equal(response.statusCode, 200, type)
  }
  t.match((await app.inject(`/api/v1/videos/${id}`)).json(), { comment_count: 3 })
})

onEachStore(
  t,
  'a deleted video takes its counters with it, and a deleted user their likes, within a second',
  async (t, stores) => {
    const { app, owner, id } = await setUp(t, stores)
    const fan = await signUp(app)
    const own = await addVideo(app, fan.user.id)
    for (const person of [owner, fan]) {
      await engage(t, app, person, 'POST', `${id}/engagement/likes`)
      await engage(t, app, person, 'POST', `${own}/engagement/likes`)
    }
    await engage(t, app, fan, 'POST', `${own}/engagement/comments`)
    await engage(t, app, fan, 'POST', `${own}/engagement/live_viewers`)
    await app.pg.query('delete from users where id = $1', [fan.user.id])
    await sleep(1000)
    hasProblem(
      t,
      await app.inject({ method: 'POST', url: `/api/v1/videos/${own}/engagement/likes`, headers: owner.authorization }),
      'not_found',
      { message: /./ }
    )
    const [gone] = await app.counters.store.read([own])
    t.match(gone, { comments: 0, likes: null, liveViewers: 0 }, 'nothing is left of it in the store')
    t.match(await counted(app, id, owner), { like_count: 1, liked: true }, 'the user’s like of another’s video is gone')
    await flushed(app)
    t.match((await app.pg.query('select video_id, like_count from video_counters order by video_id')).rows, [{
      video_id: id,
      like_count: 1
    }])
    // A token that outlives its user likes nothing that stays.
    await app.inject({ method: 'POST', url: `/api/v1/videos/${id}/engagement/likes`, headers: fan.authorization })
    await flushed(app)
    t.match(await counted(app, id), { like_count: 1 })
  }
)

onEachStore(
  t,
  'what was counted and not yet flushed is in PostgreSQL when the service has stopped',
  async (t, stores) => {
    const { app, owner, id } = await setUp(t, stores, { counterTimes: { ...quick, collectGapMs: 60_000 } })
    await engage(t, app, owner, 'POST', `${id}/engagement/likes`)
    await engage(t, app, owner, 'POST', `${id}/engagement/comments`)
    const { connectionString } = app.pg.pool.options as { connectionString: string }
    await app.close()
    t.match(await runSql(connectionString, 'select like_count::int, comment_n::int from video_counters'), [{
      like_count: 1,
      comment_n: 1
    }])
  }
)

t.test('two processes on one Redis count as one', async t => {
  const stores = availableStores().find(one => one.redisUrl !== null)
  if (!stores) return didNotRun(t, needsRedis)
  const { app, owner, id } = await setUp(t, stores)
  const { connectionString } = app.pg.pool.options as { connectionString: string }
  const other = await createApp(t, {
    stores,
    databaseUrl: connectionString,
    redisUrl: stores.redisUrl,
    counterTimes: quick
  })
  await Promise.all(
    Array.from({ length: 40 }, (_, n) => engage(t, n % 2 ? app : other, owner, 'POST', `${id}/engagement/comments`))
  )
  await Promise.all([flushed(app), flushed(other), flushed(app), flushed(other)])
  t.match(await counted(app, id), { comment_count: 40 })
  t.match(await counted(other, id), { comment_count: 40 })
  t.match(
    (await app.pg.query('select comment_base + comment_n as n from video_counters where video_id = $1', [id])).rows,
    [{ n: 40 }]
  )
})

onEachStore(t, 'one of two tabs leaves, and the viewer stays', async (t, stores) => {
  const { app, owner, id } = await setUp(t, stores, { counterTimes: {} })
  const path = `${id}/engagement/live_viewers`
  const tab = (name: string) => ({ 'x-client-id': name })
  t.match(await engage(t, app, owner, 'POST', path, tab('left')), { live_viewers: 1 })
  t.match(await engage(t, app, owner, 'POST', path, tab('right')), { live_viewers: 1 }, 'within a second')
  t.match(await engage(t, app, owner, 'DELETE', path, tab('left')), { live_viewers: 1 })
  t.match(await counted(app, id), { live_viewers: 1 })
  t.match(await engage(t, app, owner, 'DELETE', path, tab('right')), { live_viewers: 0 })
  for (const name of ['x'.repeat(65), 'a b', 'ü']) {
    hasProblem(
      t,
      await app.inject({ method: 'POST', url: `/api/v1/videos/${path}`, headers: { ...owner.authorization, ...tab(name) } }),
      'invalid_request',
      { message: /^x-client-id / },
      name
    )
  }
})

import t from 'tap'
import { addVideo, createApp, createDatabase, secret, signUp, type App } from '../helpers/app.ts'
import { hasProblem } from '../helpers/problem.ts'
import { anyStores, onEachStore } from '../helpers/stores.ts'

const isAdult = { is_adult: true }

interface Page {
  ids: number[]
  next: string | undefined
  link: string | undefined
}

async function page (app: App, url: string, headers: Record<string, string> = {}): Promise<Page> {
  const answer = await app.inject({ url, headers })
  if (answer.statusCode !== 200) throw new Error(`${url}: ${answer.body}`)
  return {
    ids: answer.json<{ id: number }[]>().map(video => video.id),
    next: answer.headers['x-next-cursor'] as string | undefined,
    link: answer.headers['link'] as string | undefined
  }
}

/** Follows `Link` from page to page, as a client does; something may happen between two of them. */
async function walk (app: App, url: string, between: () => Promise<void> = async () => {}): Promise<number[]> {
  const seen: number[] = []
  for (let next: string | undefined = url; next !== undefined;) {
    const one = await page(app, next)
    seen.push(...one.ids)
    next = /^<([^>]+)>; rel="next"$/.exec(one.link ?? '')?.[1]
    await between()
  }
  return seen
}

onEachStore(
  t,
  'a walk by cursor shows each video exactly once, newest first, also where many have one time',
  async (t, stores) => {
    const app = await createApp(t, { stores })
    const { user } = await signUp(app)
    const ids: number[] = []
    for (let n = 0; n < 47; n++) {
      // Times that differ by microseconds, and some that do not differ.
      ids.push(
        await addVideo(app, user.id, {
          created_at: `2026-01-02 03:04:05.67800${Math.floor(n / 8)}Z`,
          is_live: n % 3 === 0
        })
      )
    }
    const newestFirst = [...ids].reverse()
    for (const limit of [1, 7, 46, 47, 100]) {
      t.strictSame(
        await walk(app, `/api/v1/videos?limit=${limit}`),
        newestFirst,
        `limit=${limit}`
      )
    }
    t.strictSame(
      await walk(app, '/api/v1/videos?limit=5&live=true'),
      newestFirst.filter(id => ids.indexOf(id) % 3 === 0)
    )
    t.strictSame(
      await walk(app, '/api/v1/videos?limit=5&live=false'),
      newestFirst.filter(id => ids.indexOf(id) % 3 !== 0)
    )
    t.strictSame(await walk(app, `/api/v1/users/${user.id}/videos?limit=9`), newestFirst)
    t.strictSame(await walk(app, '/api/v1/videos?limit=10&offset=20'), newestFirst.slice(20), 'from an offset on')
    const last = await page(app, '/api/v1/videos?limit=47')
    t.strictSame([last.next, last.link], [undefined, undefined], 'the last page leads nowhere')
    t.strictSame(await walk(app, '/api/v1/users/999999/videos'), [])
  }
)

onEachStore(
  t,
  'a walk, while videos are added and deleted, shows what was there all the time exactly once',
  async (t, stores) => {
    const app = await createApp(t, { stores })
    const { user } = await signUp(app)
    const ids: number[] = []
    for (let n = 0; n < 60; n++) {
      ids.push(
        await addVideo(app, user.id, { created_at: new Date(Date.UTC(2026, 0, 1, 0, n)) })
      )
    }
    const doomed = new Set(ids.filter((_, index) => index % 7 === 3))
    const queue = [...doomed]
    const seen = await walk(app, '/api/v1/videos?limit=4', async () => {
      await addVideo(app, user.id)
      await addVideo(app, user.id, { created_at: new Date(Date.UTC(2026, 0, 1, 0, 30, 30)) })
      const id = queue.pop()
      if (id !== undefined) await app.pg.query('delete from videos where id = $1', [id])
    })
    t.equal(new Set(seen).size, seen.length, 'none twice')
    t.strictSame(seen.filter(id => ids.includes(id) && !doomed.has(id)), ids.filter(id => !doomed.has(id)).reverse())
  }
)

onEachStore(t, 'a cursor, that is altered or of another list, is refused', async (t, stores) => {
  const app = await createApp(t, { stores })
  const { user } = await signUp(app)
  for (let n = 0; n < 5; n++) await addVideo(app, user.id, { is_live: true })
  const { next } = await page(app, '/api/v1/videos?limit=2&live=true')
  t.equal(
    (await page(app, `/api/v1/videos?limit=3&live=true&cursor=${next!}`)).ids.length,
    3,
    'the control, with another limit'
  )
  for (
    const url of [
      '/api/v1/videos?',
      '/api/v1/videos?live=false&',
      '/api/v1/videos?live=true&adult=exclude&',
      `/api/v1/users/${user.id}/videos?`
    ]
  ) {
    hasProblem(t, await app.inject(`${url}cursor=${next!}`), 'invalid_cursor', {}, `reused for ${url}`)
  }
  const altered = [...next!].map((letter, index) =>
    next!.slice(0, index) + (letter === 'A' ? 'B' : 'A') + next!.slice(index + 1)
  )
  for (
    const cursor of [...altered, next!.slice(1), `${next!}A`, `${next!}=`, 'x', '%00', '💥', '..', next!.toUpperCase()]
  ) {
    hasProblem(
      t,
      await app.inject(`/api/v1/videos?live=true&cursor=${encodeURIComponent(cursor)}`),
      'invalid_cursor',
      {},
      cursor
    )
  }
  hasProblem(t, await app.inject('/api/v1/videos?cursor='), 'invalid_request', { message: /cursor/ })
  hasProblem(t, await app.inject(`/api/v1/videos?cursor=${'x'.repeat(65)}`), 'invalid_request', { message: /cursor/ })
  hasProblem(t, await app.inject(`/api/v1/videos?live=true&offset=1&cursor=${next!}`), 'invalid_request', {
    message: /one of them/
  })
  for (const offset of [10_000, 10_001, Number.MAX_SAFE_INTEGER]) {
    t.strictSame((await page(app, `/api/v1/videos?offset=${offset}`)).ids, [])
  }
  for (
    const bad of [
      'adult=yes',
      'adult=',
      'adult=ONLY',
      'live=1',
      'limit=0',
      'limit=101',
      'limit=1.5',
      'limit=1e1',
      'offset=-1',
      'limit=9007199254740993'
    ]
  ) {
    hasProblem(t, await app.inject(`/api/v1/videos?${bad}`), 'invalid_request', { message: /./ }, bad)
  }
})

onEachStore(t, 'a page, first or far, is read by the index and not by passing over', async (t, stores) => {
  const app = await createApp(t, { stores })
  const { user } = await signUp(app)
  // More than a request's half second on a slow machine.
  await app.backgroundPool.query(
    `
    insert into videos (user_id, title, is_live, is_adult_content, created_at)
    select $1, 'v', n % 10 = 0, n % 20 = 0, now() - n * interval '1 second' from generate_series(1, 20000) n`,
    [user.id]
  )
  await app.backgroundPool.query('analyze videos')
  const statements: { text: string, values: unknown[] }[] = []
  const { query } = app.database
  app.database.query = (statement, values = []) => {
    if (statement.name.startsWith('list_videos')) statements.push({ text: statement.text, values })
    return query(statement, values)
  }
  for (
    const [url, index] of [
      ['/api/v1/videos?limit=20', 'videos_general_newest_idx'],
      ['/api/v1/videos?limit=20&live=true', 'videos_live_general_newest_idx'],
      [`/api/v1/users/${user.id}/videos?limit=20`, 'videos_of_user_newest_idx']
    ] as const
  ) {
    const first = await page(app, url)
    const middle = await page(app, url.replace('limit=20', 'limit=20&offset=500'))
    t.equal((await page(app, `${url}&cursor=${middle.next!}`)).ids.length, 20)
    t.equal(first.ids.length, 20)
    const [, , far] = statements.splice(0)
    const { rows } = await app.pg.query<{ 'QUERY PLAN': [{ Plan: Plan }] }>(
      `explain (analyze, format json) ${far!.text}`,
      far!.values
    )
    const scan = scanOfVideos(rows[0]!['QUERY PLAN'][0].Plan)
    const indexes = index === 'videos_of_user_newest_idx' ? [index, 'videos_general_newest_idx'] : [index]
    t.ok(indexes.includes(scan['Index Name'] as typeof index), `${url}: ${String(scan['Index Name'])}`)
    t.match(scan['Index Cond'], /ROW\(v?\.?created_at/, 'the position is a condition of the index')
    t.ok(
      Number(scan['Actual Rows']) <= 21 && Number(scan['Rows Removed by Filter'] ?? 0) < 50,
      'and no rows are passed over'
    )
  }
})

interface Plan {
  'Node Type': string
  'Relation Name'?: string
  Plans?: Plan[]
  [name: string]: unknown
}

function scanOfVideos (plan: Plan): Plan {
  const nodes = [plan]
  for (const node of nodes) {
    if (node['Relation Name'] === 'videos') return node
    nodes.push(...node.Plans ?? [])
  }
  throw new Error('no scan of videos')
}

onEachStore(t, 'adult content is shown to adults who have adult mode on, and to nobody else', async (t, stores) => {
  const app = await createApp(t, { stores })
  const owner = await signUp(app)
  const adult = await signUp(app, isAdult)
  const minor = await signUp(app)
  const plain = await addVideo(app, owner.user.id, { created_at: new Date(1000) })
  const restricted = await addVideo(app, owner.user.id, {
    is_adult_content: true,
    stream_url: 'https://stream.example/secret',
    created_at: new Date(2000)
  })
  const ids = async (query: string, headers: Record<string, string> = {}) =>
    (await page(app, `/api/v1/videos${query}`, headers)).ids
  const isRefused = async (headers: Record<string, string>, name: string): Promise<void> => {
    const answer = await app.inject({ url: `/api/v1/videos/${restricted}`, headers })
    hasProblem(t, answer, 'adult_content_restricted', {}, name)
    t.notMatch(answer.body, /secret/)
    for (const query of ['', '?adult=include', '?adult=exclude']) {
      t.strictSame(await ids(query, headers), [plain], `${name}: ${query}`)
    }
    t.strictSame(await ids('?adult=only', headers), [], `${name}: only`)
    t.strictSame((await page(app, `/api/v1/users/${owner.user.id}/videos`, headers)).ids, [plain])
  }
  await isRefused({}, 'nobody')
  await isRefused({ authorization: 'Bearer x' }, 'a token that is none')
  await isRefused(adult.authorization, 'an adult without adult mode')
  await app.pg.query('update users set adult_mode = true where id = any($1)', [[adult.user.id, minor.user.id]])
  await new Promise(resolve => setTimeout(resolve, 1000))
  await isRefused(minor.authorization, 'adult mode without an adult')

  t.match((await app.inject({ url: `/api/v1/videos/${restricted}`, headers: adult.authorization })).json(), {
    stream_url: 'https://stream.example/secret'
  })
  t.strictSame(await ids('', adult.authorization), [restricted, plain])
  t.strictSame(await ids('?adult=include', adult.authorization), [restricted, plain])
  t.strictSame(await ids('?adult=exclude', adult.authorization), [plain])
  t.strictSame(await ids('?adult=only', adult.authorization), [restricted])
  await app.pg.query('update users set adult_mode = false where id = $1', [adult.user.id])
  await new Promise(resolve => setTimeout(resolve, 1000))
  await isRefused(adult.authorization, 'within a second of turning it off')
})

onEachStore(t, 'a walk by cursor is exact for times far from now, to the microsecond', async (t, stores) => {
  const app = await createApp(t, { stores })
  const { user } = await signUp(app)
  const times = ['0001-01-01 00:00:00', '1969-12-31 23:59:59.999999', '2255-06-05 23:47:34.740991', '2255-06-05 23:47:34.740993', '5000-01-01 00:00:00.000001', '5000-01-01 00:00:00.000002', '9999-12-31 23:59:59.999998', '9999-12-31 23:59:59.999999']
  const ids: number[] = []
  for (const time of times) ids.push(await addVideo(app, user.id, { created_at: `${time}Z` }))
  for (const limit of [1, 2, 3]) t.strictSame(await walk(app, `/api/v1/videos?limit=${limit}`), ids.toReversed())
})

t.test('a cursor stays valid after a change of the secret, while the old one is among the previous keys', async t => {
  const stores = anyStores()
  const databaseUrl = await createDatabase(t, stores)
  const options = { stores, databaseUrl, redisUrl: stores.redisUrl }
  const before = await createApp(t, options)
  const { user } = await signUp(before)
  const ids = [await addVideo(before, user.id), await addVideo(before, user.id)]
  const { next } = await page(before, '/api/v1/videos?limit=1')
  const changed = { JWT_SECRET_KEY: 'another secret of the tests, long enough to sign with' }
  const after = await createApp(t, { ...options, env: { ...changed, JWT_PREVIOUS_KEYS: JSON.stringify([secret]) } })
  t.strictSame((await page(after, `/api/v1/videos?limit=1&cursor=${next}`)).ids, [ids[0]])
  const later = await createApp(t, { ...options, env: changed })
  hasProblem(t, await later.inject(`/api/v1/videos?limit=1&cursor=${next}`), 'invalid_cursor')
})

t.test('a deep offset costs tokens of the address, a small one and a cursor do not', async t => {
  const app = await createApp(t, { stores: anyStores(), env: { RATE_LIMIT_RPS: '1', RATE_LIMIT_BURST: '60' } })
  const ask = (offset: number) => app.inject(`/api/v1/videos?offset=${offset}`)
  for (let n = 0; n < 10; n++) t.equal((await ask(9999)).statusCode, 200)
  t.equal((await ask(400_000)).statusCode, 200, 'costs 41 of the 50 that are left')
  t.equal((await ask(400_001)).statusCode, 200, 'and more than the 9 that are left then')
  hasProblem(t, await ask(400_002), 'rate_limit_exceeded', { message: /burst of 60/ })
})

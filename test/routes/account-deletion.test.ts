import bcrypt from 'bcryptjs'
import pg from 'pg'
import t, { type Test } from 'tap'
import { addVideo, createApp, createDatabase, randomUser, signUp, type App } from '../helpers/app.ts'
import { hasProblem } from '../helpers/problem.ts'
import { anyStores, onEachStore, type Stores } from '../helpers/stores.ts'
import { until } from '../helpers/until.ts'

/** An account with videos and likes. */
async function scene (t: Test, stores: Stores, videos = 3) {
  const databaseUrl = await createDatabase(t, stores)
  const app = await createApp(t, { stores, databaseUrl })
  const person = randomUser()
  const owner = await signUp(app, person)
  const other = await signUp(app)
  await app.backgroundPool.query({
    text: "insert into videos (user_id, title, is_live) select $1, 'mine ' || n, true from generate_series(1, $2) n",
    values: [owner.user.id, videos]
  })
  const { rows: [first] } = await app.pg.query<{ id: number }>('select min(id) as id from videos where user_id = $1', [
    owner.user.id
  ])
  return {
    app,
    databaseUrl,
    person,
    owner,
    other,
    id: first!.id,
    theirs: await addVideo(app, other.user.id, { title: 'theirs' })
  }
}

const remove = (app: App, authorization: { authorization: string }, password: string) =>
  app.inject({ method: 'DELETE', url: '/api/v1/auth/me', headers: authorization, payload: { password } })

const videosOf = async (app: App, userId: number): Promise<number> =>
  (await app.backgroundPool.query<{ count: number }>('select count(*) from videos where user_id = $1', [userId]))
    .rows[0]!.count

/** Holds rows or tables of a database in a transaction of its own. */
async function hold (t: Test, url: string, text: string): Promise<() => Promise<void>> {
  const client = new pg.Client({ connectionString: url })
  client.on('error', () => {})
  await client.connect()
  t.teardown(() => client.end().catch(() => {}))
  await client.query(`begin; ${text}`)
  return async () => {
    await client.query('rollback')
  }
}

onEachStore(
  t,
  'a deletion hides the account, its videos and its sessions at once, and its rows go later',
  async (t, stores) => {
    const { app, databaseUrl, person, owner, other, id, theirs } = await scene(t, stores)
    for (const [video, who] of [[theirs, owner], [id, other], [theirs, other]] as const) {
      t.equal(
        (await app.inject({
          method: 'POST',
          url: `/api/v1/videos/${video}/engagement/likes`,
          headers: who.authorization
        })).statusCode,
        200
      )
    }
    await app.inject({
      method: 'POST',
      url: `/api/v1/videos/${theirs}/engagement/live_viewers`,
      headers: owner.authorization
    })
    await app.counters.flusher.flush({ isForced: true })
    const release = await hold(t, databaseUrl, 'select from videos for update; select from video_likes for update')
    t.equal((await remove(app, owner.authorization, person.password)).statusCode, 204)

    hasProblem(t, await app.inject({ url: '/api/v1/auth/me', headers: owner.authorization }), 'unauthorized', {
      message: /./
    }, 'the session')
    hasProblem(t, await app.inject(`/api/v1/users/${owner.user.id}`), 'not_found', { message: /./ }, 'the profile')
    hasProblem(t, await app.inject({ url: `/api/v1/videos/${id}`, headers: other.authorization }), 'not_found', {
      message: /./
    }, 'a video')
    hasProblem(t, await app.inject(`/api/v1/videos/${id}/engagement`), 'not_found', { message: /./ }, 'its counters')
    hasProblem(
      t,
      await app.inject({ method: 'POST', url: `/api/v1/videos/${id}/engagement/likes`, headers: other.authorization }),
      'not_found',
      { message: /./ },
      'its likes'
    )
    t.strictSame((await app.inject(`/api/v1/users/${owner.user.id}/videos`)).json(), [], 'its list')
    t.strictSame(
      (await app.inject('/api/v1/videos?limit=99')).json<{ id: number }[]>().map(one => one.id),
      [theirs],
      'the list of all'
    )
    hasProblem(
      t,
      await app.inject({ method: 'POST', url: '/api/v1/auth/login', payload: person }),
      'invalid_credentials'
    )
    const { rows: [row] } = await app.pg.query<{ password_hash: string }>(
      'select password_hash from users where id = $1',
      [owner.user.id]
    )
    t.equal(
      await bcrypt.compare(person.password, row!.password_hash),
      false,
      'nor does a Go service on the same database log it in'
    )
    await until(
      'the presence ends',
      async () =>
        (await app.inject(`/api/v1/videos/${theirs}/engagement`)).json<{ live_viewers: number }>().live_viewers === 0
    )
    const again = await app.inject({ method: 'POST', url: '/api/v1/auth/register', payload: person })
    t.equal(again.statusCode, 201, 'email and username are free')
    t.not(again.json().user.id, owner.user.id)
    t.equal(await videosOf(app, owner.user.id), 3, 'the control: the rows are still there')

    await release()
    await app.services.accountPurge.run()
    t.equal(await videosOf(app, owner.user.id), 0)
    t.strictSame((await app.pg.query('select id from users where id = $1', [owner.user.id])).rows, [])
    t.strictSame((await app.pg.query('select user_id from deleted_users')).rows, [])
    await until(
      'the like goes',
      async () =>
        (await app.inject(`/api/v1/videos/${theirs}/engagement`)).json<{ like_count: number }>().like_count === 1
    )
    t.match((await app.pg.query('select like_count from video_counters where video_id = $1', [theirs])).rows, [{
      like_count: 1
    }])
  }
)

onEachStore(t, 'a deletion that meets a password change deletes nothing', async (t, stores) => {
  const { app, person, owner, id } = await scene(t, stores)
  const { verify } = app.services.passwords
  const { authorization } = owner
  app.services.passwords.verify = async (...args) => {
    const isEqual = await verify(...args)
    // The change comes between the comparison and the deletion.
    await app.pg.query("update users set password_hash = 'another' where id = $1", [owner.user.id])
    return isEqual
  }
  hasProblem(t, await remove(app, authorization, person.password), 'wrong_password')
  await app.services.accountPurge.run()
  t.equal(await videosOf(app, owner.user.id), 3)
  t.equal((await app.inject(`/api/v1/videos/${id}`)).statusCode, 200)
  t.equal((await app.inject({ url: '/api/v1/auth/me', headers: authorization })).statusCode, 200)
})

t.test('a deletion of many videos is answered at once, others do not queue behind it, and a purge goes on after a restart', async t => {
  const stores = anyStores()
  const { app, databaseUrl, person, owner } = await scene(t, stores, 20_000)
  const another = randomUser()
  const second = await signUp(app, another)
  const release = await hold(t, databaseUrl, 'lock table videos in share mode')
  const startedAt = performance.now()
  t.equal((await remove(app, owner.authorization, person.password)).statusCode, 204)
  t.equal((await remove(app, second.authorization, another.password)).statusCode, 204, 'a second one at the same time')
  t.ok(performance.now() - startedAt < 9000, 'before the connection would be cut off')
  await release()
  // As if the process had been killed: another one takes it up.
  await app.services.accountPurge.close()
  const heir = await createApp(t, { stores, databaseUrl, redisUrl: stores.redisUrl })
  await heir.ready()
  await until('the rows go, without being asked to', async () => await videosOf(heir, owner.user.id) === 0)
  await until(
    'the accounts go',
    async () =>
      (await heir.pg.query('select id from users where id in ($1, $2)', [owner.user.id, second.user.id])).rows
        .length === 0
  )
})

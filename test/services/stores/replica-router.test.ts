import t from 'tap'
import { migrate } from '../../../db/migrate.ts'
import { addVideo, createApp, runSql, signUp } from '../../helpers/app.ts'
import { startReplicatedPostgres } from '../../helpers/replicated-postgres.ts'
import { anyStores, didNotRun } from '../../helpers/stores.ts'

t.test('reads go to a replica that is close behind, and to the primary when it lags, dies or comes back', async t => {
  const servers = await startReplicatedPostgres()
  if (!servers) return didNotRun(t, 'no PostgreSQL packages are installed to make a replica with')
  t.teardown(() => servers.stop())
  await migrate({ connectionString: servers.primaryUrl })
  const stores = anyStores()
  const app = await createApp(t, {
    stores,
    databaseUrl: servers.primaryUrl,
    env: { DATABASE_REPLICA_URL: servers.replicaUrl }
  })
  await app.ready()
  const used = { replica: 0, primary: 0 }
  for (const [name, pool] of [['replica', app.replicaPool!], ['primary', app.pg.pool]] as const) {
    const connect = pool.connect.bind(pool) as (
      callback?: unknown
    ) => Promise<{ query: (...args: { text: string }[]) => unknown }>
    pool.connect = (async (callback?: unknown) => {
      // pool.query has a callback; the statements of the service have none.
      if (callback !== undefined) return await connect(callback)
      const client = await connect()
      const { query } = Object.getPrototypeOf(client) as typeof client
      client.query = function (...args) {
        if (/as created_micros/.test(args[0]!.text)) used[name]++
        return query.apply(this, args)
      }
      return client
    }) as unknown as typeof pool.connect
  }
  const { user, authorization } = await signUp(app)
  const id = await addVideo(app, user.id, { title: 'one' })
  const becomes = async (isUsed: boolean): Promise<void> => {
    for (let tries = 0; tries < 100 && app.replicaRouter!.stats.isUsed !== isUsed; tries++) {
      await new Promise(resolve => setTimeout(resolve, 50))
    }
    t.equal(app.replicaRouter!.stats.isUsed, isUsed, isUsed ? 'the replica is used' : 'the primary is used')
  }
  const read = async (headers = {}) => {
    used.replica = used.primary = 0
    app.responseCache.forget('')
    const single = await app.inject({ url: `/api/v1/videos/${id}`, headers })
    const list = await app.inject({ url: '/api/v1/videos', headers })
    t.equal(single.statusCode, 200)
    t.equal(list.statusCode, 200)
    return { title: single.json<{ title: string }>().title, ...used }
  }

  await becomes(true)
  t.strictSame(await read(), { title: 'one', replica: 2, primary: 0 })

  const patched = await app.inject({
    method: 'PATCH',
    url: `/api/v1/videos/${id}`,
    headers: authorization,
    payload: { title: 'two' }
  })
  t.match(patched.json(), { title: 'two' })
  t.match(await read(authorization), { title: 'two', replica: 0, primary: 2 }, 'who has written reads the primary')

  await runSql(servers.replicaUrl, 'select pg_wal_replay_pause()')
  await app.pg.query("update videos set title = 'three' where id = $1", [id])
  await becomes(false)
  t.strictSame(await read(), { title: 'three', replica: 0, primary: 2 }, 'it lags')
  await runSql(servers.replicaUrl, 'select pg_wal_replay_resume()')
  await becomes(true)
  t.strictSame(await read(), { title: 'three', replica: 2, primary: 0 })

  await servers.killReplica()
  const dead = await read()
  t.equal(dead.title, 'three', 'no read fails when it dies')
  t.ok(dead.primary >= 1)
  await becomes(false)
  t.strictSame(await read(), { title: 'three', replica: 0, primary: 2 })
  await servers.startReplica()
  await becomes(true)
  t.match(await read(), { title: 'three', replica: 2 })
  t.match((await app.inject('/metrics')).body, /^halo_replica_used 1$/m)
})

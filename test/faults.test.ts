import { randomBytes } from 'node:crypto'
import { setTimeout as sleep } from 'node:timers/promises'
import type { InjectOptions } from 'fastify'
import type { Pool, PoolClient } from 'pg'
import t, { type Test } from 'tap'
import { createDatabase as createStatements } from '../services/stores/database.ts'
import { createLoginThrottle } from '../services/accounts/login-throttle.ts'
import { addVideo, createApp, createDatabase, logLines, randomUser, runSql, signUp, type App } from './helpers/app.ts'
import { startPgBouncer } from './helpers/pgbouncer.ts'
import { hasProblem } from './helpers/problem.ts'
import { startRedis } from './helpers/redis-server.ts'
import { anyStores, availableStores, didNotRun, needsRedis, onEachStore } from './helpers/stores.ts'
import { until } from './helpers/until.ts'

/** Dependencies that answer, but cannot do what is asked of them. */

const login = (app: App, payload: { email: string, password: string }) =>
  app.inject({ method: 'POST', url: '/api/v1/auth/login', payload })

// ---- SQLSTATE

/** Statements on connections that answer each with the next error; a connection that is taken back is listed. */
function failing (errors: (object | undefined)[]) {
  const released: { id: number, isDestroyed: boolean }[] = []
  const idle: PoolClient[] = []
  let opened = 0
  const open = (): PoolClient => {
    const id = ++opened
    const client = {
      id,
      async query () {
        const error = errors.shift()
        if (error) throw Object.assign(new Error('an error of the database'), error)
        return { rows: [{ id }] }
      },
      release (destroy?: Error | boolean) {
        released.push({ id, isDestroyed: Boolean(destroy) })
        if (!destroy) idle.push(client as unknown as PoolClient)
      }
    }
    return client as unknown as PoolClient
  }
  const pool = { connect: async () => idle.shift() ?? open() } as unknown as Pick<Pool, 'connect'>
  return { database: createStatements({ pool }), released, idle, open }
}

t.test('every error of a server that cannot do it is a 503, and a connection to the wrong server is not used again', async t => {
  for (
    const [code, isDestroyed] of [
      ['53100', false],
      ['53200', false],
      ['53300', false],
      ['57014', false],
      ['40001', false],
      ['40P01', false],
      ['55P03', false],
      ['42501', false],
      ['42P01', false],
      ['42P05', false],
      ['26000', false],
      ['XX001', false],
      ['58030', true],
      ['58P01', true],
      ['25006', true],
      ['0A000', true],
      ['57P01', true],
      ['57P03', true],
      ['08006', true]
    ] as const
  ) {
    const { database, released } = failing([{ code, severity: 'ERROR' }])
    await t.rejects(database.query({ name: 'x', text: 'select' }), { code: 'service_unavailable', retryAfter: 1 }, code)
    t.strictSame(released, [{ id: 1, isDestroyed }], code)
  }
  for (const code of ['22021', '22P02']) {
    await t.rejects(failing([{ code, severity: 'ERROR' }]).database.query({ name: 'x', text: 'select' }), {
      code: 'invalid_request'
    }, code)
  }
  await t.rejects(failing([{ code: '23505', severity: 'ERROR' }]).database.query({ name: 'x', text: 'select' }), {
    code: '23505'
  }, 'a constraint comes as it is')
})

t.test('after a failover all connections to the demoted server are replaced, not one an error', async t => {
  const { database, released, idle, open } = failing([undefined, undefined, undefined])
  idle.push(...Array.from({ length: 3 }, open))
  const query = () => database.query<{ id: number }>({ name: 'x', text: 'select' })
  await Promise.all([query(), query(), query()])
  const { database: after, released: list, idle: connections, open: connect } = failing([
    undefined,
    undefined,
    undefined,
    { code: '25006', severity: 'ERROR' }
  ])
  connections.push(...Array.from({ length: 3 }, connect))
  const ask = () => after.query<{ id: number }>({ name: 'x', text: 'select' })
  await Promise.all([ask(), ask(), ask()])
  await t.rejects(ask(), { code: 'service_unavailable' })
  const answers = [await ask(), await ask(), await ask()].map(([row]) => row!.id)
  t.ok(answers.every(id => id > 3), `new connections: ${answers.join()}`)
  t.strictSame(list.filter(one => one.isDestroyed).map(one => one.id).sort(), [1, 2, 3])
  t.ok(released.every(one => !one.isDestroyed), 'the control: healthy ones are kept')
})

// ---- rights

/** A role with all rights but some. */
async function createRole (t: Test, databaseUrl: string, revoked: string): Promise<string> {
  const name = `halo_test_${randomBytes(4).toString('hex')}`
  await runSql(databaseUrl, `create role ${name} login`)
  await runSql(
    databaseUrl,
    `grant all on all tables in schema public to ${name}; grant all on all sequences in schema public to ${name}; ${
      revoked.replaceAll('ROLE', name)
    }`
  )
  t.teardown(() => runSql(databaseUrl, `drop owned by ${name}; drop role ${name}`))
  const url = new URL(databaseUrl)
  url.username = name
  return url.href
}

onEachStore(
  t,
  'a database user without a right is named, the process is not ready, and login goes on where it can',
  async (t, stores) => {
    const databaseUrl = await createDatabase(t, stores)
    const person = randomUser()
    const whole = await createApp(t, { stores, databaseUrl })
    await signUp(whole, person)
    const limited = await createRole(t, databaseUrl, 'revoke insert, update on login_attempts from ROLE')
    const app = await createApp(t, { stores, databaseUrl: limited, redisUrl: stores.redisUrl })
    const from = logLines.length
    const readiness = await app.inject('/readyz')
    t.equal(readiness.statusCode, 503)
    t.match(readiness.json(), { status: 'not_ready', database: true, schema: false })
    t.ok(
      logLines.slice(from).some(line =>
        /no right to: (insert|update) on login_attempts, (insert|update) on login_attempts; grant them/.test(line)
      ),
      'in the log'
    )
    t.match((await app.inject('/metrics')).body, /^halo_schema_up 0$/m)

    t.equal((await login(app, person)).statusCode, 200, 'login is not impossible')
    const statuses: number[] = []
    for (let n = 0; n < 8; n++) statuses.push((await login(app, { ...person, password: 'wrong' })).statusCode)
    t.ok(statuses.every(status => status === 401))
    t.equal((await login(app, person)).statusCode, 401, 'nor unthrottled: the right password has to wait')
    t.ok(logLines.slice(from).some(line => line.includes('login attempts cannot be counted in PostgreSQL')))
  }
)

t.test('the waits of a process by itself grow as those of PostgreSQL do', async t => {
  let now = 0
  const { database } = failing(Array.from({ length: 200 }, () => ({ code: '53100', severity: 'ERROR' })))
  const causes: unknown[] = []
  const attempts = createLoginThrottle(database, {
    now: () => now,
    onFallback: cause => {
      causes.push(cause)
    }
  })
  const attempt = { account: 'a@example.com', address: '203.0.113.1', isKnownAddress: false }
  for (let n = 0; n < 5; n++) {
    t.equal(await attempts.begin(attempt), true)
    await attempts.fail(attempt)
  }
  t.equal(await attempts.begin(attempt), false)
  now += 1001
  t.equal(await attempts.begin(attempt), true, 'after a second')
  await attempts.fail(attempt)
  now += 1001
  t.equal(await attempts.begin(attempt), false)
  now += 1001
  t.equal(await attempts.begin(attempt), true, 'after two')
  await attempts.succeed(attempt, 1)
  const many = await Promise.all(Array.from({ length: 8 }, () => attempts.begin(attempt)))
  t.equal(many.filter(Boolean).length, 5, 'those that run at once are counted')
  await attempts.withdraw(attempt)
  t.equal(await attempts.begin(attempt), true)
  t.equal(await attempts.begin({ ...attempt, address: '203.0.113.2' }), true, 'another address')
  t.equal(await attempts.isKnownAddress(1, '203.0.113.1'), false)
  t.ok(causes.length > 10)
})

t.test('a Redis user without the commands that counters need is unhealthy, and the log names the command', async t => {
  if (!availableStores().some(({ redisUrl }) => redisUrl !== null)) return didNotRun(t, needsRedis)
  const redis = await startRedis()
  t.teardown(() => redis.stop())
  for (const command of ['info', 'script']) {
    await redis.client.call('ACL', 'SETUSER', `no-${command}`, 'on', '>secret', '~*', '&*', '+@all', `-${command}`)
    const url = new URL(redis.url)
    url.username = `no-${command}`
    url.password = 'secret'
    const from = logLines.length
    const app = await createApp(t, { stores: anyStores(), redisUrl: url.href })
    const health = await app.inject('/health')
    t.equal(health.statusCode, 503, command)
    t.match(health.json(), { status: 'unhealthy', database: true, redis: false })
    t.ok(
      logLines.slice(from).some(line => line.includes('redis is') && line.includes('NOPERM') && line.includes(command)),
      `the log names ${command}`
    )
    t.match((await app.inject('/metrics')).body, /^halo_redis_up 0$/m)
    const { user, authorization } = await signUp(app)
    const id = await addVideo(app, user.id)
    hasProblem(
      t,
      await app.inject({ method: 'POST', url: `/api/v1/videos/${id}/engagement/likes`, headers: authorization }),
      'engagement_unavailable',
      {},
      `what the probe says is true: ${command}`
    )
  }
})

// ---- PgBouncer

t.test('PgBouncer, with default settings, is refused by a process that is not ready and says what to do', async t => {
  const stores = anyStores()
  const databaseUrl = await createDatabase(t, stores)
  const url = await startPgBouncer(t, databaseUrl, 'session')
  if (!url) return didNotRun(t, 'pgbouncer is not installed (apt-get install pgbouncer)')
  const from = logLines.length
  const app = await createApp(t, { stores, databaseUrl: url })
  hasProblem(t, await app.inject('/api/v1/videos'), 'service_unavailable')
  t.match(
    (await app.inject('/readyz')).json(),
    { status: 'not_ready', database: false },
    'the probe has the settings of requests'
  )
  t.ok(logLines.slice(from).some(line => line.includes('this is PgBouncer; set DB_PREPARED_STATEMENTS=false')))
})

for (const mode of ['session', 'transaction'] as const) {
  t.test(`PgBouncer in ${mode} mode, with DB_PREPARED_STATEMENTS=false: everything works`, async t => {
    const stores = anyStores()
    const databaseUrl = await createDatabase(t, stores)
    const url = await startPgBouncer(t, databaseUrl, mode)
    if (!url) return didNotRun(t, 'pgbouncer is not installed (apt-get install pgbouncer)')
    const app = await createApp(t, { stores, databaseUrl: url, env: { DB_PREPARED_STATEMENTS: 'false' } })
    const person = randomUser()
    const { authorization } = await signUp(app, person)
    t.equal((await app.inject('/readyz')).statusCode, 200)
    const published = await app.inject({
      method: 'POST',
      url: '/api/v1/videos',
      headers: authorization,
      payload: { title: 'x' }
    })
    const { id } = published.json<{ id: number }>()
    const requests: InjectOptions[] = Array.from({ length: 60 }, (_, n) =>
      n % 3 === 0
        ? { url: `/api/v1/videos?limit=${1 + n}` }
        : n % 3 === 1
          ? { url: '/api/v1/auth/me', headers: authorization }
          : { method: 'POST' as const, url: `/api/v1/videos/${id}/engagement/likes`, headers: authorization })
    const statuses = await Promise.all(requests.map(async request => (await app.inject(request)).statusCode))
    t.strictSame([...new Set(statuses)], [200])
    t.equal((await login(app, person)).statusCode, 200)
    await app.counters.flusher.flush({ isForced: true })
    t.match(await runSql(databaseUrl, 'select like_count::int from video_counters'), [{ like_count: 1 }])
    t.equal(
      (await app.inject({
        method: 'DELETE',
        url: '/api/v1/auth/me',
        headers: authorization,
        payload: { password: person.password }
      })).statusCode,
      204
    )
    await app.services.accountPurge.run()
    t.strictSame(await runSql(databaseUrl, 'select id from videos'), [])
  })
}

// ---- state of other settings

onEachStore(
  t,
  'a client that was limited is free when the limit was raised, and probes are never limited',
  async (t, stores) => {
    const databaseUrl = await createDatabase(t, stores)
    const strict = await createApp(t, {
      stores,
      databaseUrl,
      redisUrl: stores.redisUrl,
      env: { RATE_LIMIT_RPS: '1', RATE_LIMIT_BURST: '20' }
    })
    const ask = (app: App, url: string) => app.inject({ url, remoteAddress: '203.0.113.77' })
    for (let n = 0; n < 60; n++) await ask(strict, '/api/v1/videos')
    await until('the limit', async () => (await ask(strict, '/api/v1/videos')).statusCode === 429)
    let checks = 0
    const { status } = strict.services.healthChecks
    t.type(status, 'function')
    for (const check of strict.postgresChecks) {
      const { check: original } = check
      check.check = async () => {
        checks++
        await original()
      }
    }
    for (let n = 0; n < 200; n++) {
      for (const probe of ['/livez', '/readyz', '/startupz', '/health']) {
        if ((await ask(strict, probe)).statusCode === 429) t.fail(`${probe} was refused`)
      }
    }
    t.ok(checks < 100, `${checks} calls of the database for 800 probes`)
    t.equal((await ask(strict, '/api/v1/videos')).statusCode, 429, 'the control')
    const raised = [1, 2].map(() =>
      createApp(t, {
        stores,
        databaseUrl,
        redisUrl: stores.redisUrl,
        env: { RATE_LIMIT_RPS: '10000000', RATE_LIMIT_BURST: '20' }
      })
    )
    for (const app of await Promise.all(raised)) {
      const statuses = []
      for (let n = 0; n < 40; n++) {
        statuses.push((await ask(app, '/api/v1/videos')).statusCode)
        // An injected request takes no turn of the event loop, in which leases of tokens come.
        await sleep(2)
      }
      t.strictSame([...new Set(statuses)], [200], 'a bucket is never emptier than its own policy makes it')
    }
  }
)

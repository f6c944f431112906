import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { chmod, mkdtemp, rm, stat } from 'node:fs/promises'
import http from 'node:http'
import { connect } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import { createDatabase, runSql } from './helpers/app.ts'
import { createFaultyProxy } from './helpers/faulty-proxy.ts'
import { freePort } from './helpers/free-port.ts'
import { cleanEnvironment, startService } from './helpers/service.ts'
import { anyStores, availableStores, didNotRun } from './helpers/stores.ts'
import { until } from './helpers/until.ts'

const stores = anyStores()

async function settings (t: Test): Promise<Record<string, string>> {
  return {
    DATABASE_URL: await createDatabase(t, stores, { isMigrated: false }),
    ...(stores.redisUrl === null ? {} : { REDIS_URL: stores.redisUrl })
  }
}

t.test('the service, started with no settings, says what it runs on and serves; a second start keeps the data', async t => {
  if (!availableStores().some(({ name }) => name === 'embedded')) {
    return didNotRun(t, 'this run leaves the embedded stores out')
  }
  const folder = await mkdtemp(join(tmpdir(), 'halo-service-'))
  await chmod(folder, 0o755)
  t.teardown(() => rm(folder, { recursive: true, force: true }))
  const first = await startService(t, { DATA_DIR: join(folder, 'data') })
  await first.printed(/stop: Ctrl-C/)
  t.match(first.output(), /HALO API \(development, Node 24\.\d+\.\d+\)/)
  t.match(first.output(), /database +embedded PostgreSQL [\d.]+ \(created; data in /)
  t.match(first.output(), /counters +in this process/)
  t.match(first.output(), new RegExp(`listening +http://localhost:${new URL(first.url).port}/api/v1`))
  t.match(first.output(), /API page +http:\/\/localhost:\d+\/docs/)
  const person = {
    email: 'test@example.com',
    username: 'testuser',
    password: 'password123',
    display_name: 'Test User',
    is_adult: true
  }
  const post = (url: string) =>
    fetch(url, { method: 'POST', headers: { 'content-type': 'application/json' }, body: JSON.stringify(person) })
  const registered = await post(`${first.url}/api/v1/auth/register`)
  t.equal(registered.status, 201)
  const { token } = await registered.json() as { token: string }
  first.child.kill('SIGKILL')
  await first.exit

  const second = await startService(t, { DATA_DIR: join(folder, 'data') })
  await second.printed(/stop: Ctrl-C/)
  t.match(second.output(), /embedded PostgreSQL [\d.]+ \(reused; /, 'the server of the killed process is taken up')
  t.equal((await post(`${second.url}/api/v1/auth/login`)).status, 200)
  const me = await fetch(`${second.url}/api/v1/auth/me`, { headers: { authorization: `Bearer ${token}` } })
  t.equal(me.status, 200, 'the restart has logged nobody out')
  const { mode } = await stat(join(folder, 'data', 'development-secret'))
  t.equal(mode & 0o777, 0o600)
  second.child.kill('SIGTERM')
  t.strictSame(await second.exit, { code: 0, signal: null })

  const third = await startService(t, { DATA_DIR: join(folder, 'data') })
  await third.printed(/stop: Ctrl-C/)
  t.match(third.output(), /embedded PostgreSQL [\d.]+ \(started; /, 'a clean stop stopped the database')
  t.equal((await post(`${third.url}/api/v1/auth/login`)).status, 200)
  third.child.kill('SIGINT')
  t.equal((await third.exit).code, 0)
})

t.test('at a terminal the log is for people, elsewhere it is JSON, and in production there is no first page', async t => {
  const env = { ...await settings(t), JWT_SECRET_KEY: 'a secret of the tests, long enough to sign with' }
  const piped = await startService(t, env)
  await piped.printed(/"msg":"listening"/)
  const page = await fetch(`${piped.url}/`)
  t.match(await page.text(), /<title>HALO<\/title>/)
  const script = await fetch(`${piped.url}/client/client.ts`)
  t.match(script.headers.get('content-type'), /^text\/javascript/)
  t.notMatch(await script.text(), /: ClientOptions/, 'without types')

  // script(1) gives the service a terminal.
  const command = `${process.execPath} server.ts`
  const terminal = spawn('script', ['-qec', command, '/dev/null'], {
    env: { ...cleanEnvironment(), ...env, SERVER_PORT: String(await freePort()), WEB_CONCURRENCY: '1' }
  })
  t.teardown(() => terminal.kill())
  let output = ''
  terminal.stdout.on('data', data => { output += String(data) })
  await until('the service has started', () => output.includes('stop: Ctrl-C'))
  t.match(output, /INFO.*listening/)
  t.notMatch(output, /"msg"/)

  const production = await startService(t, {
    ...await settings(t),
    // Production names a Redis; the first page does not need it.
    REDIS_URL: stores.redisUrl ?? 'redis://127.0.0.1:1',
    NODE_ENV: 'production',
    JWT_SECRET_KEY: 'a secret of the tests, long enough to sign with',
    PASSWORD_PEPPER: 'another secret of the tests, long enough',
    CORS_ALLOWED_ORIGINS: 'https://halo.example'
  })
  await production.printed(/"msg":"listening"/)
  for (const path of ['/', '/client/client.ts']) t.equal((await fetch(`${production.url}${path}`)).status, 404, path)
})

t.test('SIGTERM turns readiness off first, lets requests in flight finish, and exits 0', async t => {
  const env = await settings(t)
  const service = await startService(t, { ...env, SERVER_DRAIN_DELAY: '1' })
  await service.printed(/"listening"/)
  const agent = new http.Agent({ keepAlive: true, maxSockets: 1 })
  t.teardown(() => agent.destroy())
  const get = (path: string) =>
    new Promise<{ status: number, connection: string | undefined }>((resolve, reject) => {
      http.get(`${service.url}${path}`, { agent }, response => {
        response.resume().on('end', () =>
          resolve({ status: response.statusCode!, connection: response.headers.connection }))
      }).on('error', reject)
    })
  t.strictSame(await get('/readyz'), { status: 200, connection: 'keep-alive' })
  // A lock makes a request wait in the database until the drain is under way.
  const held = runSql(env['DATABASE_URL']!, 'begin; lock table videos; select pg_sleep(0.3); commit')
  await new Promise(resolve => setTimeout(resolve, 100))
  const slow = fetch(`${service.url}/api/v1/videos`)
  await new Promise(resolve => setTimeout(resolve, 50))
  service.child.kill('SIGTERM')
  await service.printed(/"draining"/)
  t.strictSame(
    await get('/readyz'),
    { status: 503, connection: 'close' },
    'not ready from the moment of the signal, and clients are sent away'
  )
  t.strictSame(await get('/api/v1/videos/1'), { status: 404, connection: 'close' }, 'and still serving')
  t.equal((await slow).status, 200, 'what was in flight is answered')
  await held
  t.strictSame(await service.exit, { code: 0, signal: null })
  t.match(service.output(), /"isClosed":true,"msg":"stopped"/, 'the log is flushed')
})

t.test('a request in flight when the port closes is answered', async t => {
  const env = await settings(t)
  const service = await startService(t, env)
  await service.printed(/"listening"/)
  const held = runSql(env['DATABASE_URL']!, 'begin; lock table videos; select pg_sleep(0.35); commit')
  await new Promise(resolve => setTimeout(resolve, 50))
  const inFlight = Array.from(
    { length: 5 },
    () => fetch(`${service.url}/api/v1/videos`).then(response => response.status)
  )
  await new Promise(resolve => setTimeout(resolve, 100))
  service.child.kill('SIGTERM')
  t.strictSame(await Promise.all(inFlight), [200, 200, 200, 200, 200])
  await held
  t.equal((await service.exit).code, 0)
})

t.test('a second signal exits at once', async t => {
  const service = await startService(t, { ...await settings(t), SERVER_DRAIN_DELAY: '60' })
  await service.printed(/"listening"/)
  service.child.kill('SIGTERM')
  await service.printed(/"draining"/)
  const startedAt = performance.now()
  service.child.kill('SIGTERM')
  t.equal((await service.exit).code, 1)
  t.ok(performance.now() - startedAt < 1000)
})

t.test('production, without what it needs, refuses to boot and names everything at once', async t => {
  const service = await startService(t, { NODE_ENV: 'production', SERVER_READ_TIMEOUT: 'soon' })
  t.equal((await service.exit).code, 78)
  for (const name of ['SERVER_READ_TIMEOUT', 'JWT_SECRET_KEY', 'DATABASE_URL', 'REDIS_URL']) {
    t.match(service.output(), new RegExp(`  - ${name}`))
  }
  t.notMatch(service.output(), /at .*\.ts/, 'no stack: it is no bug')
})

t.test('a port that is taken is said so, and the process exits 1', async t => {
  const env = await settings(t)
  const first = await startService(t, env)
  await first.printed(/"listening"/)
  const second = await startService(t, { ...env, SERVER_PORT: new URL(first.url).port })
  t.equal((await second.exit).code, 1)
  t.match(second.output(), /HALO API could not start: port \d+ is taken: stop the other process, or set SERVER_PORT/)
})

t.test('the service, started while PostgreSQL is unavailable, migrates and serves when it comes', async t => {
  const env = await settings(t)
  const proxy = await createFaultyProxy(t, env['DATABASE_URL']!, 5432)
  await proxy.refuse()
  const service = await startService(t, { ...env, DATABASE_URL: proxy.url })
  await service.printed(/"listening"/)
  t.equal((await fetch(`${service.url}/api/v1/videos`)).status, 503)
  t.equal((await fetch(`${service.url}/livez`)).status, 200)
  await proxy.forward()
  await service.printed(/"database migrated"/)
  t.equal((await fetch(`${service.url}/api/v1/videos`)).status, 200)
})

t.test('what is not HTTP, too large or too slow is told so and cut off while others go on', async t => {
  const service = await startService(t, { ...await settings(t), SERVER_READ_TIMEOUT: '1' })
  await service.printed(/"listening"/)
  const say = async (text: string): Promise<string> => {
    const socket = connect(Number(new URL(service.url).port), '127.0.0.1')
    let answer = ''
    socket.on('data', data => {
      answer += String(data)
    }).on('error', () => {})
    socket.write(text)
    await once(socket, 'close')
    return answer
  }
  const [garbage, method, headers, slowHeaders, slowBody, other] = await Promise.all([
    say('\x16\x03\x01\x02\x00hello\r\n\r\n'),
    say('FROBNICATE /health HTTP/1.1\r\nHost: x\r\n\r\n'),
    say(`GET /health HTTP/1.1\r\nHost: x\r\nX-Long: ${'x'.repeat(20_000)}\r\n\r\n`),
    say('GET /health HTTP/1.1\r\nHost: x\r\nX-Half: '),
    say(
      'POST /api/v1/auth/login HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{"email"'
    ),
    fetch(`${service.url}/health`).then(response => response.status)
  ])
  t.equal(other, 200)
  for (
    const [name, answer, status, code] of [
      ['garbage', garbage, 400, 'invalid_request'],
      ['an unknown method', method, 400, 'invalid_request'],
      ['large headers', headers, 431, 'headers_too_large'],
      ['slow headers', slowHeaders, 408, 'request_timeout'],
      ['a slow body', slowBody, 408, 'request_timeout']
    ] as const
  ) {
    const [head, body] = answer.split('\r\n\r\n') as [string, string]
    t.match(head, new RegExp(`^HTTP/1.1 ${status} `), name)
    t.match(head, /content-type: application\/problem\+json/i, name)
    t.match(JSON.parse(body), { status, error: code, message: /./, title: /./ }, name)
  }
})

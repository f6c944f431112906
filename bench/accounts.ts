import { spawn, type ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { openSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { generateKeyPairSync } from 'node:crypto'
import fastify from 'fastify'
import pg from 'pg'
import fp from 'fastify-plugin'
import { openDatabase } from '../db/open-database.ts'
import { migrate } from '../db/migrate.ts'
import { seed } from '../db/seed.ts'
import { loadConfig } from '../fastify.config.ts'
import auth from '../plugins/auth.ts'
import { createPasswordService } from '../services/passwords.ts'
import { createRefreshTokens } from '../services/refresh-tokens.ts'
import { machine, median } from './measure.ts'
import { createGenerator, percentile } from './open-loop.ts'

/**
 * `npm run bench:accounts`: what it takes to read an access token, new and seen before; and what a storm of logins, far
 * beyond what bcrypt allows, does to them and to who reads videos meanwhile.
 */

const secret = 'a secret for a bench, which nobody logs in to'
const password = 'password123'
const root = join(import.meta.dirname, '..')

print(`Accounts on ${machine()}`)
await benchTokens('HS256', {})
await benchTokens('EdDSA', { JWT_SIGNING_KEY: (generateKeyPairSync('ed25519').privateKey.export({ format: 'der', type: 'pkcs8' })).toString('base64') })
await benchStorm()

/** Reads tokens as a request does: by the Authorization header, past the revocations. */
async function benchTokens (algorithm: string, env: Record<string, string>): Promise<void> {
  const config = loadConfig({ JWT_SECRET_KEY: secret, ...env })
  const app = fastify()
  const stand = (name: string) => fp(async () => {}, { name })
  for (const name of ['halo:config', 'halo:errors', 'halo:rate-limit', 'halo:services']) await app.register(stand(name))
  app.decorate('config', config)
  const nobody = { isLoaded: true, isRevoked: () => false }
  app.decorate('services', { refreshTokens: createRefreshTokens([secret]), revocations: nobody, sessionUses: { note: () => {} } } as never)
  await app.register(auth)
  await app.ready()
  const session = { sid: 'A'.repeat(22), generation: 0, expiresAt: new Date(Date.now() + 1e9) }
  const count = 5000
  const tokens = Array.from({ length: count * 6 }, (_, n) =>
    `Bearer ${app.tokensOf({ account: { id: n + 1, email: `${n}@example.com`, username: `user ${n}` } as never, session }).token}`)
  const time = (from: number, times: number): number => {
    const startedAt = performance.now()
    for (let round = 0; round < times; round++) {
      for (let n = from; n < from + count; n++) app.bearers.read(tokens[n])
    }
    return (performance.now() - startedAt) * 1000 / count / times
  }
  const fresh: number[] = []
  const seen: number[] = []
  for (let round = 0; round < 6; round++) {
    const [first, again] = [time(round * count, 1), time(round * count, 20)]
    // The first round is thrown away.
    if (round > 0) {
      fresh.push(first)
      seen.push(again)
    }
  }
  print(`${algorithm}: a token that is new ${spread(fresh)} µs, one that was seen before ${spread(seen)} µs`)
  await app.close()
}

function spread (values: number[]): string {
  return `${median(values).toFixed(2)} (${Math.min(...values).toFixed(2)}–${Math.max(...values).toFixed(2)})`
}

async function benchStorm (): Promise<void> {
  const database = await openDatabase(loadConfig({ ...process.env, DATA_DIR: process.env['DATA_DIR'] ?? join(root, '.data', 'bench') }).database)
  let service: ChildProcess | undefined
  const generators: ReturnType<typeof createGenerator>[] = []
  try {
    await migrate(database.connection)
    await seed(database.connection, { users: 100, videos: 1000 })
    const pool = new pg.Pool({ ...database.connection, max: 1 })
    await pool.query('delete from login_attempts')
    const { rows: [video] } = await pool.query<{ id: string }>('select id from videos where not is_adult_content limit 1')
    // Of today's form, so that no login makes its hash anew.
    const hashes = createPasswordService(loadConfig({}).passwords)
    const { rows: users } = await pool.query<{ email: string }>('update users set password_hash = $1 where id in (select id from users order by id limit 100) returning email', [await hashes.hash(password)])
    await hashes.close()
    const accounts = users.map(({ email }) => email)
    await pool.end()
    const port = 20_000 + process.pid % 10_000
    service = spawn(process.execPath, [join(root, 'server.ts')], {
      env: {
        ...process.env,
        ...'connectionString' in database.connection ? { DATABASE_URL: database.connection.connectionString } : {},
        SERVER_PORT: String(port),
        SERVER_HOST: '127.0.0.1',
        TRUST_PROXY: '127.0.0.1',
        JWT_SECRET_KEY: secret
      },
      stdio: ['ignore', openSync('/dev/null', 'w'), 'inherit']
    })
    for (let tries = 0; !await fetch(`http://127.0.0.1:${port}/readyz`).then(answer => answer.ok, () => false); tries++) {
      if (tries > 100) throw new Error('the service did not start')
      await sleep(100)
    }
    const readers = createGenerator()
    const attackers = createGenerator()
    generators.push(readers, attackers)
    const read = (seconds: number) => readers.run({ port, method: 'GET', path: `/api/v1/videos/${video!.id}`, rate: 200, seconds })
    const login = (rate: number, seconds: number) => attackers.run({
      port, method: 'POST', path: '/api/v1/auth/login', bodies: accounts.map(email => JSON.stringify({ email, password })), rate, seconds
    })
    // The thread is up.
    await login(2, 3)
    await read(3)

    const rounds = 3
    const ratios: number[] = []
    const burnt: number[] = []
    for (let round = 0; round < rounds; round++) {
      const quiet = await read(10)
      const burner = spawn(process.execPath, ['-e', 'os.setPriority(0, os.constants.priority.PRIORITY_LOW); for (;;) {}'], { stdio: 'ignore' })
      const [beside] = await Promise.all([read(10), attackers.run({ port, method: 'POST', path: '/api/v1/auth/nothing', bodies: ['{}'], rate: 200, seconds: 10 })])
      burner.kill('SIGKILL')
      burnt.push(percentile(beside, 99) / percentile(quiet, 99))
      const [reads, logins] = await Promise.all([read(10), login(200, 10)])
      const taken = logins.filter(({ status }) => status === 200)
      const refused = logins.filter(({ status }) => status === 503)
      const others = logins.length - taken.length - refused.length
      ratios.push(percentile(reads, 99) / percentile(quiet, 99))
      print([
        `200 logins a second for 10 s: ${taken.length} taken (p99 ${percentile(taken, 99).toFixed(0)} ms), ${refused.length} refused (p99 ${percentile(refused, 99).toFixed(1)} ms), ${others} others;`,
        ` GET of a video p99 ${percentile(reads, 99).toFixed(1)} ms, without them ${percentile(quiet, 99).toFixed(1)} ms`
      ].join(''))
      if (others > 0 || refused.some(({ retryAfter }) => retryAfter === undefined) || reads.some(({ status }) => status !== 200)) process.exitCode = 1
    }
    print(`p99 of the reads with logins, of that without: ${spread(ratios)}\n  the control, 200 requests a second for nothing and one CPU burnt by somebody else at the lowest priority: ${spread(burnt)}`)
  } finally {
    for (const generator of generators) generator.stop()
    if (service) {
      service.kill('SIGTERM')
      await once(service, 'exit')
    }
    await database.stop()
  }
}

function print (line: string): void {
  process.stdout.write(`${line}\n`)
}

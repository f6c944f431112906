import { spawn } from 'node:child_process'
import { generateKeyPairSync } from 'node:crypto'
import fastify from 'fastify'
import fp from 'fastify-plugin'
import { loadConfig } from '../fastify.config.ts'
import auth from '../plugins/auth.ts'
import { createRefreshTokens } from '../services/accounts/refresh-tokens.ts'
import { readCommandLine } from '../services/runtime/command-line.ts'
import { createGenerator } from './generator.ts'
import { machine, median } from './measure.ts'
import { createWorld, print, secret } from './world.ts'

/**
 * `npm run bench:accounts`: what it takes to read an access token, new and seen before; and what a storm of logins, far
 * beyond what bcrypt allows, does to them and to who reads videos meanwhile.
 */

readCommandLine({
  usage: `Usage: npm run bench:accounts

What access tokens cost, and what a storm of logins does to reads. PostgreSQL and Redis as for npm run bench.`
})

const password = 'password123'

print(`Accounts on ${machine()}`)
await benchTokens('HS256', {})
await benchTokens('EdDSA', {
  JWT_SIGNING_KEY: (generateKeyPairSync('ed25519').privateKey.export({ format: 'der', type: 'pkcs8' })).toString(
    'base64'
  )
})
await benchStorm()

/** Reads tokens as a request does: by the Authorization header, past the revocations. */
async function benchTokens (algorithm: string, env: Record<string, string>): Promise<void> {
  const config = loadConfig({ JWT_SECRET_KEY: secret, ...env })
  const app = fastify()
  const stand = (name: string) => fp(async () => {}, { name })
  for (const name of ['halo:config', 'halo:errors', 'halo:rate-limit', 'halo:services']) await app.register(stand(name))
  app.decorate('config', config)
  const nobody = { isLoaded: true, isRevoked: () => false }
  app.decorate(
    'services',
    { refreshTokens: createRefreshTokens([secret]), revocations: nobody, sessionActivity: { note: () => {} } } as never
  )
  await app.register(auth)
  await app.ready()
  const session = { sid: 'A'.repeat(22), generation: 0, expiresAt: new Date(Date.now() + 1e9) }
  const count = 5000
  const tokens = Array.from(
    { length: count * 6 },
    (_, n) =>
      `Bearer ${
        app.tokensOf({ account: { id: n + 1, email: `${n}@example.com`, username: `user ${n}` } as never, session })
          .token
      }`
  )
  const time = (from: number, times: number): number => {
    const startedAt = performance.now()
    for (let round = 0; round < times; round++) {
      for (let n = from; n < from + count; n++) app.verifiedTokens.read(tokens[n])
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
  const world = await createWorld({ users: 100, videos: 1000 })
  const [readers, attackers] = [createGenerator(), createGenerator()]
  try {
    await world.pool.query('delete from login_attempts')
    const service = await world.startService()
    const emails = (await world.pool.query<{ email: string }>('select email from users order by id limit 100')).rows
      .map(({ email }) => email)
    const read = (seconds: number) =>
      readers.run({
        ...service,
        connections: 64,
        addresses: 250,
        rate: 200,
        seconds,
        kinds: [{ name: 'read', weight: 1, method: 'GET', paths: [`/api/v1/videos/${world.videos[0]}`], expect: [200] }]
      })
    // One client address each, so that no rate limit is reached.
    const post = (path: string, rate: number, seconds: number, expect: number[], bodies: string[]) =>
      attackers.run({
        ...service,
        connections: 256,
        addresses: 10_000,
        rate,
        seconds,
        kinds: [{ name: path, weight: 1, method: 'POST', paths: [path], bodies, expect }]
      })
    const login = (rate: number, seconds: number) =>
      post('/api/v1/auth/login', rate, seconds, [200, 503], emails.map(email => JSON.stringify({ email, password })))
    // Warm-up: starts the thread, and lets the first login re-hash each password in today's form.
    await login(6, 30)
    await read(3)

    const rounds = 3
    const ratios: number[] = []
    const burnt: number[] = []
    for (let round = 0; round < rounds; round++) {
      const quiet = await read(10)
      const burner = spawn(process.execPath, [
        '-e',
        'os.setPriority(0, os.constants.priority.PRIORITY_LOW); for (;;) {}'
      ], { stdio: 'ignore' })
      const [beside] = await Promise.all([read(10), post('/api/v1/auth/nothing', 200, 10, [404], ['{}'])])
      burner.kill('SIGKILL')
      burnt.push(beside.latency.p99 / quiet.latency.p99)
      const [reads, logins] = await Promise.all([read(10), login(200, 10)])
      ratios.push(reads.latency.p99 / quiet.latency.p99)
      print([
        `200 logins a second for 10 s: ${logins.answered} taken (p99 ${
          logins.latency.p99.toFixed(0)
        } ms), ${logins.refusals.count} refused (p99 ${logins.refusals.p99.toFixed(1)} ms), others ${
          JSON.stringify(logins.unexpected)
        };`,
        ` GET of a video p99 ${reads.latency.p99.toFixed(1)} ms, without them ${quiet.latency.p99.toFixed(1)} ms`
      ].join(''))
      if ([logins, reads].some(({ unexpected }) => Object.keys(unexpected).length > 0)) process.exitCode = 1
    }
    print(
      `p99 of the reads with logins, of that without: ${
        spread(ratios)
      }\n  the control, 200 requests a second for nothing and one CPU burnt by somebody else at the lowest priority: ${
        spread(burnt)
      }`
    )
  } finally {
    readers.stop()
    attackers.stop()
    await world.stop()
  }
}

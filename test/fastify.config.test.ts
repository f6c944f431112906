import { readFileSync } from 'node:fs'
import { availableParallelism } from 'node:os'
import { join } from 'node:path'
import t from 'tap'
import { loadConfig, serverOptions } from '../fastify.config.ts'
import { Environment } from '../schemas/environment.ts'
import { ConfigurationError } from '../services/runtime/configuration-error.ts'
import { secretSettings } from '../services/runtime/secret-files.ts'
import { configurationPage } from './document/configuration.ts'

const production = {
  NODE_ENV: 'production',
  DATABASE_URL: 'postgres://halo:secret@db:5432/halo',
  REDIS_URL: 'redis://cache:6379',
  JWT_SECRET_KEY: 'x'.repeat(32),
  PASSWORD_PEPPER: 'p'.repeat(32)
}

function problemsOf (variables: Record<string, string>): string[] {
  try {
    loadConfig(variables)
    return []
  } catch (error) {
    return (error as ConfigurationError).problems
  }
}

t.test('PUBLIC_URL stands in headers and bodies as a URL is written', async t => {
  for (
    const [given, read] of [['https://api.example', 'https://api.example'], [
      'https://api.example/halo/',
      'https://api.example/halo'
    ], ['https://мир.example', 'https://xn--h1ahn.example']] as const
  ) {
    t.equal(loadConfig({ PUBLIC_URL: given }).publicUrl, read)
  }
})

t.test('no variables at all make a development configuration on embedded stores', async t => {
  const config = loadConfig({})
  t.match(config, {
    environment: 'development',
    server: { port: 8080, readTimeoutMs: 10_000, writeTimeoutMs: 10_000, idleTimeoutMs: 120_000, trustProxy: [] },
    database: { kind: 'embedded' },
    databasePool: { max: 100, min: 10, maxLifetimeSeconds: 3600 },
    redis: null,
    jwt: { expiresInSeconds: 24 * 3600 },
    cors: { origins: '*' },
    rateLimit: {
      policies: {
        address: { per: 'address', rate: 1000, burst: 2000 },
        login: { per: 'address', rate: 5, burst: 20 },
        engagement: { per: 'user', rate: 200, burst: 1000 }
      }
    }
  })
  t.ok(Buffer.byteLength(config.jwt.secret) >= 32)
  t.not(loadConfig({}).jwt.secret, config.jwt.secret, 'each process has a key of its own')
  t.match(config.warnings, [/JWT_SECRET_KEY/])
  t.throws(
    () => {
      ;(config.server as { port: number }).port = 1
    },
    TypeError,
    'it is frozen'
  )
})

t.test('URLs win over the parts, and empty variables count as not set', async t => {
  const parts = {
    DB_HOST: 'db',
    DB_PORT: '6543',
    DB_USER: 'u',
    DB_PASSWORD: 'p',
    DB_NAME: 'n',
    REDIS_HOST: 'cache',
    REDIS_PORT: '6380',
    REDIS_PASSWORD: 'q',
    REDIS_DB: '3'
  }
  t.match(loadConfig(parts), {
    database: { kind: 'server', connection: { host: 'db', port: 6543, user: 'u', password: 'p', database: 'n' } },
    redis: { host: 'cache', port: 6380, password: 'q', db: 3 }
  })
  t.match(loadConfig({ ...parts, DATABASE_URL: 'postgres://x/y', REDIS_URL: 'rediss://z' }), {
    database: { connection: { connectionString: 'postgres://x/y' } },
    redis: { url: 'rediss://z' }
  })
  t.match(loadConfig({ DB_HOST: '', REDIS_HOST: ' ', SERVER_PORT: '', DB_PASSWORD: '' }), {
    database: { kind: 'embedded' },
    redis: null,
    server: { port: 8080 }
  })
})

t.test('as many processes serve as there are CPUs, or as WEB_CONCURRENCY says, and share the connections and threads', async t => {
  t.equal(loadConfig({}).workers, 1, 'one, where counters live in the process')
  t.equal(loadConfig({ REDIS_URL: 'redis://z' }).workers, availableParallelism())
  const config = loadConfig({
    REDIS_URL: 'redis://z',
    WEB_CONCURRENCY: '3',
    DB_MAX_OPEN_CONNS: '100',
    DB_MAX_IDLE_CONNS: '10'
  })
  t.match(config, { workers: 3, databasePool: { max: 33, min: 3 } })
  t.equal(loadConfig({ REDIS_URL: 'redis://z', WEB_CONCURRENCY: '256', DB_MAX_OPEN_CONNS: '256' }).passwords.threads, 1)
  t.match(problemsOf({ WEB_CONCURRENCY: '2' }), [/^WEB_CONCURRENCY is 2, and without Redis.*set REDIS_URL/])
  t.match(
    problemsOf({ REDIS_URL: 'redis://z', WEB_CONCURRENCY: '8', DB_MAX_OPEN_CONNS: '7', DB_MAX_IDLE_CONNS: '1' }),
    [/^DB_MAX_OPEN_CONNS \(7\) is below the 8 processes/]
  )
})

t.test('production, with everything it needs, boots; without, it names all that is missing at once', async t => {
  t.strictSame(problemsOf(production), [])
  t.strictSame(loadConfig(production).cors.origins, [], 'no origin is allowed unless it is listed')
  t.match(problemsOf({ NODE_ENV: 'production' }), [
    /^JWT_SECRET_KEY is missing.*openssl/,
    /^DATABASE_URL.*missing/,
    /^REDIS_URL.*missing/
  ])
  t.match(problemsOf({ ...production, JWT_SECRET_KEY: 'x'.repeat(31) }), [/31 bytes/])
  t.strictSame(problemsOf({ ...production, JWT_SECRET_KEY: 'é'.repeat(16) }), [], '32 bytes, not 32 characters')
  t.match(problemsOf({ ...production, CORS_ALLOWED_ORIGINS: '*' }), [/CORS_ALLOWED_ORIGINS/])
  t.match(problemsOf({ ...production, PASSWORD_COST: '9' }), [/PASSWORD_COST/])
  t.match(problemsOf({ ...production, PASSWORD_PEPPER: 'p'.repeat(31) }), [/PASSWORD_PEPPER has 31 bytes/])
})

t.test('every wrong setting is named at once, with how to mend it and without a secret', async t => {
  const problems = problemsOf({
    NODE_ENV: 'staging',
    SERVER_PORT: '99999',
    SERVER_READ_TIMEOUT: '10s',
    DB_MAX_OPEN_CONNS: '5',
    DB_MAX_IDLE_CONNS: '6',
    DATABASE_URL: 'mysql://user:hunter2@host/db',
    REDIS_URL: 'hunter3',
    LOG_LEVEL: 'loud',
    JWT_SECRET_KEY: 'hunter4',
    JWT_SIGNING_KEY: 'hunter5',
    JWT_PREVIOUS_KEYS: `${'x'.repeat(32)},hunter6,ed25519:hunter7`,
    PASSWORD_PEPPER: 'hunter8',
    PASSWORD_BLOCKLIST: 'some',
    PASSWORD_PREVIOUS_PEPPERS: '["hunter9',
    CORS_ALLOWED_ORIGINS: 'https://a.example/,b.example',
    RATE_LIMIT_RPS: '0',
    TRUST_PROXY: '10.0.0.0/8,true,10.0.0.0/33,1',
    PUBLIC_URL: 'api.example'
  })
  for (
    const name of [
      'NODE_ENV',
      'SERVER_PORT',
      'SERVER_READ_TIMEOUT',
      'DB_MAX_IDLE_CONNS',
      'DATABASE_URL',
      'REDIS_URL',
      'LOG_LEVEL',
      'JWT_SECRET_KEY',
      'JWT_SIGNING_KEY',
      'JWT_PREVIOUS_KEYS',
      'PASSWORD_PEPPER',
      'PASSWORD_BLOCKLIST',
      'PASSWORD_PREVIOUS_PEPPERS',
      'CORS_ALLOWED_ORIGINS',
      'RATE_LIMIT_RPS',
      'TRUST_PROXY',
      'PUBLIC_URL'
    ]
  ) {
    const own = problems.filter(problem => problem.startsWith(name))
    t.ok(own.length > 0, name)
    for (const problem of own) t.match(problem, /: .{10}/, 'says how to mend it')
  }
  t.equal(
    problems.filter(problem => problem.startsWith('TRUST_PROXY')).length,
    3,
    'true, a prefix of 33 and a count of hops'
  )
  t.equal(problems.filter(problem => problem.startsWith('JWT_PREVIOUS_KEYS')).length, 1)
  t.notMatch(problems.join('\n'), /hunter/)
  const error = new ConfigurationError(problems)
  t.equal(error.message.split('\n').length, problems.length + 1)
})

for (const value of ['1.5', '-1', '1e3', '0x10', 'abc', '10 s', '9'.repeat(30), 'NaN']) {
  t.match(problemsOf({ SERVER_PORT: value }), [/^SERVER_PORT is /], `SERVER_PORT=${value}`)
}

t.test("the contract's timeouts reach the server", async t => {
  t.match(serverOptions(loadConfig({})), {
    requestTimeout: 10_000,
    connectionTimeout: 10_000,
    keepAliveTimeout: 120_000,
    return503OnClosing: false,
    trustProxy: false,
    http: { headersTimeout: 10_000 }
  })
  t.strictSame(serverOptions(loadConfig({ TRUST_PROXY: '10.0.0.0/8, ::1' })).trustProxy, ['10.0.0.0/8', '::1'])
})

t.test('docs/CONFIGURATION.md is that of the schema, and .env.example names every setting and no other', async t => {
  const root = join(import.meta.dirname, '..')
  t.equal(readFileSync(join(root, 'docs', 'CONFIGURATION.md'), 'utf8'), configurationPage(), 'npm run document writes it')
  const example = readFileSync(join(root, '.env.example'), 'utf8')
  for (const [name, { description }] of Object.entries(Environment.properties)) {
    t.match(description, /^[^|\n]{10,}$/, name)
    t.match(example, new RegExp(`^# ?${name}=|^${name}=`, 'm'), `.env.example: ${name}`)
  }
  const known = new Set(Object.keys(Environment.properties))
  t.strictSame([...example.matchAll(/^#? ?([A-Z_]+)=/gm)].map(([, name]) => name!).filter(name => !known.has(name)), [])
  t.doesNotThrow(
    () =>
      loadConfig(
        Object.fromEntries([...example.matchAll(/^([A-Z_]+)=(.*)$/gm)].map(([, name, value]) => [name, value]))
      ),
    '.env.example works as it stands'
  )
})

t.test('hashes that were made without a pepper are verified when there is one', async t => {
  const { passwords } = loadConfig({ PASSWORD_PEPPER: 'p'.repeat(32), PASSWORD_PREVIOUS_PEPPERS: 'q' })
  t.strictSame([passwords.pepper, passwords.previousPeppers], ['p'.repeat(32), ['q', loadConfig({}).passwords.pepper]])
  t.strictSame(loadConfig(production).passwords.previousPeppers, [passwords.previousPeppers[1]], 'also in production')
})

t.test('production boots with the environment of the Go service', async t => {
  const { PASSWORD_PEPPER: _, ...withoutPepper } = production
  const config = loadConfig(withoutPepper)
  t.match(config.warnings, [/^PASSWORD_PEPPER is not set/])
  t.equal(config.passwords.pepper, loadConfig({}).passwords.pepper)
  t.strictSame(problemsOf({ ...production, DB_MAX_OPEN_CONNS: '5' }), [])
  t.match(loadConfig({ ...production, DB_MAX_OPEN_CONNS: '5', WEB_CONCURRENCY: '1' }), { databasePool: { max: 5, min: 5 } })
  t.ok(loadConfig({ ...production, DB_MAX_OPEN_CONNS: '1' }).workers === 1, 'the processes follow the connections')
  const unlimited = {
    SERVER_READ_TIMEOUT: '0',
    SERVER_WRITE_TIMEOUT: '0',
    SERVER_IDLE_TIMEOUT: '0',
    DB_MAX_OPEN_CONNS: '0',
    DB_MAX_IDLE_CONNS: '0',
    DB_CONN_MAX_LIFETIME: '0',
    REDIS_POOL_SIZE: '0',
    REDIS_MIN_IDLE_CONNS: '0'
  }
  t.match(loadConfig({ ...production, ...unlimited, WEB_CONCURRENCY: '1' }), {
    server: { readTimeoutMs: 10_000, writeTimeoutMs: 10_000, idleTimeoutMs: 120_000 },
    databasePool: { max: 100, min: 0, maxLifetimeSeconds: 0 }
  })
  t.match(problemsOf({ ...production, JWT_SECRET_KEY: 'short' }), [/put the present one into JWT_PREVIOUS_KEYS/])
  const short = loadConfig({ ...production, JWT_PREVIOUS_KEYS: 'short' })
  t.match(short.warnings, [/^JWT_PREVIOUS_KEYS has a secret of fewer than 32 bytes/])
})

t.test('secrets can be in files, and a file that is missing, empty or contradicted is named', async t => {
  const folder = t.testdir({ good: 'a secret of the tests, long enough to sign with\n', empty: '\n', large: 'x'.repeat(70_000) })
  const file = (name: string): string => join(folder, name)
  t.equal(loadConfig({ JWT_SECRET_KEY_FILE: file('good') }).jwt.secret, 'a secret of the tests, long enough to sign with')
  t.match(problemsOf({ JWT_SECRET_KEY_FILE: file('none') }), [/^JWT_SECRET_KEY_FILE is .*none, which cannot be read: ENOENT/])
  t.match(problemsOf({ PASSWORD_PEPPER_FILE: file('empty') }), [/^PASSWORD_PEPPER_FILE is .*, which is empty/])
  t.match(problemsOf({ DB_PASSWORD_FILE: file('large') }), [/^DB_PASSWORD_FILE is .*more than 65536 bytes/])
  t.match(problemsOf({ JWT_SECRET_KEY_FILE: file('good'), JWT_SECRET_KEY: 'another secret of the tests, as long' }), [
    /^JWT_SECRET_KEY and JWT_SECRET_KEY_FILE are both set, and differ/
  ])
  t.strictSame(problemsOf({ JWT_SECRET_KEY_FILE: file('good'), JWT_SECRET_KEY: 'a secret of the tests, long enough to sign with' }), [])
  for (const name of secretSettings) t.ok(name in Environment.properties, name)
})

import { mkdtempSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { Redis } from 'ioredis'
import t from 'tap'
import { loadConfig } from '../../../fastify.config.ts'
import { ConfigurationError } from '../../../services/runtime/configuration-error.ts'
import { connectRedis } from '../../../services/stores/redis-connection.ts'
import { describeServer, passwordOf } from '../../../services/stores/store-settings.ts'

function problemsOf (variables: Record<string, string>): readonly string[] {
  try {
    loadConfig(variables)
    return []
  } catch (error) {
    return (error as ConfigurationError).problems
  }
}

t.test('URLs of PostgreSQL that the client supports are accepted', async t => {
  for (
    const url of [
      'postgres://u@/db?host=/var/run/postgresql',
      'postgresql:///db',
      'postgres://u:p%40@h:5433/db?sslmode=verify-full&options=-csearch_path%3Dhalo',
      'postgres://[::1]:5432/db'
    ]
  ) t.match(loadConfig({ DATABASE_URL: url }).database, { kind: 'server', connection: { connectionString: url } })
  t.equal(describeServer({ connectionString: 'postgres://u:secret@/db?host=/var/run/postgresql' }), '/var/run/postgresql/db')
  t.equal(describeServer({ connectionString: 'postgres://u:secret@h:5433/db' }), 'h:5433/db')
  t.equal(passwordOf({ connectionString: 'postgres://u:s%23@/db?host=/tmp' }), 's#')
})

t.test('what cannot be supported is refused, with the reason and without the password', async t => {
  const refused: [value: string, message: RegExp][] = [
    ['postgres://u:hunter2@a:1,b:2/db', /several hosts/],
    ['postgres://u:hunter2@/db?host=a,b', /several hosts/],
    ['postgres://u:hunter2@h/db?target_session_attrs=read-write', /target_session_attrs, which this service does not take/],
    ['postgres://u:hunter2@h/db?sslmode=verify-full&sslrootcert=/none', /cannot be read/],
    ['postgres://u:hunter2@h:99999/db', /is not a URL/],
    ['mysql://u:hunter2@h/db', /is not a URL/]
  ]
  for (const [url, message] of refused) {
    for (const name of ['DATABASE_URL', 'DATABASE_REPLICA_URL']) {
      const problems = problemsOf({ DATABASE_URL: 'postgres://u@h/db', [name]: url })
      t.match(problems, [message], url)
      t.equal(problems.length, 1, url)
      t.match(problems[0], new RegExp(`^${name} `))
      t.notMatch(problems.join(), /hunter2/)
    }
  }
  t.match(problemsOf({ REDIS_URL: 'redis://:hunter2@h/x' }), [/^REDIS_URL ends with the number of a database/])
  t.match(problemsOf({ REDIS_URL: 'redis://h?family=6' }), [/^REDIS_URL has family/])
  t.match(problemsOf({ REDIS_URL: 'redis://h/2', REDIS_CLUSTER: 'true' }), [/only database 0/])
  t.match(problemsOf({ REDIS_HOST: 'h', REDIS_DB: '2', REDIS_CLUSTER: 'true' }), [/only database 0/])
  t.match(problemsOf({ REDIS_SENTINELS: 'a:1', REDIS_URL: 'redis://h' }), [/name different servers/])
  t.match(problemsOf({ REDIS_SENTINELS: 'a:b:c' }), [/list the sentinels as host:port/])
  t.match(problemsOf({ REDIS_URL: 'redis://:100%@h' }), [/^REDIS_URL has a % that is no escape/])
  t.match(problemsOf({ REDIS_SENTINELS: 'a:99999' }), [/list the sentinels as host:port/])
  t.match(problemsOf({ REDIS_HOST: 'h', REDIS_CA_FILE: '/none' }), [/^REDIS_CA_FILE cannot be read \(ENOENT\)/])
  t.match(problemsOf({ DB_HOST: 'h', DB_CA_FILE: '/none' }), [/^DB_CA_FILE cannot be read \(ENOENT\)/])
})

t.test('a file of certificates applies to the parts and to a URL', async t => {
  const file = join(mkdtempSync(join(tmpdir(), 'halo-ca-')), 'ca.pem')
  writeFileSync(file, 'a certificate')
  t.match(loadConfig({ DB_HOST: 'h', DB_CA_FILE: file }).database, { connection: { host: 'h', ssl: { ca: 'a certificate' } } })
  const url = 'postgres://u:p@h:5433/db?sslmode=verify-full'
  t.match(loadConfig({ DATABASE_URL: url, DB_CA_FILE: file, DATABASE_REPLICA_URL: url }), {
    database: { connection: { host: 'h', port: 5433, user: 'u', password: 'p', database: 'db', ssl: { ca: 'a certificate' } } },
    databaseReplica: { host: 'h', ssl: { ca: 'a certificate' } }
  })
  t.match(loadConfig({ REDIS_SENTINELS: 'a, [::1]:26380', REDIS_PASSWORD: 'p', REDIS_TLS: 'true' }).redis, {
    sentinels: [{ host: 'a', port: 26379 }, { host: '::1', port: 26380 }],
    masterName: 'mymaster',
    password: 'p',
    isTls: true
  })
})

t.test('REDIS_TLS and REDIS_CA_FILE apply to a URL as well, and the CA file of PostgreSQL verifies whatever the URL says', async t => {
  const file = join(mkdtempSync(join(tmpdir(), 'halo-ca-')), 'ca.pem')
  writeFileSync(file, 'a certificate')
  const tlsOf = (variables: Record<string, string>) => {
    const client = connectRedis(loadConfig(variables).redis!) as Redis
    client.disconnect()
    return client.options.tls
  }
  t.equal(tlsOf({ REDIS_URL: 'redis://h' }), undefined)
  t.strictSame(tlsOf({ REDIS_URL: 'redis://h', REDIS_TLS: 'true' }), {})
  t.strictSame(tlsOf({ REDIS_URL: 'redis://h', REDIS_CA_FILE: file }), { ca: 'a certificate' })
  t.strictSame(tlsOf({ REDIS_HOST: 'h', REDIS_CA_FILE: file }), { ca: 'a certificate' })
  t.strictSame(tlsOf({ REDIS_URL: 'rediss://h' }), {})
  const { database } = loadConfig({ DATABASE_URL: 'postgres://u@h/db?sslmode=no-verify&application_name=x', DB_CA_FILE: file })
  t.match(database, { connection: { ssl: { ca: 'a certificate', rejectUnauthorized: undefined }, application_name: 'x' } })
})

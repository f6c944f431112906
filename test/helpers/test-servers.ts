import { spawn } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { Redis } from 'ioredis'
import pg from 'pg'
import { startEmbeddedPostgres } from '../../db/embedded-postgres.ts'
import { migrate } from '../../db/migrate.ts'
import { startRedis } from './redis-server.ts'
import { isOursOrEmpty, markerKey } from './test-marker.ts'

/** Why a test run cannot begin, in one line for a person. The run exits 2 and has changed nothing. */
export class UnusableServer extends Error {
  override name = 'UnusableServer'
}

/** The servers of one test run. */
export interface TestServers {
  /** What test files are told by their environment (helpers/stores.ts). */
  env: Record<string, string>
  /** What is under test, for a person. */
  description: string
  hasRedis: boolean
  stop(): Promise<void>
}

export interface TestServerOptions {
  /** Folder of the embedded PostgreSQL. */
  directory: string
  /**
   * PostgreSQL and Redis that the developer has named for the tests. Without them the run starts servers of its own.
   */
  databaseUrl?: string | undefined
  redisUrl?: string | undefined
  /** `embedded`: PostgreSQL from npm and counters in the process; `servers`: PostgreSQL and Redis. */
  kinds: ('embedded' | 'servers')[]
  /** Test files that run at once: each has a Redis database of its own. */
  jobs: number
}

/**
 * Starts the servers that the tests need, on free ports, or checks those that were named.
 *
 * @throws UnusableServer when a named server refuses, or its Redis database holds data that are not of a test
 */
export async function startTestServers (
  { directory, databaseUrl, redisUrl, kinds, jobs }: TestServerOptions
): Promise<TestServers> {
  const env: Record<string, string> = { HALO_TEST_JOBS: String(jobs) }
  const stops: (() => Promise<unknown>)[] = []
  const stop = async (): Promise<void> => {
    for (const one of stops.splice(0).reverse()) await one().catch(() => {})
  }
  const wantsServers = kinds.includes('servers')
  try {
    if (wantsServers && databaseUrl !== undefined) await checkPostgres(databaseUrl)
    if (wantsServers && redisUrl !== undefined) await claimRedis(redisUrl, jobs)
    const isEmbeddedNeeded = kinds.includes('embedded') || (wantsServers && databaseUrl === undefined)
    const embedded = isEmbeddedNeeded ? await startEmbeddedPostgres(directory, { isThrowAway: true }) : undefined
    if (embedded) {
      stops.push(embedded.stop)
      // While it is open, another run in this checkout that ends does not stop the server.
      const connection = new pg.Client({ connectionString: embedded.url })
      await connection.on('error', () => {}).connect()
      stops.push(() => connection.end())
      if (embedded.origin !== 'reused') await dropLeftovers(embedded.url)
    }
    let serverRedisUrl = redisUrl
    if (wantsServers && redisUrl === undefined && await hasRedisServer()) {
      const redis = await startRedis(['--databases', String(jobs)])
      stops.push(redis.stop)
      serverRedisUrl = `${redis.url}/0`
      await claimRedis(serverRedisUrl, jobs)
    }
    const template = `halo_test_template_${randomBytes(6).toString('hex')}`
    const hasRedis = wantsServers && serverRedisUrl !== undefined
    const servers = [
      ...new Set([...embedded ? [embedded.url] : [], ...hasRedis && databaseUrl !== undefined ? [databaseUrl] : []])
    ]
    for (const url of servers) {
      await createTemplate(url, template)
      stops.push(() => runSql(url, `drop database if exists ${template} with (force)`))
    }
    env['HALO_TEST_TEMPLATE'] = template
    if (kinds.includes('embedded')) env['HALO_TEST_EMBEDDED_URL'] = embedded!.url
    if (hasRedis) {
      env['HALO_TEST_DATABASE_URL'] = databaseUrl ?? embedded!.url
      env['HALO_TEST_REDIS_URL'] = serverRedisUrl!
    }
    const descriptions = [
      ...kinds.includes('embedded') ? [`embedded PostgreSQL ${embedded!.version} with counters in the process`] : [],
      ...hasRedis
        ? [
          `${
            databaseUrl === undefined
              ? `embedded PostgreSQL ${embedded!.version}`
              : `PostgreSQL at ${placeOf(databaseUrl)}`
          } with ${redisUrl === undefined ? 'a redis-server of this run' : `Redis at ${placeOf(redisUrl)}`}`
          ]
        : []
    ]
    return { env, description: descriptions.join(', and on '), hasRedis, stop }
  } catch (error) {
    await stop()
    throw error
  }
}

/** Host, port and database of a URL; never its password. */
const placeOf = (url: string): string => new URL(url).host + new URL(url).pathname

async function runSql (url: string, text: string): Promise<void> {
  const client = new pg.Client({ connectionString: url, connectionTimeoutMillis: 5000 })
  client.on('error', () => {})
  await client.connect()
  try {
    await client.query(text)
  } finally {
    await client.end()
  }
}

async function checkPostgres (url: string): Promise<void> {
  await runSql(url, 'select 1').catch((error: unknown) => {
    throw new UnusableServer(
      `TEST_DATABASE_URL: PostgreSQL at ${placeOf(url)} refuses the connection: ${
        (error as Error).message || (error as { code?: string }).code
      }`
    )
  })
}

/** Databases of a run that was killed; nobody else uses the embedded server that was not running. */
async function dropLeftovers (url: string): Promise<void> {
  const client = new pg.Client({ connectionString: url })
  await client.connect()
  const { rows } = await client.query<{ name: string }>(
    "select datname as name from pg_database where datname ~ '^halo_test_'"
  )
  for (const { name } of rows) await client.query(`drop database if exists ${name} with (force)`)
  await client.end()
}

/** A migrated database that each test's own is copied from. */
async function createTemplate (adminUrl: string, name: string): Promise<void> {
  await runSql(adminUrl, `create database ${name}`)
  const url = new URL(adminUrl)
  url.pathname = `/${name}`
  await migrate({ connectionString: url.href })
}

async function hasRedisServer (): Promise<boolean> {
  const child = spawn('redis-server', ['--version'], { stdio: 'ignore' })
  const [code] = await Promise.race([once(child, 'exit'), once(child, 'error').then(() => [1])]).catch(() => [1]) as [
    number | null
  ]
  return code === 0
}

/**
 * Marks the named Redis database, and one more for each further job, as one that tests may flush.
 *
 * @throws UnusableServer when one of them holds keys and no marker; nothing was changed then
 */
async function claimRedis (url: string, jobs: number): Promise<void> {
  const first = Number(new URL(url).pathname.slice(1) || 0)
  const clients = Array.from({ length: jobs }, () => {
    const own = new URL(url)
    own.pathname = ''
    const client = new Redis(own.href, {
      lazyConnect: true,
      retryStrategy: () => null,
      connectTimeout: 5000,
      maxRetriesPerRequest: 0
    })
    return client.on('error', () => {})
  })
  try {
    for (const [job, client] of clients.entries()) {
      await client.connect()
      // Not by the URL: ioredis stays in database 0 when there is none of that number.
      await client.select(first + job)
      if (await isOursOrEmpty(client)) continue
      throw new UnusableServer(
        `TEST_REDIS_URL: database ${first + job} of the Redis at ${
          new URL(url).host
        } holds keys that are not of a test (the run uses ${jobs} databases from ${first} on): name empty ones. Nothing was changed`
      )
    }
    for (const client of clients) await client.set(markerKey, '1')
  } catch (error) {
    throw error instanceof UnusableServer
      ? error
      : new UnusableServer(
        `TEST_REDIS_URL: the Redis at ${new URL(url).host} cannot be used: ${(error as Error).message}`
      )
  } finally {
    for (const client of clients) client.disconnect()
  }
}

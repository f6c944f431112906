import { randomBytes } from 'node:crypto'
import { appendFileSync } from 'node:fs'
import { join } from 'node:path'
import { Redis } from 'ioredis'
import pino from 'pino'
import type { Test } from 'tap'
import { buildApp } from '../../app.ts'
import { loadConfig } from '../../fastify.config.ts'
import type { CounterTimes } from '../../services/engagement/counters/store.ts'
import { createDatabase as createCleanDatabase, runSql } from './databases.ts'
import { watchAnswers } from './documented-answers.ts'
import { randomUser } from './person.ts'
import type { Stores } from './stores.ts'
import { emptyTestDatabase } from './test-marker.ts'

export type App = Awaited<ReturnType<typeof buildApp>>

export interface TestAppOptions {
  stores: Stores
  /** Settings that differ from the test's own; undefined takes one away. */
  env?: Record<string, string | undefined>
  /** Another database than a fresh one. */
  databaseUrl?: string
  /** Another Redis than the stores' own; null for none. */
  redisUrl?: string | null
  /** Times of the counters that differ from those of production. */
  counterTimes?: Partial<CounterTimes>
  /** Whether the test makes the app answer what no operation does: then answers are not compared with the document. */
  hasOwnAnswers?: boolean
}

export const secret = 'a secret of the tests, long enough to sign with'

/** Log lines of every app of this file, so that a test can look for what must not stand in them. */
export const logLines: string[] = []

/** Those of the whole run: test/run.ts looks through them. */
function keep (line: string): void {
  logLines.push(line)
  const folder = process.env['HALO_TEST_LOGS']
  if (folder !== undefined) appendFileSync(join(folder, `${process.pid}.log`), line)
}

/** The whole application on a database of its own; closed, and its database dropped, when the test ends. */
export async function createApp (t: Test, options: TestAppOptions): Promise<App> {
  const databaseUrl = options.databaseUrl ?? await createDatabase(t, options.stores)
  const redisUrl = options.redisUrl === undefined ? options.stores.redisUrl : options.redisUrl
  // A second app of a test names both stores, and finds in them what the first one left.
  if (options.redisUrl === undefined && redisUrl !== null) await emptyRedis(redisUrl)
  const config = loadConfig({
    NODE_ENV: 'test',
    WEB_CONCURRENCY: '1',
    DATABASE_URL: databaseUrl,
    ...(redisUrl === null ? {} : { REDIS_URL: redisUrl }),
    JWT_SECRET_KEY: secret,
    PASSWORD_COST: '4',
    DB_MAX_OPEN_CONNS: '10',
    DB_MAX_IDLE_CONNS: '2',
    RATE_LIMIT_RPS: '100000',
    RATE_LIMIT_BURST: '100000',
    AUTH_RATE_LIMIT_RPS: '100000',
    AUTH_RATE_LIMIT_BURST: '100000',
    ENGAGEMENT_RATE_LIMIT_RPS: '100000',
    ENGAGEMENT_RATE_LIMIT_BURST: '100000',
    PUBLISHING_LIMIT_PER_HOUR: '1000000',
    PUBLISHING_LIMIT_BURST: '100000',
    LIVE_VIDEOS_LIMIT: '10000',
    IDEMPOTENCY_KEYS_PER_HOUR: '1000000',
    LOG_LEVEL: 'debug',
    ...options.env
  })
  if (config.database.kind === 'embedded') throw new Error('A test names its database')
  const app = await buildApp({
    config,
    connection: config.database.connection,
    ...(options.counterTimes ? { counterTimes: options.counterTimes } : {}),
    logger: pino({ level: config.log.level }, { write: keep })
  })
  if (!options.hasOwnAnswers) watchAnswers(app)
  t.teardown(() => app.close())
  return app
}

/**
 * A database of the test's own, and its Redis database emptied: what another test counted for the same ids is not
 * this one's.
 */
export async function createDatabase (
  t: Test,
  stores: Stores,
  options: { isMigrated?: boolean } = {}
): Promise<string> {
  if (stores.redisUrl !== null) await emptyRedis(stores.redisUrl)
  return await createCleanDatabase(t, stores, options)
}

async function emptyRedis (url: string): Promise<void> {
  const redis = new Redis(url)
  try {
    await emptyTestDatabase(redis)
  } finally {
    redis.disconnect()
  }
}

export { randomUser, runSql }

export interface Session {
  token: string
  refresh_token: string
  user: { id: number, email: string, username: string } & Record<string, unknown>
  authorization: { authorization: string }
}

/**
 * Somebody new with a session: registered where they are somebody in particular, else written down without a
 * password.
 */
export async function signUp (app: App, overrides?: Record<string, unknown>): Promise<Session> {
  if (overrides === undefined) {
    await app.ready()
    const { email, username, display_name: displayName } = randomUser()
    const sid = randomBytes(16).toString('base64url')
    const loggedIn = await app.services.users.create({
      email,
      username,
      displayName,
      passwordHash: 'none',
      isAdult: false
    }, { sid, lifetimeSeconds: 2 * 86_400, tokensUntil: 86_400, address: '203.0.113.1', userAgent: 'a test' })
    const session = app.tokensOf(loggedIn!)
    return { ...session, authorization: { authorization: `Bearer ${session.token}` } }
  }
  const response = await app.inject({
    method: 'POST',
    url: '/api/v1/auth/register',
    payload: { ...randomUser(), ...overrides }
  })
  if (response.statusCode !== 201) throw new Error(`Not registered: ${response.body}`)
  const session = response.json<Session>()
  return { ...session, authorization: { authorization: `Bearer ${session.token}` } }
}

/** Adds a video straight into the database: publishing is not under test where this is used. */
export async function addVideo (app: App, userId: number, overrides: Record<string, unknown> = {}): Promise<number> {
  const video = { user_id: userId, title: 'A video', ...overrides }
  const names = Object.keys(video)
  const { rows: [row] } = await app.pg.query<{ id: number }>(
    `insert into videos (${names.join(', ')}) values (${
      names.map((_, index) => `$${index + 1}`).join(', ')
    }) returning id`,
    Object.values(video)
  )
  return row!.id
}

import { execFileSync, fork, spawn, type ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { openSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import pg from 'pg'
import { integersAsNumbers } from '../db/integers.ts'
import { migrate } from '../db/migrate.ts'
import { openDatabase } from '../db/open-database.ts'
import { seed } from '../db/seed.ts'
import { loadConfig } from '../fastify.config.ts'
import { freePort } from '../test/helpers/free-port.ts'
import { startRedis } from '../test/helpers/redis-server.ts'
import { cleanEnvironment } from '../test/helpers/service.ts'
import { signToken } from '../test/helpers/token.ts'
import type { BareTask } from './bare-server.ts'
import { familyOf } from './measure.ts'

const root = join(import.meta.dirname, '..')
export const secret = 'a secret for a bench, which nobody logs in to'

/** Something that listens, and what it consists of. */
export interface Server {
  host: string
  port: number
  /** Empty where it runs elsewhere. */
  pids: number[]
  stop: () => Promise<void>
}

export interface World {
  databaseUrl: string
  redisUrl: string
  /** In words, for the head of a report. */
  description: string
  /** Videos that everybody may see, and users. */
  videos: number[]
  users: number[]
  pool: pg.Pool
  /** Values of Authorization for users, each of them another one. */
  bearers (count: number): string[]
  /** Starts the service as production runs it. @param folder of a checkout; this one unless told otherwise */
  startService (env?: Record<string, string>, folder?: string): Promise<Server>
  /** The process alone, for who looks after it; its log goes to a file. */
  spawnService (env: Record<string, string>, logFile: string): ChildProcess
  startBare(task: BareTask): Promise<Server>
  stop(): Promise<void>
}

/** The production configuration, with everything on: where it listens and what it has to know are the bench's. */
const production = {
  NODE_ENV: 'production',
  // As the Dockerfile has it.
  MALLOC_ARENA_MAX: '1',
  WEB_CONCURRENCY: '1',
  SERVER_HOST: '127.0.0.1',
  TRUST_PROXY: '127.0.0.1',
  CORS_ALLOWED_ORIGINS: 'https://app.example',
  JWT_SECRET_KEY: secret,
  PASSWORD_PEPPER: `${secret}, either`
}

/** What production runs is JavaScript: the service of a checkout is built before it is measured. */
export function build (folder: string): void {
  execFileSync('npm', ['run', 'build'], { cwd: folder, stdio: ['ignore', 'ignore', 'inherit'] })
}

/**
 * PostgreSQL and Redis: those that BENCH_DATABASE_URL and BENCH_REDIS_URL name, or a PostgreSQL and a Redis of the
 * bench's own. It fills them with sample data: DATABASE_URL, which a developer may have exported for something else,
 * is not looked at.
 */
export async function createWorld ({
  users = 2000,
  videos = 100_000,
  onProgress = (text: string): void => {
    progress(text)
  }
} = {}): Promise<World> {
  onProgress('building')
  build(root)
  const database = await openDatabase(
    loadConfig({
      DATABASE_URL: process.env['BENCH_DATABASE_URL'],
      DATA_DIR: process.env['DATA_DIR'] ?? join(root, '.data', 'bench')
    }).database
  )
  const stops: (() => Promise<unknown>)[] = [database.stop]
  const stop = async (): Promise<void> => {
    for (const one of stops.splice(0).reverse()) await one()
  }
  // Ctrl-C leaves nothing behind.
  for (const signal of ['SIGINT', 'SIGTERM'] as const) {
    process.once(signal, () => {
      stop().finally(() => process.exit(130))
    })
  }
  try {
    if (!('connectionString' in database.connection)) throw new Error('Name the server by BENCH_DATABASE_URL')
    const databaseUrl = database.connection.connectionString
    const named = process.env['BENCH_REDIS_URL']
    const redis = named ? undefined : await startRedis()
    if (redis) stops.push(redis.stop)
    const redisUrl = named ?? redis!.url
    await migrate(database.connection)
    await seed(database.connection, {
      users,
      videos,
      onProgress: (done, total) => {
        onProgress(`seeding: ${Math.round(done / total * 100)} %`)
      }
    })
    onProgress('')
    const pool = new pg.Pool({ connectionString: databaseUrl, max: 2, types: integersAsNumbers })
    stops.push(() => pool.end())
    const idsOf = async (text: string): Promise<number[]> =>
      (await pool.query<{ id: number }>(text)).rows.map(({ id }) => id)
    const ids = {
      videos: await idsOf('select id from videos where not is_adult_content order by id'),
      users: await idsOf('select id from users order by id')
    }
    let signed = 0
    return {
      databaseUrl,
      redisUrl,
      description: `${database.description.replace(/ \(.*/, '')}, ${
        named ? 'Redis at ' + new URL(named).host : 'a Redis of its own'
      }`,
      ...ids,
      pool,
      bearers: count =>
        Array.from({ length: count }, () => {
          const n = signed++
          return `Bearer ${
            signToken(secret, ids.users[n % ids.users.length]!, { jitter: Math.floor(n / ids.users.length) })
          }`
        }),
      spawnService: (env, logFile) =>
        spawnProcess({ ...production, DATABASE_URL: databaseUrl, REDIS_URL: redisUrl, ...env }, root, logFile),
      async startService (env = {}, folder = root) {
        const server = await startProcess(
          { ...production, DATABASE_URL: databaseUrl, REDIS_URL: redisUrl, ...env },
          folder
        )
        stops.push(server.stop)
        return server
      },
      async startBare (task) {
        const child = fork(join(import.meta.dirname, 'bare-server.ts'))
        const server = { host: '127.0.0.1', pids: [child.pid!], stop: () => end(child) }
        stops.push(server.stop)
        child.send(task)
        const [port] = await once(child, 'message') as [number]
        return { ...server, port }
      },
      stop
    }
  } catch (error) {
    await stop()
    throw error
  }
}

/** The flags of V8 that production runs with. */
function flagsOf (folder: string): string[] {
  const { scripts } = JSON.parse(readFileSync(join(folder, 'package.json'), 'utf8')) as { scripts: Record<string, string> }
  return scripts['start:production']!.split(' ').filter(word => word.startsWith('--max'))
}

function spawnProcess (env: Record<string, string>, folder: string, logFile = '/dev/null'): ChildProcess {
  return spawn(process.execPath, [...flagsOf(folder), join(folder, 'dist', 'server.js')], {
    cwd: folder,
    env: { ...cleanEnvironment(), ...env },
    // The log is written, as in production.
    stdio: ['ignore', openSync(logFile, 'a'), 'inherit']
  })
}

async function startProcess (env: Record<string, string>, folder: string): Promise<Server> {
  const port = await freePort()
  const child = spawnProcess({ ...env, SERVER_PORT: String(port) }, folder)
  const wanted = Number(env['WEB_CONCURRENCY'])
  for (let tries = 0; ; tries++) {
    const answer = await fetch(`http://127.0.0.1:${port}/readyz`).catch(() => undefined)
    const { workers } = answer?.ok ? await answer.json() as { workers?: { running: number } } : {}
    if (answer?.ok && (workers === undefined || workers.running >= wanted)) break
    if (tries > 300 || child.exitCode !== null) throw new Error('the service did not start')
    await sleep(100)
  }
  return { host: '127.0.0.1', port, pids: familyOf(child.pid!), stop: () => end(child) }
}

async function end (child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return
  child.kill('SIGTERM')
  await once(child, 'exit')
}

/** The headers of an answer that say something about it, as a bare server is to send them. */
export function headersOf (answer: Response): Record<string, string> {
  return Object.fromEntries([...answer.headers]
    .filter(([name]) => !['date', 'connection', 'keep-alive', 'transfer-encoding'].includes(name)))
}

export function print (line: string): void {
  process.stdout.write(`${line}\n`)
}

const startedAt = performance.now()

/** A line that lives while the bench works: on a terminal it is written over, elsewhere it is written out. */
export function progress (text: string): void {
  if (process.stderr.isTTY) process.stderr.write(`\r${text.padEnd(100).slice(0, 100)}\r`)
  else if (text !== '') {
    process.stderr.write(`[${((performance.now() - startedAt) / 1000).toFixed(0).padStart(4)} s] ${text}\n`)
  }
}

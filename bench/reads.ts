import { fork, spawn, type ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { openSync } from 'node:fs'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import autocannon from 'autocannon'
import pg from 'pg'
import { integersAsNumbers } from '../db/integers.ts'
import { openDatabase } from '../db/open-database.ts'
import { migrate } from '../db/migrate.ts'
import { seed } from '../db/seed.ts'
import { loadConfig } from '../fastify.config.ts'
import { clientKey } from '../services/client-address.ts'
import { createCursors } from '../services/cursors.ts'
import { createTokenBuckets } from '../services/limiter/token-buckets.ts'
import { videoById } from '../services/videos.ts'
import type { BareTask } from './bare-server.ts'
import { cpuMicros, machine, median } from './measure.ts'

/**
 * `npm run bench`: what reads cost with everything on that production has on (log, limiter, headers, CORS), beside the
 * limit of each in the same run: a hot video and a hot list beside bare node:http that sends the same bytes, a cold
 * video beside node:http with `pg` alone and the same statement. Every round asks all in turn and the first
 * round is thrown away. The measure that holds on a noisy machine is the server's CPU time for a request; the rates
 * are what generator and server reach together.
 *
 * `npm run bench -- --part pages` asks for the first page and for page 5,000 of a million videos.
 *
 * Uses DATABASE_URL and REDIS_URL where they are set, else the embedded PostgreSQL and counters in the process.
 */

const { values: { part } } = parseArgs({ options: { part: { type: 'string', default: 'reads' } } })
if (part !== 'reads' && part !== 'pages') throw new Error('--part is reads or pages')

const rounds = 5
const seconds = 3
const secret = 'a secret for a bench, which nobody logs in to'
const root = join(import.meta.dirname, '..')

interface Target { name: string, pid: number, requests: (round: number) => { url: string, paths: string[] }, headers?: Record<string, string>, limit?: Target, status?: number }
interface Sample { rate: number, cpuMicros: number }

const database = await openDatabase(loadConfig({ ...process.env, DATA_DIR: process.env['DATA_DIR'] ?? join(root, '.data', 'bench') }).database)
const connectionString = 'connectionString' in database.connection ? database.connection.connectionString : ''
if (connectionString === '') throw new Error('Name the server by DATABASE_URL and not by its parts')
const pool = new pg.Pool({ connectionString, max: 2, types: integersAsNumbers })
const children: ChildProcess[] = []
try {
  await migrate(database.connection)
  await seed(database.connection, { users: 100, videos: part === 'pages' ? 1_000_000 : 100_000, onProgress: (done, total) => progress(`seeding: ${Math.round(done / total * 100)} %`) })
  progress('')
  await (part === 'pages' ? benchPages(await startService()) : benchReads(await startService()))
} finally {
  for (const child of children) child.kill('SIGTERM')
  await Promise.all(children.map(child => child.exitCode === null ? once(child, 'exit') : undefined))
  await pool.end()
  await database.stop()
}

interface Service { base: string, pid: number }

async function startService (): Promise<Service> {
  const port = 20_000 + process.pid % 10_000
  const child = spawn(process.execPath, [join(root, 'server.ts')], {
    env: {
      ...process.env,
      DATABASE_URL: connectionString,
      NODE_ENV: 'development',
      WEB_CONCURRENCY: '1',
      SERVER_PORT: String(port),
      SERVER_HOST: '127.0.0.1',
      TRUST_PROXY: '127.0.0.1',
      CORS_ALLOWED_ORIGINS: 'https://app.example',
      JWT_SECRET_KEY: secret
    },
    // The log is written, as in production, and nobody reads it.
    stdio: ['ignore', openSync('/dev/null', 'w'), 'inherit']
  })
  children.push(child)
  const base = `http://127.0.0.1:${port}`
  for (let tries = 0; ; tries++) {
    const isUp = await fetch(`${base}/readyz`).then(response => response.ok, () => false)
    if (isUp) break
    if (tries > 100 || child.exitCode !== null) throw new Error('the service did not start')
    await new Promise(resolve => setTimeout(resolve, 100))
  }
  return { base: `${base}/api/v1`, pid: child.pid! }
}

async function startBare (task: BareTask): Promise<{ port: number, pid: number }> {
  const child = fork(join(import.meta.dirname, 'bare-server.ts'))
  children.push(child)
  child.send(task)
  const [port] = await once(child, 'message') as [number]
  return { port, pid: child.pid! }
}

/** The headers of an answer that say something about it, as the bare server is to send them. */
function headersOf (answer: Response): Record<string, string> {
  return Object.fromEntries([...answer.headers]
    .filter(([name]) => !['date', 'connection', 'keep-alive', 'transfer-encoding'].includes(name)))
}

async function benchReads ({ base, pid }: Service): Promise<void> {
  const { rows } = await pool.query<{ id: number }>('select id from videos where not is_adult_content order by id')
  const ids = rows.map(row => row.id)
  const origin = { origin: 'https://app.example' }
  const hot = (path: string) => () => ({ url: base, paths: [path] })
  // Another stretch of ids each time, so that none is asked for twice within the second for which it is kept.
  const cold = (url: string) => () => ({ url, paths: Array.from({ length: 30_000 }, () => `/videos/${ids[Math.floor(Math.random() * ids.length)]!}`) })

  const targets: Target[] = []
  let etag = ''
  for (const [name, path] of [['hot video', `/videos/${ids[0]}`], ['hot list of 20', '/videos?limit=20']] as const) {
    const answer = await fetch(base + path, { headers: { ...origin, 'accept-encoding': 'identity' } })
    etag ||= answer.headers.get('etag')!
    const bare = await startBare({ kind: 'bytes', headers: headersOf(answer), body: await answer.text() })
    const limit: Target = { name: 'bare node:http, same bytes', pid: bare.pid, requests: () => ({ url: `http://127.0.0.1:${bare.port}`, paths: ['/'] }) }
    targets.push(limit, { name, pid, requests: hot(path), limit })
    if (name === 'hot video') targets.push({ name: 'hot video, 304', pid, requests: hot(path), headers: { 'if-none-match': '*' }, limit, status: 304 })
  }
  const one = await fetch(`${base}/videos/${ids[1]}`, { headers: origin })
  const { 'content-length': _, etag: __, ...constant } = headersOf(one)
  const bare = await startBare({ kind: 'statement', connectionString, text: videoById.text, headers: constant })
  const limit: Target = { name: 'node:http and pg, same statement', pid: bare.pid, requests: cold(`http://127.0.0.1:${bare.port}`) }
  targets.push(limit, { name: 'cold video', pid, requests: cold(base), limit })

  print(`Reads on ${machine()}, ${rounds} rounds of ${seconds} s, 64 connections; everything on`)
  print(`database: ${database.description.replace(/ \(.*/, '')} with ${ids.length} videos; counters: ${process.env['REDIS_URL'] ? 'Redis' : 'in the process'}\n`)
  const samples = new Map<Target, Sample[]>(targets.map(target => [target, []]))
  for (let round = 0; round <= rounds; round++) {
    for (const target of targets) {
      progress(`round ${round} of ${rounds}: ${target.name}`)
      const sample = await measure(target, round)
      if (round > 0) samples.get(target)!.push(sample)
    }
  }
  progress('')
  report(samples)
  print(`\nthe limiter's part: ${limiterMicros().toFixed(3)} µs a request`)
}

async function measure ({ pid, requests, headers = {}, status = 200 }: Target, round: number): Promise<Sample> {
  let client = 0
  const { url, paths } = requests(round)
  const before = cpuMicros(pid)
  const result = await autocannon({
    url,
    connections: 64,
    duration: seconds,
    // Each connection is a client of its own, so that none meets its limit.
    setupClient: connection => {
      const own = { origin: 'https://app.example', 'x-forwarded-for': `10.0.${round}.${client++ % 250 + 1}`, ...headers }
      const share = Math.ceil(paths.length / 64)
      const mine = paths.length === 1 ? paths : paths.slice((client - 1) * share, client * share)
      connection.setRequests((mine.length > 0 ? mine : paths.slice(0, 1)).map(path => ({ path: new URL(url).pathname.replace(/\/$/, '') + path, headers: own })))
    }
  })
  const expected = Object.entries(result.statusCodeStats ?? {}).every(([code]) => Number(code) === status)
  if (!expected || result.errors > 0) throw new Error(`${url}: ${JSON.stringify(result.statusCodeStats)}, ${result.errors} connections failed`)
  const count = result.requests.total
  return { rate: count / result.duration, cpuMicros: (cpuMicros(pid) - before) / count }
}

function report (samples: Map<Target, Sample[]>): void {
  print(`${''.padEnd(34)}CPU µs/request  (spread)        requests/s  of the limit’s rate  times its CPU`)
  for (const [target, list] of samples) {
    const cpu = list.map(sample => sample.cpuMicros)
    const limit = target.limit && samples.get(target.limit)
    const ratio = (of: (sample: Sample) => number): string =>
      limit ? median(list.map((sample, index) => of(sample) / of(limit[index]!))).toFixed(2) : ''
    print([
      `${target.limit ? '  ' : ''}${target.name}`.padEnd(34), median(cpu).toFixed(1).padStart(14), '  ', `(${Math.min(...cpu).toFixed(1)}–${Math.max(...cpu).toFixed(1)})`.padEnd(15),
      Math.round(median(list.map(sample => sample.rate))).toString().padStart(11), ratio(sample => sample.rate).padStart(21), ratio(sample => sample.cpuMicros).padStart(15)
    ].join(''))
  }
}

/** The first page, and one behind 100,000 others, by cursor; and that by passing over, which the service refuses. */
async function benchPages ({ base }: Service): Promise<void> {
  const cursors = createCursors(secret)
  const { rows: [row] } = await pool.query<{ id: number, micros: number }>(`
    select id, (extract(epoch from created_at) * 1000000)::bigint as micros from videos
    where not is_adult_content order by created_at desc, id desc limit 1 offset 99999`)
  const far = cursors.encode({ createdMicros: row!.micros, id: row!.id }, JSON.stringify([null, null, null]))
  const time = async (path: string): Promise<number> => {
    const startedAt = performance.now()
    const answer = await fetch(base + path)
    if (answer.status !== 200) throw new Error(await answer.text())
    await answer.arrayBuffer()
    return performance.now() - startedAt
  }
  const pages = { 'page 1': '', 'page 5,000': `&cursor=${far}` }
  const times = new Map<string, number[]>(Object.keys(pages).map(name => [name, []]))
  for (let round = 0; round <= rounds; round++) {
    // Each size once, and then a pause: none comes from memory.
    for (let limit = 10; limit < 30; limit++) {
      for (const [name, rest] of Object.entries(pages)) {
        const ms = await time(`/videos?limit=${limit}${rest}`)
        if (round > 0) times.get(name)!.push(ms)
      }
    }
    await new Promise(resolve => setTimeout(resolve, 1100))
  }
  print(`Pages of 10 to 29 of a million videos by cursor, cold, on ${machine()}; ${database.description.replace(/ \(.*/, '')}; one client`)
  for (const [name, list] of times) print(`${name.padEnd(12)} median ${median(list).toFixed(2)} ms of ${list.length}`)
}

/** What the global limit adds to a request: the key and the bucket, for many clients in turn. */
function limiterMicros (): number {
  const buckets = createTokenBuckets({ rate: 1000, burst: 2000 })
  const addresses = Array.from({ length: 1000 }, (_, n) => n % 4 === 0 ? `2001:db8:${n.toString(16)}::1` : `10.1.${n >> 8}.${n & 255}`)
  const time = (count: number): number => {
    const startedAt = performance.now()
    for (let n = 0; n < count; n++) buckets.take(clientKey(addresses[n % 1000]!), performance.now())
    return (performance.now() - startedAt) * 1000 / count
  }
  time(200_000)
  return median([1, 2, 3, 4, 5].map(() => time(200_000)))
}

function print (line: string): void {
  process.stdout.write(`${line}\n`)
}

function progress (text: string): void {
  if (process.stderr.isTTY) process.stderr.write(`\r${text}`.padEnd(70) + '\r')
}

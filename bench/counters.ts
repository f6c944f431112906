import { fork, type ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { openSync } from 'node:fs'
import { connect, type Socket } from 'node:net'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import autocannon from 'autocannon'
import pg from 'pg'
import { openDatabase } from '../db/open-database.ts'
import { migrate } from '../db/migrate.ts'
import { seed } from '../db/seed.ts'
import { loadConfig } from '../fastify.config.ts'
import { readCommandLine, readWord } from '../services/runtime/command-line.ts'
import { createLedger } from '../services/engagement/counters/ledger.ts'
import { createRedisKeys } from '../services/engagement/counters/redis-keys.ts'
import { createRedisStore } from '../services/engagement/counters/redis-store.ts'
import { createDatabase } from '../services/stores/database.ts'
import { integersAsNumbers } from '../db/integers.ts'
import { startRedis } from '../test/helpers/redis-server.ts'
import { signToken } from '../test/helpers/token.ts'
import { cpuMicros, machine, median, residentBytes } from './measure.ts'
import { print, progress } from './world.ts'

/**
 * `npm run bench:counters`: what a counted like, comment and heartbeat cost beside the plain INCR of the Go design, in
 * one run and one process with everything on; what a flush of ten thousand counters costs; what a million likes
 * and a million viewers take in Redis; and what a listener to the event stream takes in the process.
 *
 * The parts run alone with --part writes, flush, memory or streams. Redis is started for it, PostgreSQL is
 * that of BENCH_DATABASE_URL or the embedded one.
 */

const parts = { writes: benchWrites, flush: benchFlush, memory: benchMemory, streams: benchStreams }
const { values: { part } } = readCommandLine({
  usage: `Usage: npm run bench:counters [-- --part NAME]

What counting costs, beside a plain INCR: ${Object.keys(parts).join(', ')}. Redis is started for it, PostgreSQL is
that of BENCH_DATABASE_URL or the embedded one.`,
  options: { part: { type: 'string' } }
})
if (part !== undefined) readWord('part', part, Object.keys(parts))

const rounds = 5
const seconds = 3
const users = 2000
const videos = 12_000
const secret = 'a secret for a bench, which nobody logs in to'
const names = createRedisKeys({ isCluster: false })
const root = join(import.meta.dirname, '..')

const database = await openDatabase(
  loadConfig({
    DATABASE_URL: process.env['BENCH_DATABASE_URL'],
    DATA_DIR: process.env['DATA_DIR'] ?? join(root, '.data', 'bench')
  }).database
)
const redis = await startRedis()
const pool = new pg.Pool({ ...database.connection, max: 2, types: integersAsNumbers })
let service: ChildProcess | undefined
try {
  await migrate(database.connection)
  await seed(database.connection, { users, videos })
  const ids = await readIds()
  const port = await startService()
  print(
    `Counters on ${machine()}; ${database.description.replace(/ \(.*/, '')}; Redis ${
      /redis_version:(\S+)/.exec(await redis.client.info('server'))![1]
    }`
  )
  for (const [name, run] of Object.entries(parts)) {
    if (part === undefined || part === name) await run(port, ids)
  }
} finally {
  if (service && service.exitCode === null) {
    service.kill('SIGTERM')
    await once(service, 'exit')
  }
  await pool.end()
  await redis.stop()
  await database.stop()
}

interface Ids {
  users: number[]
  videos: number[]
}

async function readIds (): Promise<Ids> {
  const read = async (table: string): Promise<number[]> =>
    (await pool.query<{ id: number }>(`select id from ${table} order by id`)).rows.map(row => row.id)
  return { users: await read('users'), videos: await read('videos') }
}

async function startService (): Promise<number> {
  const url = 'connectionString' in database.connection ? database.connection.connectionString : undefined
  service = fork(join(import.meta.dirname, 'counter-server.ts'), {
    env: {
      ...process.env,
      ...(url === undefined ? {} : { DATABASE_URL: url }),
      REDIS_URL: redis.url,
      TRUST_PROXY: '127.0.0.1',
      CORS_ALLOWED_ORIGINS: 'https://app.example',
      RATE_LIMIT_RPS: '10000',
      RATE_LIMIT_BURST: '20000',
      ENGAGEMENT_RATE_LIMIT_RPS: '10000',
      ENGAGEMENT_RATE_LIMIT_BURST: '20000',
      JWT_SECRET_KEY: secret
    },
    // The log is written, as in production, and nobody reads it.
    stdio: ['ignore', openSync('/dev/null', 'w'), 'inherit', 'ipc']
  })
  const [port] = await once(service, 'message') as [number]
  return port
}

type MakeRequest = () => { method: 'POST' | 'DELETE', path: string }

interface Sample {
  rate: number
  cpuMicros: number
  redisMicros: number
}

async function benchWrites (port: number, ids: Ids): Promise<void> {
  const tokens = ids.users.slice(0, 500).map(id => signToken(secret, id))
  const some = <T>(items: readonly T[]): T => items[Math.floor(Math.random() * items.length)]!
  const hot = ids.videos.slice(0, 1)
  const many = ids.videos.slice(0, 1000)
  const engagement = (method: 'POST' | 'DELETE' | 'toggle', metric: string, among: number[]) => () => ({
    method: method === 'toggle' ? some(['POST', 'DELETE'] as const) : method,
    path: `/api/v1/videos/${some(among)}/engagement/${metric}`
  })
  const limit: MakeRequest = () => ({ method: 'POST', path: `/bench/${some(many)}/incr` })
  const rows: Record<string, MakeRequest> = {
    'like or unlike, 1000 videos': engagement('toggle', 'likes', many),
    'like or unlike, one video': engagement('toggle', 'likes', hot),
    'heartbeat, 1000 videos': engagement('POST', 'live_viewers', many),
    'heartbeat, one video': engagement('POST', 'live_viewers', hot),
    'comment, 1000 videos': engagement('POST', 'comments', many)
  }
  // Likes are loaded for a video that is cold; that is another measurement.
  await Promise.all(
    many.map(id =>
      fetch(`http://127.0.0.1:${port}/api/v1/videos/${id}/engagement/likes`, {
        method: 'POST',
        headers: { authorization: `Bearer ${tokens[0]!}` }
      })
    )
  )

  const redisPid = Number(/process_id:(\d+)/.exec(await redis.client.info('server'))![1])
  const pairs = new Map<string, { limit: Sample, row: Sample }[]>(Object.keys(rows).map(name => [name, []]))
  for (let round = 0; round <= rounds; round++) {
    for (const [name, request] of Object.entries(rows)) {
      progress(`round ${round} of ${rounds}: ${name}`)
      // One right after the other: a machine that is shared is another one a minute later.
      const pair = {
        limit: await load(port, tokens, limit, redisPid),
        row: await load(port, tokens, request, redisPid)
      }
      if (round > 0) pairs.get(name)!.push(pair)
    }
  }
  progress('')
  print(
    `\nWrites with everything on, ${rounds} rounds of ${seconds} s, 64 connections, ${tokens.length} users; each beside the INCR that ran before it`
  )
  print(`${''.padEnd(28)}  requests/s  of INCR’s rate      service µs/request  times INCR’s        Redis µs/request`)
  const limits = [...pairs.values()].flat().map(pair => pair.limit)
  printRow('INCR only, 1000 videos', limits, limits)
  for (const [name, list] of pairs) printRow(name, list.map(pair => pair.row), list.map(pair => pair.limit))
}

/** One line: medians, and the ratios of each measurement to its limit. */
function printRow (name: string, samples: Sample[], limits: Sample[]): void {
  const column = (of: keyof Sample): number => median(samples.map(sample => sample[of]))
  const ratio = (of: keyof Sample): string => {
    const ratios = samples.map((sample, index) => sample[of] / limits[index]![of])
    return `${median(ratios).toFixed(2)} (${Math.min(...ratios).toFixed(2)}–${Math.max(...ratios).toFixed(2)})`
  }
  print([
    name.padEnd(28),
    Math.round(column('rate')).toString().padStart(10),
    ratio('rate').padEnd(18),
    column('cpuMicros').toFixed(1).padStart(18),
    ratio('cpuMicros').padEnd(18),
    column('redisMicros').toFixed(1).padStart(16)
  ].join('  '))
}

async function load (port: number, tokens: string[], request: MakeRequest, redisPid: number): Promise<Sample> {
  const pid = service!.pid!
  let client = 0
  const before = [cpuMicros(pid), cpuMicros(redisPid)] as const
  const result = await autocannon({
    url: `http://127.0.0.1:${port}`,
    connections: 64,
    duration: seconds,
    setupClient: connection => {
      const address = `10.0.0.${client++ % 250 + 1}`
      connection.setRequests(Array.from({ length: 200 }, () => ({
        ...request(),
        headers: {
          authorization: `Bearer ${tokens[Math.floor(Math.random() * tokens.length)]!}`,
          origin: 'https://app.example',
          'x-forwarded-for': address
        }
      })))
    }
  })
  if (result.non2xx > 0 || result.errors > 0) {
    throw new Error(`${result.non2xx} answers were not 2xx, ${result.errors} connections failed`)
  }
  const requests = result.requests.total
  return {
    rate: requests / result.duration,
    cpuMicros: (cpuMicros(pid) - before[0]) / requests,
    redisMicros: (cpuMicros(redisPid) - before[1]) / requests
  }
}

/** Ten thousand videos change at once, and are flushed; the first round is thrown away. */
async function benchFlush (port: number, ids: Ids): Promise<void> {
  const dirty = 10_000
  const results: { ms: number, holdMs: number }[] = []
  for (let round = 0; round <= rounds; round++) {
    progress(`flush, round ${round} of ${rounds}`)
    await ask('flush')
    const generation = Number(await redis.client.hget(names.meta(0), 'generation') ?? 0)
    if (generation === 0) throw new Error('Nothing was counted yet: run the writes first')
    const keys = names.ofGeneration(0, generation)
    const transaction = redis.client.multi()
    for (const id of ids.videos.slice(0, dirty)) {
      transaction.hincrby(keys.views, String(id), 1).hincrby(keys.comments, String(id), 1).sadd(keys.dirty, id)
    }
    // The service's own ticks would flush them first: they find that somebody has looked a moment ago.
    transaction.hset(names.meta(0), 'collected_at', Date.now() + 500)
    await transaction.exec()
    const { ms, holdMs, flushed } = await ask('flush')
    if (flushed >= dirty && round > 0) results.push({ ms, holdMs })
  }
  progress('')
  if (results.length === 0) throw new Error('The ticks of the service were faster in every round')
  const all = results.map(result => result.ms)
  print(
    `\nA flush of ${dirty} dirty counters (${results.length} rounds): ${median(all).toFixed(0)} ms (${
      Math.min(...all).toFixed(0)
    }–${Math.max(...all).toFixed(0)}), ` +
      `the event loop held for at most ${Math.max(...results.map(result => result.holdMs)).toFixed(1)} ms`
  )
}

async function ask (question: 'flush'): Promise<{ ms: number, holdMs: number, flushed: number }> {
  const answer = once(service!, 'message') as Promise<[{ ms: number, holdMs: number, flushed: number }]>
  service!.send(question)
  return (await answer)[0]
}

/** What a million takes in Redis, by its own account, after everything was flushed. */
async function benchMemory (port: number, ids: Ids): Promise<void> {
  const million = 1_000_000
  const client = redis.client
  const used = async (): Promise<number> => Number(/used_memory:(\d+)/.exec(await client.info('memory'))![1])
  const backing = createDatabase({ pool })
  const store = createRedisStore({ redis: client, recovery: createLedger(backing, backing).recovery })
  const id = ids.videos.at(-1)!
  print('\nMemory in Redis')

  async function * likers (): AsyncGenerator<number[]> {
    for (let start = 1; start <= million; start += 10_000) {
      progress(`likes: ${Math.round(start / million * 100)} %`)
      yield Array.from({ length: 10_000 }, (_, n) => start + n)
    }
  }
  await store.read([id])
  let before = await used()
  await store.warm(id, likers)
  progress('')
  print(`a million likes of a warm video         ${perUnit(await used() - before, million)}`)

  before = await used()
  for (let start = 1; start <= million; start += 10_000) {
    progress(`viewers: ${Math.round(start / million * 100)} %`)
    const viewers: number[] = []
    const sessions: number[] = []
    for (let viewer = start; viewer < start + 10_000; viewer++) {
      viewers.push(Date.now(), viewer)
      sessions.push(-Date.now(), viewer)
    }
    await client.zadd(names.viewers(id), ...viewers)
    await client.zadd(names.sessions(id), ...sessions)
  }
  progress('')
  print(`a million viewers of a video            ${perUnit(await used() - before, million)}`)

  before = await used()
  const keys = names.ofGeneration(0, 1_000_000)
  for (let start = 1; start <= million; start += 10_000) {
    const fields = Array.from({ length: 10_000 }, (_, n) => [start + n, 12_345]).flat()
    await Promise.all([client.hset(keys.views, ...fields), client.hset(keys.comments, ...fields)])
  }
  print(`views and comments of a million videos  ${perUnit(await used() - before, million)}`)
}

function perUnit (bytes: number, count: number): string {
  return `${(bytes / 1e6).toFixed(0)} MB, ${Math.round(bytes / count)} bytes each`
}

/** Listeners by the thousand on one process, all of one video whose numbers change each second. */
async function benchStreams (port: number, ids: Ids): Promise<void> {
  const wanted = 10_000
  const id = ids.videos[5]!
  const pid = service!.pid!
  const sockets: Socket[] = []
  let received = 0
  const open = async (count: number): Promise<void> => {
    await Promise.all(Array.from({ length: count }, (_, n) =>
      new Promise<void>((resolve, reject) => {
        const socket = connect({ port, host: '127.0.0.1', localAddress: `127.0.0.${2 + n % 100}` }, () => {
          socket.write(
            `GET /api/v1/videos/${id}/engagement/stream HTTP/1.1\r\nHost: x\r\nAccept: text/event-stream\r\nX-Forwarded-For: 10.1.${
              n >> 8 & 255
            }.${n & 255}\r\n\r\n`
          )
        })
        socket.once('data', () => resolve()).once('error', reject)
        socket.on('data', () => {
          received++
        })
        sockets.push(socket)
      })))
  }
  await open(200)
  await sleep(2000)
  const before = residentBytes(pid)
  while (sockets.length < wanted + 200) {
    progress(`listeners: ${sockets.length}`)
    await open(500)
  }
  await sleep(3000)
  const bytes = residentBytes(pid) - before
  received = 0
  const cpuBefore = cpuMicros(pid)
  const changes = 5
  for (let n = 0; n < changes; n++) {
    await pool.query('update videos set view_count = view_count + 1 where id = $1', [id])
    await redis.client.zadd(names.viewers(id), Date.now(), 1_000_000 + n)
    await sleep(1000)
  }
  await sleep(1500)
  progress('')
  print(
    `\n${wanted} listeners of one stream: ${(bytes / wanted / 1024).toFixed(1)} KB each, ` +
      `${received} events in ${changes} s, ${((cpuMicros(pid) - cpuBefore) / received).toFixed(1)} µs of CPU an event`
  )
  for (const socket of sockets) socket.destroy()
}

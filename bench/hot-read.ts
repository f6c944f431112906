import { fork, spawn, type ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, openSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import autocannon from 'autocannon'
import { openDatabase } from '../db/open-database.ts'
import { migrate } from '../db/migrate.ts'
import { seed } from '../db/seed.ts'
import { loadConfig } from '../fastify.config.ts'
import { clientKey } from '../services/client-address.ts'
import { createTokenBuckets } from '../services/token-buckets.ts'
import { cpuMicros, machine, median } from './measure.ts'

/**
 * `npm run bench`: what a GET of one video costs with everything on that production has on (log, limiter,
 * headers, CORS), beside bare node:http that sends the same bytes, in the same run. Every round asks both in
 * turn and the first round is thrown away. The measure is the server's CPU time for a request, which holds on
 * a noisy machine; the rates are what this machine's generator and server reach together.
 *
 * Uses DATABASE_URL and REDIS_URL where they are set, else the embedded PostgreSQL and counters in the process.
 */

const rounds = 5
const seconds = 3
const root = join(import.meta.dirname, '..')

interface Target { name: string, url: string, pid: number }
interface Sample { rate: number, cpuMicros: number }

const log = join(mkdtempSync(join(tmpdir(), 'halo-bench-')), 'service.log')
const database = await openDatabase(loadConfig({ ...process.env, DATA_DIR: process.env['DATA_DIR'] ?? join(root, '.data', 'bench') }).database)
const children: ChildProcess[] = []
try {
  await migrate(database.connection)
  await seed(database.connection, { users: 100, videos: 1000 })
  const service = await startService()
  const answer = await fetch(service.url, { headers: { origin: 'https://app.example' } })
  const bare = await startBare(answer)

  print()
  const samples = new Map<string, Sample[]>([[bare.name, []], [service.name, []]])
  for (let round = 0; round <= rounds; round++) {
    for (const target of [bare, service]) {
      if (process.stderr.isTTY) process.stderr.write(`\r  round ${round} of ${rounds}: ${target.name}        `)
      const sample = await measure(target)
      if (round > 0) samples.get(target.name)!.push(sample)
    }
  }
  if (process.stderr.isTTY) process.stderr.write('\r'.padEnd(60) + '\r')
  report(samples, bare.name, service.name)
} finally {
  for (const child of children) child.kill('SIGTERM')
  await Promise.all(children.map(child => child.exitCode === null ? once(child, 'exit') : undefined))
  await database.stop()
  rmSync(join(log, '..'), { recursive: true })
}

async function startService (): Promise<Target> {
  const port = 20_000 + process.pid % 10_000
  const url = 'connectionString' in database.connection ? database.connection.connectionString : ''
  const child = spawn(process.execPath, [join(root, 'server.ts')], {
    env: {
      ...process.env,
      ...(url === '' ? {} : { DATABASE_URL: url }),
      NODE_ENV: 'development',
      SERVER_PORT: String(port),
      SERVER_HOST: '127.0.0.1',
      TRUST_PROXY: '127.0.0.1',
      CORS_ALLOWED_ORIGINS: 'https://app.example',
      JWT_SECRET_KEY: 'a secret for a bench, which nobody logs in to'
    },
    stdio: ['ignore', openSync(log, 'w'), 'inherit']
  })
  children.push(child)
  const base = `http://127.0.0.1:${port}`
  for (let tries = 0; ; tries++) {
    const isUp = await fetch(`${base}/readyz`).then(response => response.ok, () => false)
    if (isUp) break
    if (tries > 100 || child.exitCode !== null) throw new Error('the service did not start')
    await new Promise(resolve => setTimeout(resolve, 100))
  }
  const [video] = await (await fetch(`${base}/api/v1/videos?limit=1`)).json() as { id: number }[]
  return { name: 'HALO API, everything on', url: `${base}/api/v1/videos/${video!.id}`, pid: child.pid! }
}

async function startBare (answer: Response): Promise<Target> {
  const child = fork(join(import.meta.dirname, 'bare-server.ts'))
  children.push(child)
  const ofTransport = ['date', 'connection', 'keep-alive', 'transfer-encoding']
  child.send({
    headers: Object.fromEntries([...answer.headers].filter(([name]) => !ofTransport.includes(name))),
    body: await answer.text()
  })
  const [port] = await once(child, 'message') as [number]
  return { name: 'bare node:http, same bytes', url: `http://127.0.0.1:${port}/`, pid: child.pid! }
}

async function measure ({ url, pid }: Target): Promise<Sample> {
  let client = 0
  const before = cpuMicros(pid)
  const result = await autocannon({
    url,
    connections: 64,
    duration: seconds,
    // Each connection is a client of its own, so that none meets its limit.
    setupClient: connection => {
      connection.setHeaders({ origin: 'https://app.example', 'x-forwarded-for': `10.0.0.${client++ % 250 + 1}` })
    }
  })
  if (result.non2xx > 0 || result.errors > 0) throw new Error(`${result.non2xx} answers of ${url} were not 2xx, ${result.errors} connections failed`)
  const requests = result.requests.total
  return { rate: requests / result.duration, cpuMicros: (cpuMicros(pid) - before) / requests }
}

function print (): void {
  process.stdout.write(`GET /api/v1/videos/:id on ${machine()}, ${rounds} rounds of ${seconds} s, 64 connections\n`)
  process.stdout.write(`database: ${database.description.replace(/ \(.*/, '')}; counters: ${process.env['REDIS_URL'] ? 'Redis' : 'in the process'}\n\n`)
}

function report (samples: Map<string, Sample[]>, bare: string, service: string): void {
  process.stdout.write(`${''.padEnd(30)}  CPU µs/request  (spread)         requests/s\n`)
  for (const [name, list] of samples) {
    const cpu = list.map(sample => sample.cpuMicros)
    process.stdout.write(`${name.padEnd(30)}  ${median(cpu).toFixed(1).padStart(14)}  (${Math.min(...cpu).toFixed(1)}–${Math.max(...cpu).toFixed(1)})`.padEnd(66) +
      `${Math.round(median(list.map(sample => sample.rate))).toString().padStart(9)}\n`)
  }
  const ratio = median(samples.get(service)!.map((sample, index) => sample.cpuMicros / samples.get(bare)![index]!.cpuMicros))
  process.stdout.write(`\na request costs ${ratio.toFixed(2)} times the CPU of the bare server's\n`)
  process.stdout.write(`the limiter's part: ${limiterMicros().toFixed(3)} µs a request\n`)
}

/** What the global limit adds to a request: the key and the bucket, for many clients in turn. */
function limiterMicros (): number {
  const buckets = createTokenBuckets({ rate: 1000, burst: 2000 })
  const addresses = Array.from({ length: 1000 }, (_, n) => n % 4 === 0 ? `2001:db8:${n.toString(16)}::1` : `10.1.${n >> 8}.${n & 255}`)
  const once = (count: number): number => {
    const startedAt = performance.now()
    for (let n = 0; n < count; n++) buckets.take(clientKey(addresses[n % 1000]!), performance.now())
    return (performance.now() - startedAt) * 1000 / count
  }
  once(200_000)
  return median([1, 2, 3, 4, 5].map(() => once(200_000)))
}

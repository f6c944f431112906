import cluster from 'node:cluster'
import { fork, spawn, type ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { createServer } from 'node:http'
import { setTimeout as sleep } from 'node:timers/promises'
import autocannon from 'autocannon'
import { readCommandLine } from '../services/runtime/command-line.ts'
import { cpuMicros, machine, median } from './measure.ts'
import { print } from './world.ts'

/**
 * `npm run bench:workers`: what it costs to serve one port from two processes, by the way in which connections reach
 * them: handed out by the parent (cluster, round robin), from one socket that both accept from (cluster, shared), or
 * from a socket of each one (SO_REUSEPORT). Bare node:http, connections that stay and connections for one request each.
 */

const ways = ['one process', 'cluster, round robin', 'cluster, shared', 'SO_REUSEPORT'] as const
type Way = typeof ways[number]
const way = process.env['HALO_BENCH_WAY'] as Way | undefined
const isChild = process.env['HALO_BENCH_CHILD'] !== undefined
const port = Number(process.env['HALO_BENCH_PORT'] ?? 20_000 + process.pid % 10_000)
const rounds = 3
const seconds = 3

if (way === undefined && !isChild && !cluster.isWorker) {
  readCommandLine({
    usage: `Usage: npm run bench:workers

What it costs to serve one port from two processes, by the way in which they share it.`
  })
}
if (isChild || cluster.isWorker) serve()
else if (way !== undefined) run(way)
else await bench()

function serve (): void {
  const body = Buffer.alloc(1000, 'x')
  const server = createServer((request, response) => {
    response.writeHead(200, { 'content-type': 'text/plain', 'content-length': '1000' })
    response.end(body)
  })
  server.keepAliveTimeout = 120_000
  server.listen({ port, host: '127.0.0.1', backlog: 4096, reusePort: way === 'SO_REUSEPORT' })
}

function run (way: Way): void {
  const env = { ...process.env, HALO_BENCH_CHILD: '1' }
  if (way === 'one process') return serve()
  cluster.schedulingPolicy = way === 'cluster, round robin' ? cluster.SCHED_RR : cluster.SCHED_NONE
  const children = [0, 1].map(() =>
    way === 'SO_REUSEPORT' ? fork(import.meta.filename, { env }) : cluster.fork(env).process
  )
  process.on('SIGTERM', () => {
    for (const child of children) child.kill('SIGKILL')
    process.exit()
  })
  process.send!(children.map(({ pid }) => pid!))
}

async function bench (): Promise<void> {
  print(`Two processes on ${machine()}: bare node:http, ${rounds} rounds of ${seconds} s, the generator beside them`)
  print(`${'connections'.padEnd(24)}${ways.map(way => way.padStart(30)).join('')}`)
  for (const isShort of [false, true]) {
    for (const connections of [16, 64, 256, 4096]) {
      const samples = new Map<Way, { rate: number, micros: number }[]>(ways.map(way => [way, []]))
      for (let round = 0; round < rounds; round++) {
        for (const way of ways) samples.get(way)!.push(await measure(way, connections, isShort))
      }
      const cells = ways.map(way => {
        const list = samples.get(way)!
        return `${Math.round(median(list.map(({ rate }) => rate)))}/s ${
          median(list.map(({ micros }) => micros)).toFixed(1)
        } µs`.padStart(30)
      })
      print(`${connections} ${isShort ? 'for one request each' : 'that stay'}`.padEnd(24) + cells.join(''))
    }
  }
}

async function measure (way: Way, connections: number, isShort: boolean): Promise<{ rate: number, micros: number }> {
  const child: ChildProcess = spawn(process.execPath, [import.meta.filename], {
    env: { ...process.env, HALO_BENCH_WAY: way, HALO_BENCH_PORT: String(port) },
    stdio: ['ignore', 'inherit', 'inherit', 'ipc']
  })
  try {
    const pids = way === 'one process' ? [] : (await once(child, 'message') as [number[]])[0]
    const all = [child.pid!, ...pids]
    const url = `http://127.0.0.1:${port}`
    for (let tries = 0; !await fetch(url).then(response => response.ok, () => false); tries++) {
      if (tries > 100) throw new Error(`${way} did not start`)
      await sleep(50)
    }
    await sleep(200)
    const cpu = (): number => all.reduce((sum, pid) => sum + cpuMicros(pid), 0)
    const before = cpu()
    const result = await autocannon({
      url,
      connections,
      duration: seconds,
      timeout: 30,
      ...isShort ? { headers: { connection: 'close' } } : {}
    })
    if (result['2xx'] === 0 || result.non2xx > 0) {
      throw new Error(`${way}: ${result['2xx']} answers, and ${result.non2xx} of another kind`)
    }
    return { rate: result.requests.total / result.duration, micros: (cpu() - before) / result.requests.total }
  } finally {
    child.kill('SIGTERM')
    await once(child, 'exit')
  }
}

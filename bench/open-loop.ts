import { fork, type ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { Agent, request } from 'node:http'
import { setTimeout as sleep } from 'node:timers/promises'

/** Requests at a fixed rate, whatever is answered. */
export interface OpenLoop {
  port: number
  method: string
  path: string
  /** Bodies that are sent in turn. */
  bodies?: string[]
  /** Requests a second. */
  rate: number
  seconds: number
}

/** What was answered, and after how many milliseconds. */
export interface Outcome { status: number, retryAfter: string | undefined, ms: number }

/** A generator in a process of its own, so that two of them do not wait for each other. */
export function createGenerator () {
  const child: ChildProcess = fork(import.meta.filename, { env: { ...process.env, HALO_GENERATOR: '1' } })
  return {
    async run (load: OpenLoop): Promise<Outcome[]> {
      child.send(load)
      return (await once(child, 'message') as [Outcome[]])[0]
    },
    stop (): void { child.kill() }
  }
}

/** The value below which so many percent of the milliseconds lie. */
export function percentile (outcomes: readonly Outcome[], percent: number): number {
  const sorted = outcomes.map(({ ms }) => ms).sort((a, b) => a - b)
  return sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * percent / 100))] ?? 0
}

const agent = new Agent({ keepAlive: true, maxSockets: 256 })
let client = 0

function ask ({ port, method, path, bodies }: OpenLoop, startedAt: number): Promise<Outcome> {
  const body = bodies?.[client % bodies.length]
  return new Promise((resolve, reject) => {
    const headers = {
      // Each request is of a client of its own, so that none meets its limit.
      'x-forwarded-for': `10.${client >> 14 & 255}.${client >> 7 & 127}.${client++ & 127}`,
      ...body === undefined ? {} : { 'content-type': 'application/json', 'content-length': String(Buffer.byteLength(body)) }
    }
    request({ agent, port, host: '127.0.0.1', method, path, headers }, response => {
      response.resume().on('end', () => {
        resolve({ status: response.statusCode!, retryAfter: response.headers['retry-after'], ms: performance.now() - startedAt })
      })
    }).on('error', reject).end(body)
  })
}

async function generate (load: OpenLoop): Promise<Outcome[]> {
  const startedAt = performance.now()
  const sent: Promise<Outcome>[] = []
  for (let n = 0; n < load.rate * load.seconds; n++) {
    const dueAt = startedAt + n * 1000 / load.rate
    if (dueAt > performance.now()) await sleep(dueAt - performance.now())
    sent.push(ask(load, performance.now()))
  }
  return await Promise.all(sent)
}

if (process.env['HALO_GENERATOR'] !== undefined) {
  process.on('message', (load: OpenLoop) => {
    generate(load).then(outcomes => process.send!(outcomes), (error: unknown) => {
      process.stderr.write(`${String(error)}\n`)
      process.exit(1)
    })
  })
}

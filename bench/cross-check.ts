import { execFile } from 'node:child_process'
import { promisify } from 'node:util'
import type { Generator } from './generator.ts'
import type { Kind } from './load.ts'
import { run, UnexpectedAnswers } from './measure-scenario.ts'
import type { Server } from './world.ts'
import { runWrk } from './wrk.ts'

/** One number, as a generator of others found it and as ours did; the other's is absent where it is not installed. */
export interface CrossCheck {
  title: string
  tool: string
  unit: string
  theirs?: number
  ours: number
}

const seconds = 4
const rate = 500
const unitsInMs: Record<string, number> = { us: 0.001, ms: 1, s: 1000 }

/**
 * Asks for what a kind asks for with Debian's wrk (capacity) and h2load (latency at a fixed rate), and with our
 * generator.
 *
 * @throws UnexpectedAnswers
 */
export async function crossCheck (service: Server, generator: Generator, kind: Kind): Promise<CrossCheck[]> {
  const load = { kinds: [kind], seconds }
  const url = `http://${service.host}:${service.port}${kind.paths[0]!}`
  const closed = { ...load, connections: 64, addresses: 250 }
  await run(generator, service, 'warm-up', closed)
  const capacity = await run(generator, service, 'capacity', closed)
  const fixed = await run(generator, service, 'latency', { ...load, connections: 10, addresses: 1, rate })
  const theirs = { capacity: (await runWrk(service, 'capacity by wrk', closed))?.rate, latency: await askH2load(url) }
  return [
    {
      title: 'capacity with 64 connections',
      tool: 'wrk',
      unit: '/s',
      ...theirs.capacity === undefined ? {} : { theirs: theirs.capacity },
      ours: capacity.sample.rate
    },
    {
      title: `mean latency at ${rate}/s`,
      tool: 'h2load',
      unit: 'ms',
      ...theirs.latency === undefined ? {} : { theirs: theirs.latency },
      ours: fixed.result.latency.mean
    }
  ]
}

/** What a command prints; undefined where it is not installed. */
async function outputOf (command: string, args: string[]): Promise<string | undefined> {
  try {
    return (await promisify(execFile)(command, args)).stdout
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined
    throw error
  }
}

async function askH2load (url: string): Promise<number | undefined> {
  const clients = 10
  const output = await outputOf('h2load', [
    '--h1',
    '-c',
    String(clients),
    '--rps',
    String(rate / clients),
    '-n',
    String(rate * seconds),
    '-H',
    'x-forwarded-for: 10.1.2.1',
    url
  ])
  if (output === undefined) return undefined
  if (!output.includes(` ${rate * seconds} 2xx`)) {
    throw new UnexpectedAnswers(`h2load met answers that were not expected:\n${output}`)
  }
  const [, mean, unit] = /time for request:\s+\S+\s+\S+\s+([\d.]+)(us|ms|s)/.exec(output)!
  return Number(mean) * unitsInMs[unit!]!
}

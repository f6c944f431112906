import type { Generator, LoadResult } from './generator.ts'
import type { Load } from './load.ts'
import type { Summary } from './latency.ts'
import type { Limit } from './limits.ts'
import { median, watch, type Usage } from './measure.ts'
import type { Fixtures, Scenario } from './scenarios.ts'
import type { Server } from './world.ts'

/** A number that was measured in several rounds. */
export interface Spread {
  median: number
  min: number
  max: number
}

/** What a server did under a load. */
export interface Sample {
  rate: number
  /** CPU time of the server for a request, in microseconds; absent where it runs elsewhere. */
  cpuMicros?: number
  /** Share of one CPU that the generator used, and the server. */
  generatorCpu: number
  serverCpu?: number
  bytes?: number
}

export interface Row {
  name: string
  title: string
  rate: Spread
  cpuMicros?: Spread
  /** Resident memory of the server, in bytes, at the most. */
  bytes?: number
  /** The limit in the same rounds, and ratios to it. */
  limit?: {
    title: string
    rate: Spread
    cpuMicros: Spread
    rateOfLimit: Spread
    /** Ratio of the best rounds of both: what others do to a machine only ever adds CPU time. */
    cpuTimesLimit: number
  }
  /** Whether the generator was at its end, and the server was not. */
  isGeneratorBound: boolean
  generatorCpu: number
  /** From the moment at which each request was due, by the percent of the capacity that was sent. */
  latency?: Record<string, { rate: number, summary: Summary, limit?: Summary }>
  /** For plots, over all rounds one after the other: seconds and answers a second. */
  throughput: [at: number, rate: number][]
  usage: Usage['samples']
}

export interface Pace {
  rounds: number
  seconds: number
  /** Percents of the capacity at which latencies are measured, and for how long. */
  levels: number[]
  levelSeconds: number
}

export const defaultConnections = 64
export const defaultAddresses = 250

export function spreadOf (values: number[]): Spread {
  return { median: median(values), min: Math.min(...values), max: Math.max(...values) }
}

export class UnexpectedAnswers extends Error {}

/** Outcomes of requests that had no answer within the time limit of the generator. */
const unanswered = new Set(['no answer', 'not sent, every connection was busy'])

/** Requests that had no answer within the time limit of the generator. */
export const countUnanswered = ({ unexpected }: LoadResult): number =>
  Object.values(unexpected).flatMap(kinds => Object.entries(kinds))
    .reduce((sum, [kind, count]) => sum + (unanswered.has(kind) ? count : 0), 0)

/** One run against a server. @throws UnexpectedAnswers */
export async function run (
  generator: Generator,
  server: Server,
  title: string,
  load: Omit<Load, 'host' | 'port'>,
  { allowsUnanswered = false } = {}
): Promise<{ sample: Sample, result: LoadResult, usage: Usage }> {
  const stop = watch(server.pids)
  let usage: Usage | undefined
  try {
    const result = await generator.run({ ...load, host: server.host, port: server.port })
    usage = stop()
    const isUnexpected = allowsUnanswered
      ? Object.values(result.unexpected).some(kinds => Object.keys(kinds).some(kind => !unanswered.has(kind)))
      : Object.keys(result.unexpected).length > 0
    if (isUnexpected) {
      throw new UnexpectedAnswers(`${title}: answers that were not expected: ${JSON.stringify(result.unexpected)}`)
    }
    const answered = result.answered + result.refusals.count
    if (answered === 0) throw new UnexpectedAnswers(`${title}: no answer`)
    const isLocal = server.pids.length > 0
    return {
      result,
      usage,
      sample: {
        rate: answered / result.seconds,
        generatorCpu: result.generatorCpu,
        ...isLocal
          ? {
              cpuMicros: usage.micros / answered,
              serverCpu: usage.micros / 1e6 / result.seconds,
              bytes: Math.max(0, ...usage.samples.map(({ bytes }) => bytes))
            }
          : {}
      }
    }
  } finally {
    if (!usage) stop()
  }
}

interface Subject {
  generator: Generator
  fixtures: Fixtures
  service: Server
}

/**
 * Capacity in several rounds, each right after one of the limit, the first of all thrown away; then latencies at
 * parts of it.
 */
export async function measureScenario (
  scenario: Scenario,
  { generator, fixtures, service }: Subject,
  limit: Limit | undefined,
  pace: Pace,
  onProgress: (text: string) => void
): Promise<Row> {
  const { name, title, connections = defaultConnections, addresses = defaultAddresses } = scenario
  const samples: Sample[] = []
  const limits: Sample[] = []
  const throughput: Row['throughput'] = []
  const usage: Row['usage'] = []
  let elapsed = 0
  for (let round = 0; round <= pace.rounds; round++) {
    onProgress(`${title}: ${round === 0 ? 'warm-up' : `round ${round} of ${pace.rounds}`}`)
    const seconds = round === 0 ? 1 : pace.seconds
    const load = { kinds: scenario.kinds(fixtures), connections, addresses, seconds }
    const ofLimit = limit &&
      (await run(generator, limit.server, limit.title, { ...load, kinds: limit.kinds(load.kinds) })).sample
    const measured = await run(generator, service, title, load)
    if (round === 0) continue
    samples.push(measured.sample)
    const from = elapsed
    elapsed += measured.result.seconds
    // The last tenth of a round is not whole.
    throughput.push(
      ...measured.result.perTenth.slice(0, -1).map((count, tenth): [number, number] => [from + tenth / 10, count * 10])
    )
    // Nor is the first look at the processes: the generator was opening its connections.
    usage.push(...measured.usage.samples.slice(1).map(sample => ({ ...sample, at: from + sample.at })))
    if (ofLimit) limits.push(ofLimit)
  }
  const row: Row = {
    name,
    title,
    rate: spreadOf(samples.map(({ rate }) => rate)),
    ...spreadOfMaybe('cpuMicros', samples),
    ...samples[0]!.bytes === undefined ? {} : { bytes: Math.max(...samples.map(({ bytes }) => bytes!)) },
    ...limit ? { limit: compareToLimit(limit.title, samples, limits) } : {},
    generatorCpu: median(samples.map(({ generatorCpu }) => generatorCpu)),
    isGeneratorBound:
      median(samples.map(({ generatorCpu, serverCpu = 1 }) => Number(generatorCpu > 0.85 && serverCpu < 0.85))) === 1,
    throughput,
    usage
  }
  if (scenario.hasLatency) {
    row.latency = {}
    for (const level of pace.levels) {
      onProgress(`${title}: latency at ${level} % of its capacity`)
      const rate = Math.max(1, Math.floor(row.rate.median * level / 100))
      const load = { kinds: scenario.kinds(fixtures), connections: 256, addresses, seconds: pace.levelSeconds, rate }
      const ofLimit = limit &&
        await run(generator, limit.server, limit.title, { ...load, kinds: limit.kinds(load.kinds) })
      const { result } = await run(generator, service, title, load)
      row.latency[level] = { rate, summary: result.latency, ...ofLimit ? { limit: ofLimit.result.latency } : {} }
    }
  }
  return row
}

function spreadOfMaybe (key: 'cpuMicros', samples: Sample[]): { cpuMicros?: Spread } {
  return samples.some(sample => sample[key] === undefined)
    ? {}
    : { cpuMicros: spreadOf(samples.map(sample => sample[key]!)) }
}

function compareToLimit (title: string, samples: Sample[], limits: Sample[]): NonNullable<Row['limit']> {
  return {
    title,
    rate: spreadOf(limits.map(({ rate }) => rate)),
    cpuMicros: spreadOf(limits.map(({ cpuMicros }) => cpuMicros!)),
    rateOfLimit: spreadOf(samples.map((sample, index) => sample.rate / limits[index]!.rate)),
    cpuTimesLimit: Math.min(...samples.map(({ cpuMicros }) => cpuMicros!)) /
      Math.min(...limits.map(({ cpuMicros }) => cpuMicros!))
  }
}

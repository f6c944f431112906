import { textOfCheckout, type Checkout } from './checkout.ts'
import type { ConnectionsResult } from './connections.ts'
import type { CrossCheck } from './cross-check.ts'
import type { GateResult } from './gates.ts'
import type { Row, Spread } from './measure-scenario.ts'

/** All that a run has found. */
export interface Report {
  head: Checkout & {
    machine: string
    command: string
    stores: string
    configuration: string
    flags: string
  }
  rows: Row[]
  connections?: ConnectionsResult
  memory?: { one: number, further: number }
  amount?: { amount: number, connections: number, answered: number, seconds: number, cpuMicros?: number | undefined }
  streams?: { listeners: number, bytesEach: number, eventsPerListenerAndSecond: number }
  'cross-check'?: CrossCheck[]
  gates: { isPassed: boolean, isMeasured: boolean, text: string }[]
}

const cell = (value: number | undefined, digits: number, width: number): string =>
  (value === undefined ? '–' : value.toFixed(digits)).padStart(width)
const spread = (value: Spread | undefined, digits: number): string =>
  value ? `(${value.min.toFixed(digits)}–${value.max.toFixed(digits)})` : ''
const megabytes = (bytes: number): string => `${(bytes / 1e6).toFixed(0)} MB`

/** The report as lines of text. */
export function toText (
  { head, rows, connections, memory, amount, streams, 'cross-check': checks = [], gates }: Report
): string {
  const lines = [
    textOfCheckout(head),
    `${head.machine}${head.flags ? `, ${head.flags}` : ''}; ${head.stores}`,
    `${head.configuration}; ${head.command}`,
    'medians of several rounds; times its CPU: by the best rounds of both, because what others do on a machine only adds',
    ''
  ]
  if (rows.length > 0) {
    lines.push(
      `${
        ''.padEnd(53)
      }requests/s (spread)           CPU µs (spread)          of limit’s rate  times its CPU   memory  generator`
    )
    for (const row of rows) lines.push(...textOfRow(row))
  }
  const measured = rows.filter(({ latency }) => latency)
  if (measured.length > 0) {
    lines.push(
      '',
      `${
        'latency in ms from the moment when it was due'.padEnd(53)
      }     rate     p50     p90     p95     p99   p99.9     max`
    )
    for (const { title, latency } of measured) {
      for (const [level, { rate, summary, limit }] of Object.entries(latency!)) {
        const numbers = (of: typeof summary): string =>
          [of.p50, of.p90, of.p95, of.p99, of.p999, of.max].map(value => cell(value, 1, 8)).join('')
        lines.push(`${`${title.slice(0, 40)}, at ${level} %`.padEnd(53)}${cell(rate, 0, 9)}${numbers(summary)}`)
        if (limit) lines.push(`${'  its limit at the same rate'.padEnd(53)}${''.padStart(9)}${numbers(limit)}`)
      }
    }
  }
  lines.push('')
  if (amount) {
    lines.push(
      `${amount.answered} of ${amount.amount} requests of the mix over ${amount.connections} connections answered as expected, in ${
        amount.seconds.toFixed(1)
      } s`
    )
  }
  if (connections) {
    const { idle, bytesEach, latency, lost } = connections
    lines.push(
      `${idle} idle connections: ${
        (bytesEach / 1000).toFixed(1)
      } KB each, ${lost} lost; 250 others with half of the capacity beside them: p50 ${
        latency.p50.toFixed(1)
      } ms, p99 ${latency.p99.toFixed(1)} ms`
    )
  }
  if (streams) {
    lines.push(
      `${streams.listeners} listeners of one stream: ${(streams.bytesEach / 1000).toFixed(1)} KB each, ${
        streams.eventsPerListenerAndSecond.toFixed(2)
      } events a second for each`
    )
  }
  if (memory) {
    lines.push(
      `memory of a process that nobody asks: ${megabytes(memory.one)}; of each further one: ${
        megabytes(memory.further)
      }`
    )
  }
  lines.push(...checks.map(check => `hot video, ${textOfCrossCheck(check)}`))
  if (gates.length > 0) {
    lines.push(
      '',
      ...gates.map(({ isPassed, isMeasured, text }) => `${isMeasured ? isPassed ? 'pass' : 'FAIL' : '–   '}  ${text}`)
    )
  }
  return lines.join('\n')
}

function textOfRow ({ title, rate, cpuMicros, limit, bytes, generatorCpu, isGeneratorBound }: Row): string[] {
  const columns = (name: string, rate: Spread, cpu: Spread | undefined): string => {
    const digits = cpu && cpu.median >= 1000 ? 0 : 1
    return `${name.padEnd(53)}${cell(rate.median, 0, 10)} ${spread(rate, 0).padEnd(19)}${
      cell(cpu?.median, digits, 7)
    } ${spread(cpu, digits).padEnd(17)}`
  }
  return [
    ...limit ? [columns(`  ${limit.title}`, limit.rate, limit.cpuMicros).trimEnd()] : [],
    `${columns(title, rate, cpuMicros)}${cell(limit?.rateOfLimit.median, 2, 15)}${cell(limit?.cpuTimesLimit, 2, 15)}${
      (bytes === undefined ? '–' : megabytes(bytes)).padStart(9)
    }${`${(generatorCpu * 100).toFixed(0)} %`.padStart(11)}${isGeneratorBound ? '  the generator was the limit' : ''}`
  ]
}

export const gatesOf = (results: GateResult[]): Report['gates'] =>
  results.map(({ isPassed, value, text }) => ({ isPassed, isMeasured: value !== undefined, text }))

function textOfCrossCheck ({ title, tool, unit, theirs, ours }: CrossCheck): string {
  const text = (value: number): string => unit === 'ms' ? `${value.toFixed(2)} ms` : `${value.toFixed(0)}${unit}`
  return `${title}: ${text(ours)} by the generator of this bench, ${
    theirs === undefined ? `${tool} is not installed` : `${text(theirs)} by ${tool}`
  }`
}

import type { Row } from './measure-scenario.ts'

/** A line of gates.json: what a measure of a scenario must be. */
export interface Gate {
  scenario: string
  /**
   * A path in the scenario's result; `target`, which is a rate where there are `cores` and CPU time where there are
   * fewer; or `added.p50.30`, the p50 at 30 % of the capacity less that of the limit at the same rate, which is the
   * machine's own share and no fault of the service.
   */
  measure: string
  min?: number
  max?: number
  cores?: number
  rate?: number
  why: string
}

export interface GateResult {
  gate: Gate
  value: number | undefined
  isPassed: boolean
  text: string
}

/** What was measured, by scenario; one that did not run is not there. */
export type Results = Record<string, unknown>

/** Judges those gates whose scenario was measured. @param cores CPUs of this machine */
export function judge (gates: Gate[], results: Results, cores: number): GateResult[] {
  return gates.filter(({ scenario }) => results[scenario] !== undefined).map(gate => {
    const result = results[gate.scenario]
    return gate.measure === 'target'
      ? judgeTarget(gate, result as Row, cores)
      : judgeNumber(gate, valueOf(result, gate.measure))
  })
}

function judgeNumber (gate: Gate, value: number | undefined): GateResult {
  // What could not be measured, such as CPU time of a service elsewhere, is no failure and no success.
  const isPassed = value === undefined ||
    ((gate.min === undefined || value >= gate.min) && (gate.max === undefined || value <= gate.max))
  const bound = gate.min === undefined ? `at most ${short(gate.max!)}` : `at least ${short(gate.min)}`
  return {
    gate,
    value,
    isPassed,
    text: `${gate.scenario} ${gate.measure}: ${
      value === undefined ? 'not measured' : short(value)
    }, ${bound} (${gate.why})`
  }
}

function judgeTarget (gate: Gate, row: Row, cores: number): GateResult {
  const { cores: wanted = 8, rate = 50_000 } = gate
  if (cores >= wanted) return judgeNumber({ ...gate, min: rate }, row.rate.median)
  const micros = row.cpuMicros?.median
  if (micros === undefined) return judgeNumber({ ...gate, min: rate }, undefined)
  const used = micros * rate / 1e6
  return {
    gate,
    value: used,
    isPassed: used <= wanted,
    text: `${gate.scenario}: ${short(micros)} µs of CPU a request would take ${
      short(used)
    } of ${wanted} cores at ${rate} a second (computed on ${cores} cores, not measured; ${gate.why})`
  }
}

function valueOf (result: unknown, path: string): number | undefined {
  const [first, percentile, level] = path.split('.')
  if (first === 'added') {
    const measured = (result as Row).latency?.[level!]
    return measured?.limit &&
      measured.summary[percentile as 'p50' | 'p95'] - measured.limit[percentile as 'p50' | 'p95']
  }
  const value = path.split('.').reduce<unknown>((of, key) => (of as Record<string, unknown> | undefined)?.[key], result)
  return typeof value === 'number' ? value : undefined
}

const short = (value: number): string =>
  Number.isInteger(value) ? String(value) : value.toFixed(Math.abs(value) < 10 ? 2 : 1)

/** What a set of latencies comes to, in milliseconds. */
export interface Summary {
  count: number
  mean: number
  p50: number
  p90: number
  p95: number
  p99: number
  p999: number
  max: number
  /** Percentiles to draw a curve of: percent and milliseconds. */
  curve: [percent: number, ms: number][]
}

/** Where a curve is drawn: closer to each other the nearer to 100 %. */
const curvePercents = [
  0,
  10,
  20,
  30,
  40,
  50,
  60,
  70,
  75,
  80,
  85,
  90,
  92.5,
  95,
  97,
  98,
  99,
  99.5,
  99.7,
  99.9,
  99.95,
  99.99,
  100
]

/** Exact percentiles (nearest rank) of latencies in milliseconds. */
export function summarize (latencies: number[]): Summary {
  const sorted = Float64Array.from(latencies).sort()
  const at = (percent: number): number =>
    sorted.length === 0 ? 0 : sorted[Math.max(0, Math.ceil(sorted.length * percent / 100) - 1)]!
  return {
    count: sorted.length,
    mean: sorted.reduce((sum, ms) => sum + ms, 0) / Math.max(1, sorted.length),
    p50: at(50),
    p90: at(90),
    p95: at(95),
    p99: at(99),
    p999: at(99.9),
    max: at(100),
    curve: curvePercents.map(percent => [percent, at(percent)])
  }
}

/**
 * Metrics in the text format of Prometheus (https://prometheus.io/docs/instrumenting/exposition_formats/). A histogram of
 * our own takes 0.01 µs an observation, and can be sent between processes as it is.
 */

/** How the values of several processes are merged. Counters and histograms are always summed. */
export type Merge = 'sum' | 'max' | 'min'

export interface Series {
  /** Rendered labels, such as `route="/videos",method="GET"`; empty for none. */
  labels: string
  value: number
}

export interface Distribution {
  labels: string
  /** Observations by bucket, not cumulative; the last one is of those beyond all bounds. */
  counts: number[]
  sum: number
}

/** All series of one name, as plain data. */
export type Family =
  & { name: string, help: string }
  & (
    | { type: 'gauge', merge: Merge, series: Series[] }
    | { type: 'counter', series: Series[] }
    | { type: 'histogram', bounds: readonly number[], series: Distribution[] }
  )

/** A number, or one for each of several labels. */
type Read = () => number | Iterable<readonly [labels: string, value: number]>

export type Metrics = ReturnType<typeof createMetrics>

/** Upper bounds in seconds of durations of requests and of calls to stores. */
export const durationBounds = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5]

/** The metrics of one process. Gauges and counters are read when they are asked for. */
export function createMetrics () {
  const families = new Map<string, () => Family>()

  function add (name: string, read: () => Family): void {
    if (families.has(name)) throw new Error(`there is a metric ${name} already`)
    families.set(name, read)
  }
  const seriesOf = (read: Read): Series[] => {
    const values = read()
    return typeof values === 'number'
      ? [{ labels: '', value: values }]
      : Array.from(values, ([labels, value]) => ({ labels, value }))
  }

  return {
    gauge (name: string, help: string, merge: Merge, read: Read): void {
      add(name, () => ({ name, help, type: 'gauge', merge, series: seriesOf(read) }))
    },

    counter (name: string, help: string, read: Read): void {
      add(name, () => ({ name, help, type: 'counter', series: seriesOf(read) }))
    },

    /** A counter by labels. @returns a function that counts one */
    counts (name: string, help: string): (labels: string) => void {
      const values = new Map<string, number>()
      this.counter(name, help, () => values)
      return labels => { values.set(labels, (values.get(labels) ?? 0) + 1) }
    },

    /**
     * A histogram.
     *
     * @returns a function that returns, for labels, the function that takes an observation. Labels must be of a bounded
     *   number: each takes memory for ever
     */
    histogram (
      name: string,
      help: string,
      bounds: readonly number[] = durationBounds
    ): (labels: string) => (value: number) => void {
      const series = new Map<string, Distribution & { observe: (value: number) => void }>()
      add(name, () => ({
        name,
        help,
        type: 'histogram',
        bounds,
        series: Array.from(series.values(), ({ labels, counts, sum }) => ({ labels, counts: [...counts], sum }))
      }))
      return labels => {
        let one = series.get(labels)
        if (!one) {
          const made = {
            labels,
            counts: Array.from({ length: bounds.length + 1 }, () => 0),
            sum: 0,
            observe (value: number): void {
              let bucket = 0
              while (bucket < bounds.length && value > bounds[bucket]!) bucket++
              made.counts[bucket]!++
              made.sum += value
            }
          }
          series.set(labels, one = made)
        }
        return one.observe
      }
    },

    /** A histogram by one label. @returns a function that takes an observation; values of the label must be bounded */
    histogramBy (name: string, help: string, label: string): (value: string, observation: number) => void {
      const observer = this.histogram(name, help)
      const observers = new Map<string, (observation: number) => void>()
      return (value, observation) => {
        let observe = observers.get(value)
        if (!observe) observers.set(value, observe = observer(labelsOf({ [label]: value })))
        observe(observation)
      }
    },

    read: (): Family[] => Array.from(families.values(), read => read())
  }
}

/** Renders labels. Their values are of the service, never of a client. */
export function labelsOf (labels: Record<string, string>): string {
  return Object.entries(labels)
    .map(([name, value]) => `${name}="${value.replaceAll('\\', '\\\\').replaceAll('"', '\\"').replaceAll('\n', '\\n')}"`)
    .join(',')
}

const merges: Record<Merge, (a: number, b: number) => number> = { sum: (a, b) => a + b, max: Math.max, min: Math.min }

/** Merges the metrics of several processes. */
export function mergeFamilies (processes: Family[][]): Family[] {
  const merged = new Map<string, Family>()
  for (const family of processes.flat()) {
    const known = merged.get(family.name)
    if (!known) merged.set(family.name, structuredClone(family))
    else if (known.type === 'histogram') {
      mergeSeries(known.series, (family as typeof known).series, (a, b) => {
        a.counts = a.counts.map((count, index) => count + b.counts[index]!)
        a.sum += b.sum
      })
    } else {
      const merge = merges[known.type === 'gauge' ? known.merge : 'sum']
      mergeSeries(known.series, (family as typeof known).series, (a, b) => { a.value = merge(a.value, b.value) })
    }
  }
  return [...merged.values()]
}

function mergeSeries<T extends { labels: string }> (into: T[], from: T[], merge: (a: T, b: T) => void): void {
  const byLabels = new Map(into.map(one => [one.labels, one]))
  for (const one of from) {
    const known = byLabels.get(one.labels)
    if (known) merge(known, one)
    else into.push(structuredClone(one))
  }
}

/** Returns what must be counted on when a process has ended: a counter never falls. */
export const withoutGauges = (families: Family[]): Family[] => families.filter(({ type }) => type !== 'gauge')

export const metricsContentType = 'text/plain; version=0.0.4; charset=utf-8'

/** Renders metrics in the text format. */
export function toText (families: Family[]): string {
  const lines: string[] = []
  for (const family of families) {
    const { name, help, type } = family
    lines.push(`# HELP ${name} ${help}`, `# TYPE ${name} ${type}`)
    if (type !== 'histogram') {
      for (const { labels, value } of family.series) lines.push(`${name}${labels && `{${labels}}`} ${value}`)
      continue
    }
    for (const { labels, counts, sum } of family.series) {
      const before = labels && `${labels},`
      let total = 0
      for (const [index, count] of counts.entries()) {
        total += count
        lines.push(`${name}_bucket{${before}le="${family.bounds[index] ?? '+Inf'}"} ${total}`)
      }
      lines.push(`${name}_sum${labels && `{${labels}}`} ${sum}`, `${name}_count${labels && `{${labels}}`} ${total}`)
    }
  }
  return `${lines.join('\n')}\n`
}

import { readdirSync } from 'node:fs'
import { monitorEventLoopDelay, performance, PerformanceObserver, constants } from 'node:perf_hooks'
import v8 from 'node:v8'
import { labelsOf, type Metrics } from './metrics.ts'

/** Names of the kinds of garbage collection (perf_hooks). */
const collections = new Map([
  [constants.NODE_PERFORMANCE_GC_MINOR, 'minor'],
  [constants.NODE_PERFORMANCE_GC_MAJOR, 'major'],
  [constants.NODE_PERFORMANCE_GC_INCREMENTAL, 'incremental'],
  [constants.NODE_PERFORMANCE_GC_WEAKCB, 'weak_callbacks']
])

/** Bounds in seconds of garbage collections. */
const collectionBounds = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25]

/** Milliseconds between two samples of the event loop's delay. */
const resolution = 20

/**
 * Adds the metrics of this process: memory, CPU, event loop, garbage collection, file descriptors.
 *
 * @returns a function that ends what observes the process
 */
export function addProcessMetrics (metrics: Metrics): () => void {
  const startedAt = (Date.now() - performance.now()) / 1000
  metrics.gauge('process_start_time_seconds', 'Start of the (oldest) process, in Unix time', 'min', () => startedAt)
  metrics.counter('process_cpu_seconds_total', 'CPU time of the processes', () => {
    const { user, system } = process.cpuUsage()
    return (user + system) / 1e6
  })
  metrics.gauge('process_resident_memory_bytes', 'Resident memory of the processes', 'sum', () => process.memoryUsage.rss())
  metrics.gauge('process_open_fds', 'Open file descriptors; absent where /proc is', 'sum', openFiles)
  metrics.gauge('halo_heap_bytes', 'Heap of V8, by state', 'sum', () => {
    const { used_heap_size: used, total_heap_size: total, heap_size_limit: limit } = v8.getHeapStatistics()
    return Object.entries({ used, total, limit }).map(([state, value]) => [labelsOf({ state }), value] as const)
  })

  let before = performance.eventLoopUtilization()
  metrics.gauge('halo_event_loop_utilization_ratio', 'Share of the time since the last scrape in which the event loop was busy (highest of the processes)', 'max', () => {
    const now = performance.eventLoopUtilization()
    const { utilization } = performance.eventLoopUtilization(now, before)
    before = now
    return Number.isFinite(utilization) ? utilization : 0
  })
  const delays = monitorEventLoopDelay({ resolution })
  delays.enable()
  metrics.gauge('halo_event_loop_delay_percentile_seconds', 'Delay of the event loop since the last scrape (highest of the processes)', 'max', () => {
    const percentiles = [['p50', 50], ['p99', 99], ['max', 100]] as const
    const values = percentiles.map(([percentile, percent]) =>
      [labelsOf({ percentile }), Math.max(0, delays.percentile(percent) / 1e9 - resolution / 1000)] as const)
    delays.reset()
    return values
  })

  const duration = metrics.histogram('halo_gc_duration_seconds', 'Pauses of the garbage collector, by kind', collectionBounds)
  const observe = new Map([...collections].map(([kind, name]) => [kind, duration(labelsOf({ kind: name }))]))
  const observer = new PerformanceObserver(list => {
    for (const entry of list.getEntries()) {
      observe.get((entry as unknown as { detail: { kind: number } }).detail.kind)?.(entry.duration / 1000)
    }
  })
  observer.observe({ entryTypes: ['gc'] })
  return () => {
    observer.disconnect()
    delays.disable()
  }
}

function * openFiles (): Generator<readonly [string, number]> {
  try {
    // The directory itself is one of them.
    yield ['', readdirSync('/proc/self/fd').length - 1]
  } catch {}
}

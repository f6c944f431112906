import type { Family } from './metrics.ts'
import type { ToPrimary, ToWorker, WorkerReport } from './worker-messages.ts'

type ReadReport = () => WorkerReport

/** The other worker processes behind the same port, as one worker sees them. */
export interface Workers {
  /** Running and wanted workers. */
  state(): { running: number, wanted: number }
  /** Reads the metrics of all workers: of this one now, and of the others as they reported them last. */
  collect (): Promise<Family[]>
  /** Registers the function that reads what this process reports. */
  share(read: ReadReport): void
}

/** A process without other workers. */
export function createAlone (): Workers {
  let shared: ReadReport | undefined
  return {
    state: () => ({ running: 1, wanted: 1 }),
    collect: async () => shared?.().metrics ?? [],
    share (read) {
      shared = read
    }
  }
}

/** Milliseconds between two reports to the supervisor. */
const aliveMs = 1000

/** Milliseconds after which only the metrics of this process are returned. */
const patienceMs = 1000

export interface WorkerOptions {
  wanted: number
  /**
   * Called when the supervisor asks the worker to drain; server.ts listens itself, because it must hear it from its
   * start.
   */
  onDrain?: (signal: string) => void
}

/** A worker's side of the channel to its supervisor. */
export function createWorker ({ wanted, onDrain = () => {} }: WorkerOptions): Workers {
  let known = { running: wanted, wanted }
  let count = 0
  let shared: ReadReport | undefined
  const waiting = new Map<number, (metrics: Family[]) => void>()
  const tell = (message: ToPrimary): void => {
    if (process.connected) process.send!(message, undefined, {}, () => {})
  }

  setInterval(() => {
    tell({ halo: 'alive', report: shared?.() })
  }, aliveMs).unref()
  process.on('message', (message: ToWorker) => {
    if (message.halo === 'drain') onDrain(message.signal)
    else if (message.halo === 'state') known = { running: message.running, wanted: message.wanted }
    else if (message.halo === 'collected') waiting.get(message.id)?.(message.metrics)
  })

  return {
    state: () => known,
    share (read) {
      shared = read
    },

    async collect () {
      if (!shared) return []
      const id = count++
      const report = shared()
      const { promise, resolve } = Promise.withResolvers<Family[]>()
      waiting.set(id, resolve)
      const timer = setTimeout(() => { resolve(report.metrics) }, patienceMs)
      tell({ halo: 'collect', id, report })
      try {
        return await promise
      } finally {
        clearTimeout(timer)
        waiting.delete(id)
      }
    }
  }
}

import type { MetricsOfWorker, ToPrimary, ToWorker } from './worker-messages.ts'

type ReadMetrics = () => Promise<MetricsOfWorker>

/** The other worker processes behind the same port, as one worker sees them. */
export interface Workers {
  /** Running and wanted workers. */
  state(): { running: number, wanted: number }
  /** Collects the metrics of all workers that answer in time. @param own reads those of this process */
  collect (own: ReadMetrics): Promise<MetricsOfWorker[]>
  /** Registers the function that reads the metrics of this process for the others. */
  share(own: ReadMetrics): void
}

/** A process without other workers. */
export const alone: Workers = {
  state: () => ({ running: 1, wanted: 1 }),
  collect: async own => [await own()],
  share () {}
}

/** Milliseconds between two heartbeats to the supervisor. */
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
  let shared: ReadMetrics | undefined
  const waiting = new Map<number, (metrics: MetricsOfWorker[]) => void>()
  const tell = (message: ToPrimary): void => {
    if (process.connected) process.send!(message, undefined, {}, () => {})
  }

  setInterval(() => {
    tell({ halo: 'alive' })
  }, aliveMs).unref()
  process.on('message', (message: ToWorker) => {
    if (message.halo === 'drain') onDrain(message.signal)
    else if (message.halo === 'state') known = { running: message.running, wanted: message.wanted }
    else if (message.halo === 'tell') {
      shared?.().then(metrics => {
        tell({ halo: 'metrics', id: message.id, metrics })
      }, () => {})
    } else if (message.halo === 'collected') waiting.get(message.id)?.(message.metrics)
  })

  return {
    state: () => known,
    share (own) {
      shared = own
    },

    async collect (own) {
      const id = count++
      const { promise, resolve } = Promise.withResolvers<MetricsOfWorker[]>()
      waiting.set(id, resolve)
      const timer = setTimeout(() => {
        own().then(metrics => {
          resolve([metrics])
        }, () => {
          resolve([])
        })
      }, patienceMs)
      tell({ halo: 'collect', id })
      try {
        return await promise
      } finally {
        clearTimeout(timer)
        waiting.delete(id)
      }
    }
  }
}

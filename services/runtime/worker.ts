import type { MetricsOfWorker, ToPrimary, ToWorker } from './worker-messages.ts'

type ReadMetrics = () => Promise<MetricsOfWorker>

/** The other worker processes behind the same port, as one worker sees them. */
export interface Workers {
  /** How many there are, and how many there should be. */
  state (): { running: number, wanted: number }
  /** The numbers of all that answer in time. @param own reads this process's own */
  collect (own: ReadMetrics): Promise<MetricsOfWorker[]>
  /** How the others get this process's own. */
  share (own: ReadMetrics): void
}

/** A process that serves alone. */
export const alone: Workers = {
  state: () => ({ running: 1, wanted: 1 }),
  collect: async own => [await own()],
  share () {}
}

/** Milliseconds between two signs of life. */
const aliveMs = 1000

/** Milliseconds after which this process's own numbers have to do. */
const patienceMs = 1000

export interface WorkerOptions {
  wanted: number
  /** The supervisor asks for an end in peace; a process that must hear of it from its first moment listens itself. */
  onDrain?: (signal: string) => void
}

/** The end of a worker's channel to its supervisor. */
export function createWorker ({ wanted, onDrain = () => {} }: WorkerOptions): Workers {
  let known = { running: wanted, wanted }
  let count = 0
  let shared: ReadMetrics | undefined
  const waiting = new Map<number, (metrics: MetricsOfWorker[]) => void>()
  const tell = (message: ToPrimary): void => {
    if (process.connected) process.send!(message, undefined, {}, () => {})
  }

  setInterval(() => { tell({ halo: 'alive' }) }, aliveMs).unref()
  process.on('message', (message: ToWorker) => {
    if (message.halo === 'drain') onDrain(message.signal)
    else if (message.halo === 'state') known = { running: message.running, wanted: message.wanted }
    else if (message.halo === 'tell') shared?.().then(metrics => { tell({ halo: 'metrics', id: message.id, metrics }) }, () => {})
    else if (message.halo === 'collected') waiting.get(message.id)?.(message.metrics)
  })

  return {
    state: () => known,
    share (own) { shared = own },

    async collect (own) {
      const id = count++
      const { promise, resolve } = Promise.withResolvers<MetricsOfWorker[]>()
      waiting.set(id, resolve)
      const timer = setTimeout(() => { own().then(metrics => { resolve([metrics]) }, () => { resolve([]) }) }, patienceMs)
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

import { ApiError } from '../shared/errors.ts'

export interface BoundedQueueOptions {
  /** Tasks that run at once. */
  concurrency: number
  /** Tasks that may wait; one more is refused at once. */
  maxWaiting: number
  /** Milliseconds that a task may wait: one that would wait longer is refused at once, one that has waited so long as well. */
  maxWaitMs: number
  /** Milliseconds that a task takes, as far as is known before the first one. */
  usualMs: number
}

/** Weight of the newest task in the average duration. */
const newestWeight = 0.2

export type BoundedQueue = ReturnType<typeof createBoundedQueue>

/** FIFO queue in front of a pool of workers, bounded by length and by waiting time. */
export function createBoundedQueue ({ concurrency, maxWaiting, maxWaitMs, usualMs }: BoundedQueueOptions) {
  const waiting = new Set<{ start: () => void }>()
  let running = 0

  /** Milliseconds until a task that comes now would start. */
  const expectedWaitMs = (): number => running < concurrency ? 0 : (waiting.size + 1) / concurrency * usualMs

  function requireRoom (): void {
    if (waiting.size >= maxWaiting || expectedWaitMs() > maxWaitMs) throw new ApiError('server_busy')
  }

  async function enter (): Promise<void> {
    if (running < concurrency) {
      running++
      return
    }
    requireRoom()
    await new Promise<void>((resolve, reject) => {
      const waiter = { start () { clearTimeout(timer); resolve() } }
      const timer = setTimeout(() => {
        waiting.delete(waiter)
        reject(new ApiError('server_busy'))
      }, maxWaitMs)
      waiting.add(waiter)
    })
  }

  function leave (tookMs: number): void {
    usualMs += newestWeight * (tookMs - usualMs)
    const [first] = waiting
    if (!first) {
      running--
      return
    }
    // Its place goes to the next one.
    waiting.delete(first)
    first.start()
  }

  return {
    /** @throws ApiError `server_busy` when a task that comes now would wait too long */
    requireRoom,

    /** Runs a task when it is its turn. @throws ApiError `server_busy`; the task was not begun then */
    async run<T> (task: () => Promise<T>): Promise<T> {
      await enter()
      const startedAt = performance.now()
      try {
        return await task()
      } finally {
        leave(performance.now() - startedAt)
      }
    },

    get stats () { return { running, waiting: waiting.size, usualMs } }
  }
}

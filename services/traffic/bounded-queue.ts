import { ApiError } from '../shared/errors.ts'

export interface BoundedQueueOptions {
  /** Tasks that run concurrently, at the most. */
  concurrency: number
  /** Maximum tasks in the queue; a further one is refused at once. */
  maxWaiting: number
  /**
   * Maximum waiting time in milliseconds: a task that is expected to wait longer is refused at once, one that has
   * waited longer as well.
   */
  maxWaitMs: number
  /** Initial estimate of the duration of a task, in milliseconds. */
  usualMs: number
}

/** Weight of the newest task in the average duration. */
const newestWeight = 0.2

export type BoundedQueue = ReturnType<typeof createBoundedQueue>

/**
 * FIFO queue in front of a pool; at most `concurrency` tasks run at once. The queue is bounded by length and by
 * waiting time.
 */
export function createBoundedQueue ({ concurrency, maxWaiting, maxWaitMs, usualMs }: BoundedQueueOptions) {
  const waiting = new Set<{ start: () => void }>()
  let running = 0

  /** Estimated milliseconds until a task that arrives now would start. */
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
      const waiter = {
        start () {
          clearTimeout(timer)
          resolve()
        }
      }
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
    // The slot goes to the next task.
    waiting.delete(first)
    first.start()
  }

  return {
    /** Checks the queue. @throws ApiError `server_busy` when a task that arrives now would wait too long */
    requireRoom,

    /** Runs a task when a slot is free. @throws ApiError `server_busy`; then the task was not started */
    async run<T> (task: () => Promise<T>): Promise<T> {
      await enter()
      const startedAt = performance.now()
      try {
        return await task()
      } finally {
        leave(performance.now() - startedAt)
      }
    },

    get stats () {
      return { running, waiting: waiting.size, usualMs }
    }
  }
}

import { ApiError } from './errors.ts'
import { createStatementLimit } from './statement-limit.ts'

export interface StatementSlotsOptions {
  /** Statements that may run at once, at the most. */
  max: number
  /** Callers that may wait; one more is refused at once. */
  maxWaiting: number
  /** Milliseconds for which one more would have to wait by what statements took of late, to be let in. */
  maxWaitMs?: number
  /** Milliseconds after which a caller gives up. */
  patienceMs?: number
  /** Milliseconds that statements may take on average, however fast they are alone. */
  slowMs?: number
  now?: () => number
}

/** Callers wait in their order for one of the statements that may run at once (statement-limit.ts). */
export function createStatementSlots ({ maxWaiting, maxWaitMs = 200, patienceMs = 400, now = performance.now.bind(performance), ...ofLimit }: StatementSlotsOptions) {
  const limit = createStatementLimit({ ...ofLimit, now })
  let running = 0
  /** When a statement last ended, or began with no other running. */
  let movedAt = -Infinity
  const waiting = new Set<{ start: () => void }>()

  function isFull (): boolean {
    if (waiting.size >= maxWaiting || waiting.size / limit.settled * limit.usualMs > maxWaitMs) return true
    // What statements took of late says nothing of a database that stands still.
    return waiting.size > 0 && now() - movedAt > maxWaitMs
  }

  function next (): void {
    const [first] = waiting
    if (!first || running >= limit.current) return
    waiting.delete(first)
    running++
    first.start()
  }

  return {
    get stats () { return { running, waiting: waiting.size, limit: limit.current } },

    /** Waits for a slot. @throws ApiError `server_busy` when that would take too long */
    async enter (): Promise<void> {
      if (running < limit.current && waiting.size === 0) {
        if (running === 0) movedAt = now()
        running++
        return
      }
      if (isFull()) throw new ApiError('server_busy')
      await new Promise<void>((resolve, reject) => {
        const waiter = { start () { clearTimeout(timer); resolve() } }
        const timer = setTimeout(() => {
          waiting.delete(waiter)
          reject(new ApiError('server_busy'))
        }, patienceMs)
        waiting.add(waiter)
      })
    },

    /** Gives a slot back. @param tookMs milliseconds that the statement took; undefined when there was none */
    leave (tookMs: number | undefined): void {
      if (tookMs !== undefined) limit.note(tookMs, running)
      running--
      movedAt = now()
      next()
      next()
    }
  }
}

export type StatementSlots = ReturnType<typeof createStatementSlots>

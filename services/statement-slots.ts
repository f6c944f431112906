import { ApiError } from './errors.ts'

export interface StatementSlotsOptions {
  /** Statements that may run at once, at the most. */
  max: number
  /** Callers that may wait; one more is refused at once. */
  maxWaiting: number
  /** Milliseconds for which the one that waits longest may have waited, for one more to be let in. */
  maxWaitMs?: number
  /** Milliseconds after which a caller gives up. */
  patienceMs?: number
  /** Milliseconds after which a statement is slow, if the fastest ones of the last seconds took a third of it at the most. */
  slowMs?: number
  now?: () => number
}

/** Statements that may always run at once. */
const least = 2

/** Milliseconds for which a fastest statement is remembered, and twice that. */
const memoryMs = 1000

/** What is left of the limit after a slow statement, at most once in so many milliseconds. */
const decrease = 0.7
const decreaseEveryMs = 100

/**
 * How many statements run at once. More than a database has processors for make each other slower, until all of them meet their
 * time limit and nothing is done at all: the limit falls when a statement was slow, and rises by one with each round of
 * statements that were not (AIMD, as TCP's congestion avoidance: Chiu and Jain, 1989). Where even the fastest are slow it is
 * the way to the database, and fewer would not be faster.
 */
export function createStatementSlots ({ max, maxWaiting, maxWaitMs = 100, patienceMs = 400, slowMs = 150, now = performance.now.bind(performance) }: StatementSlotsOptions) {
  let limit = max
  let running = 0
  let decreasedAt = -Infinity
  const waiting = new Set<{ since: number, start: () => void }>()
  let fastest = { since: now(), young: Infinity, old: Infinity }

  function isSlow (tookMs: number, at: number): boolean {
    if (at - fastest.since > memoryMs) fastest = { since: at, young: Infinity, old: fastest.young }
    fastest.young = Math.min(fastest.young, tookMs)
    return tookMs > slowMs && tookMs > 3 * Math.min(fastest.young, fastest.old)
  }

  function adjust (tookMs: number): void {
    const at = now()
    if (isSlow(tookMs, at)) {
      if (at - decreasedAt <= decreaseEveryMs) return
      limit = Math.max(least, limit * decrease)
      decreasedAt = at
    } else if (running + 1 > limit / 2) {
      limit = Math.min(max, limit + 1 / limit)
    }
  }

  function next (): void {
    const [first] = waiting
    if (!first || running >= Math.floor(limit)) return
    waiting.delete(first)
    running++
    first.start()
  }

  return {
    get stats () { return { running, waiting: waiting.size, limit: Math.floor(limit) } },

    /** Waits for a slot. @throws ApiError `server_busy` when that would take too long */
    async enter (): Promise<void> {
      if (running < Math.floor(limit) && waiting.size === 0) {
        running++
        return
      }
      const [longest] = waiting
      if (waiting.size >= maxWaiting || (longest && now() - longest.since > maxWaitMs)) throw new ApiError('server_busy')
      await new Promise<void>((resolve, reject) => {
        const waiter = { since: now(), start () { clearTimeout(timer); resolve() } }
        const timer = setTimeout(() => {
          waiting.delete(waiter)
          reject(new ApiError('server_busy'))
        }, patienceMs)
        waiting.add(waiter)
      })
    },

    /** Gives a slot back. @param tookMs milliseconds that the statement took; undefined when there was none */
    leave (tookMs: number | undefined): void {
      running--
      if (tookMs !== undefined) adjust(tookMs)
      next()
      next()
    }
  }
}

export type StatementSlots = ReturnType<typeof createStatementSlots>

export interface LoadShedderOptions {
  /** Requests in flight at this moment. */
  inFlight: () => number
  /** Requests in flight beyond which work is refused. */
  maxInFlight?: number
  /**
   * Milliseconds since the last tick of the event loop beyond which work is refused. A thousand clients that ask
   * again as soon as they are answered keep the loop late by what a thousand requests take, 60 to 100 ms, and must be
   * served.
   */
  maxDelayMs?: number
  /**
   * Requests in flight up to which a late loop is no overload: garbage collection, or a process that was stopped for
   * a while.
   */
  minInFlight?: number
  /**
   * Requests in flight beyond which `crowdedDelayMs` replaces `maxDelayMs`: no closed loop of a thousand clients has
   * as many.
   */
  crowd?: number
  crowdedDelayMs?: number
  now?: () => number
}

/** Milliseconds between two ticks. */
const periodMs = 20

export type LoadShedder = ReturnType<typeof createLoadShedder>

/**
 * Decides whether the process is overloaded. A timer ticks; requests that wait for their turn of the event loop keep
 * it late. What comes later than `maxDelayMs` after the last tick is refused until the loop has come to its timers
 * again, so that each turn of the loop does at most `maxDelayMs` of work and refuses the rest for little. `inFlight`
 * bounds what waits for the stores.
 */
export function createLoadShedder ({
  inFlight,
  maxInFlight = 4096,
  maxDelayMs = 250,
  minInFlight = 500,
  crowd = 1500,
  crowdedDelayMs = 30,
  now = performance.now.bind(performance)
}: LoadShedderOptions) {
  let tickedAt = Infinity
  let delayMs = 0
  let timer: NodeJS.Timeout | undefined

  const isLate = (at: number): boolean => at - tickedAt > maxDelayMs

  function tick (): void {
    const at = now()
    delayMs = Math.max(0, at - tickedAt - periodMs)
    tickedAt = at
  }

  return {
    start (): void {
      tickedAt = now()
      timer = setInterval(tick, periodMs).unref()
    },
    stop (): void {
      clearInterval(timer)
    },
    tick,

    /** Milliseconds by which the last tick was late. */
    get delayMs () {
      return delayMs
    },

    /** Whether the event loop is late at a moment. @param at `now()`, in milliseconds */
    isLate,

    /**
     * Whether a request that was received at a moment must be refused, if it needs work.
     *
     * @param at `now()`, in milliseconds
     */
    isOverloaded (at: number): boolean {
      const count = inFlight()
      if (count > maxInFlight) return true
      return count > minInFlight && at - tickedAt > (count > crowd ? crowdedDelayMs : maxDelayMs)
    }
  }
}

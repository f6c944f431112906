export interface StatementLimitOptions {
  /** Statements that may run at once, at the most. */
  max: number
  /** Milliseconds that statements may take on average, however fast they are alone. */
  slowMs?: number
  now?: () => number
}

/** Statements that may run at once at first: each may have to open a connection. */
const initial = 10

/** Statements that may always run at once. */
const least = 4

/** Milliseconds of statements that are looked at together, and how many there are at least. */
const windowMs = 100
const windowCount = 8

/** Windows that were slow since it was last seen what a statement takes alone, before it is measured. */
const maxDoubts = 100

/** How many times as long as alone they may take: with half as long again, half as many wait within the database as it works on. */
const tolerance = 1.5

/**
 * Milliseconds that they may take at the most, whatever they take alone: other processes may be what keeps the database busy,
 * and all of them together must not come near the time limit of a statement.
 */
const mostMs = 200

/** What is left of the limit at least when it falls. */
const leastPart = 0.5

interface Window {
  since: number
  count: number
  tookMs: number
  /** Most that ran at once. */
  peak: number
}

/**
 * How many statements may run at once. More than a database has processors for make each other slower, until all of them meet
 * their time limit and nothing is done at all. The limit rises by one with each round of statements, as TCP's congestion
 * avoidance does, slower the nearer they are to what they may take, and falls in proportion when they take longer (a
 * gradient, as TCP Vegas has it: Brakmo and Peterson, 1995). What they take alone is the least of what was seen, and is
 * measured, with hardly any at once for a moment, when nothing has been as fast for long (as BBR probes the round trip:
 * Cardwell et al., 2016): a way to the database that is long, or statements that are dear, are no reason for fewer.
 */
export function createStatementLimit ({ max, slowMs = 15, now = performance.now.bind(performance) }: StatementLimitOptions) {
  const lowest = Math.min(max, least)
  let limit = Math.min(max, initial)
  let aloneMs = slowMs / tolerance
  let doubts = 0
  /** The limit that comes back when it is known what they take alone. */
  let probedFrom: number | undefined
  /** Whether the limit rises by one with each statement (slow start), because it is not known yet where it must fall. */
  let isStarting = true
  let window = open(now())
  let usualMs = 0

  function open (since: number): Window {
    return { since, count: 0, tookMs: 0, peak: 0 }
  }

  const allowedMs = (): number => Math.max(slowMs, Math.min(mostMs, tolerance * aloneMs))

  function learn (ms: number, isAlone: boolean): void {
    if (isAlone || ms < 1.1 * aloneMs) doubts = 0
    else if (ms > slowMs) doubts++
    if (isAlone && ms > allowedMs()) isStarting = true
    aloneMs = isAlone ? ms : Math.min(ms, aloneMs)
  }

  function judge ({ count, tookMs, peak }: Window, at: number): void {
    const ms = tookMs / count
    const isAlone = peak <= least
    usualMs = ms
    learn(ms, isAlone)
    if (probedFrom !== undefined) {
      if (isAlone) [limit, probedFrom] = [probedFrom, undefined]
      return
    }
    if (ms <= allowedMs()) {
      const growth = isStarting ? count : Math.min(limit, count / limit)
      if (peak + 1 > limit / 2) limit = Math.min(max, limit + growth * (1 - ms / allowedMs()))
    } else {
      const part = Math.max(leastPart, allowedMs() / ms)
      limit = Math.max(lowest, Math.min(limit, peak) * part)
      // Fewer take less.
      usualMs = ms * part
      isStarting = false
      // What began before tells of before.
      window.since = at + ms
    }
    if (doubts > maxDoubts) [limit, probedFrom] = [lowest, limit]
  }

  return {
    get current () { return Math.floor(limit) },

    /** What it is when nothing is measured. */
    get settled () { return Math.floor(probedFrom ?? limit) },

    /** Milliseconds that statements took of late; 0 while nothing is known. */
    get usualMs () { return usualMs },

    /** A statement is over. @param running statements that ran at once, with it */
    note (tookMs: number, running: number): void {
      const at = now()
      if (at < window.since) return
      window.count++
      window.tookMs += tookMs
      window.peak = Math.max(window.peak, running)
      if (at - window.since < windowMs || window.count < windowCount) return
      const whole = window
      window = open(at)
      judge(whole, at)
    }
  }
}

export type StatementLimit = ReturnType<typeof createStatementLimit>

export interface AdmissionOptions {
  /** Requests that may be under way at once. */
  maxInFlight?: number
  /** Milliseconds by which the event loop may be late, all the time, before requests are refused. */
  maxDelayMs?: number
  /** Milliseconds by which it is kept late while they are: a refusal does not wait for longer than this and a turn of the loop. */
  targetDelayMs?: number
  now?: () => number
  random?: () => number
}

/** Milliseconds between two looks at the event loop. */
const periodMs = 10

/**
 * Milliseconds for which every look must find the loop late, and how many looks there must be: who is late once has met a
 * collection of garbage, who is always late has a queue.
 */
const lateMs = 200
const lateLooks = 3

/** Requests of one look, under way or come since the last one, below which there is no queue, however late the loop is. */
const minBusy = 50

/** The largest part of the requests that is refused: some must show how it stands. */
const maxRefused = 0.98

/** How much the part that is refused changes in a period, for a delay that is twice what it may be, and for none. */
const step = 0.03

/** A look that is late stands for more than one period, and for no more than so many. */
const maxPeriods = 4

/**
 * Whether there is room for one more request. Work that waits for its turn of the event loop is a queue that nobody
 * sees: how late a timer is measures it. When it is too late for a while, a part of the requests is refused, which
 * grows and shrinks with the delay (the idea of CoDel, RFC 8289: a queue that never empties is a bad one; and of a
 * controller that integrates its error).
 */
export function createAdmission ({ maxInFlight = 4096, maxDelayMs = 30, targetDelayMs = 8, now = performance.now.bind(performance), random = Math.random }: AdmissionOptions = {}) {
  let inFlight = 0
  let arrived = 0
  let refused = 0
  let part = 0
  let delayMs = 0
  let dueAt = Infinity
  let late = { since: -Infinity, looks: 0 }
  let timer: NodeJS.Timeout | undefined

  function look (): void {
    const at = now()
    delayMs = Math.max(0, at - dueAt)
    dueAt = at + periodMs
    const isBusy = inFlight + arrived >= minBusy
    arrived = 0
    // Two bounds: a machine that others use is late by ten milliseconds for a while, and only a queue by so much more.
    const bound = part === 0 ? maxDelayMs : targetDelayMs
    late = !isBusy || delayMs <= bound ? { since: at, looks: 0 } : { since: late.since, looks: late.looks + 1 }
    const isQueue = part > 0 || (late.looks >= lateLooks && at - late.since >= lateMs)
    const error = isBusy && isQueue ? (delayMs - bound) / bound : -1
    const periods = Math.min(maxPeriods, (delayMs + periodMs) / periodMs)
    part = Math.max(0, Math.min(maxRefused, part + step * periods * Math.max(-1, Math.min(error, 3))))
  }

  return {
    start (): void {
      dueAt = now() + periodMs
      late = { since: now(), looks: 0 }
      timer = setInterval(look, periodMs).unref()
    },
    stop (): void { clearInterval(timer) },

    /** Whether a request that has come must be refused; one that is not comes in by `enter`. */
    refuses (): boolean {
      arrived++
      if (inFlight < maxInFlight && (part === 0 || random() >= part)) return false
      refused++
      return true
    },

    enter (): void { inFlight++ },
    leave (): void { inFlight-- },

    look,

    get stats () { return { inFlight, refused, delayMs, part } }
  }
}

export type Admission = ReturnType<typeof createAdmission>

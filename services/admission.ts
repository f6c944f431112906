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

/** Looks of which the best counts: who is late once has met a collection of garbage, who is always late has a queue. */
const looks = 10

/** Requests of one look, under way or come since the last one, below which there is no queue, however late the loop is. */
const minBusy = 50

/** The largest part of the requests that is refused: some must show how it stands. */
const maxRefused = 0.98

/** How much the part that is refused changes in a look, for a delay that is twice what it may be, and for none. */
const step = 0.03

/**
 * Whether there is room for one more request. Work that waits for its turn of the event loop is a queue that nobody
 * sees: how late a timer is measures it. When the least delay of some looks is too long, a part of the requests is
 * refused, which grows and shrinks with the delay (the idea of CoDel, RFC 8289: a queue that never empties is a bad
 * one; and of a controller that integrates its error).
 */
export function createAdmission ({ maxInFlight = 4096, maxDelayMs = 30, targetDelayMs = 8, now = performance.now.bind(performance), random = Math.random }: AdmissionOptions = {}) {
  let inFlight = 0
  let arrived = 0
  let refused = 0
  let part = 0
  let delayMs = 0
  let dueAt = Infinity
  const recent: number[] = []
  let timer: NodeJS.Timeout | undefined

  function look (): void {
    const at = now()
    delayMs = Math.max(0, at - dueAt)
    dueAt = at + periodMs
    recent.push(delayMs)
    if (recent.length > looks) recent.shift()
    const isBusy = inFlight + arrived >= minBusy
    arrived = 0
    const isKnown = isBusy && recent.length === looks
    // Two bounds: a machine that others use is late by ten milliseconds for a while, and only a queue by so much more.
    const bound = part === 0 ? maxDelayMs : targetDelayMs
    const error = isKnown ? (Math.min(...recent) - bound) / bound : -1
    part = Math.max(0, Math.min(maxRefused, part + step * Math.max(-1, Math.min(error, 3))))
  }

  return {
    start (): void {
      dueAt = now() + periodMs
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

export interface AdmissionOptions {
  /** Requests that may be under way at once. */
  maxInFlight?: number
  /** Milliseconds by which the event loop may be late, all the time, with many requests or with few, before requests are refused. */
  maxDelayMs?: number
  crowdedDelayMs?: number
  /**
   * Requests that are many: under way, or read in one turn of the loop. A thousand clients that ask again as soon as they are
   * answered keep the loop late by what a thousand requests take, and are served.
   */
  crowd?: number
  /** Milliseconds by which it is kept late while they are: a refusal does not wait for longer than this and a turn of the loop. */
  targetDelayMs?: number
  /** Milliseconds after the start in which nobody is refused: a process that has just begun is late because it is cold. */
  graceMs?: number
  /** Called once in a turn of the loop that has become long, so that it ends (poll-phase.ts). */
  endTurn?: () => void
  now?: () => number
  random?: () => number
}

/** Milliseconds between two looks at the event loop. */
const periodMs = 10

/**
 * Milliseconds for which every look must find the loop late, and how many looks there must be: who is late once has met a
 * collection of garbage, who is always late has a queue.
 */
const lateMs = 100
const lateLooks = 3

/** Requests of one look, under way or come since the last one, below which there is no queue, however late the loop is. */
const minBusy = 50

/** Requests under way that are let in however late the loop is: some must show how it stands. */
const minInFlight = 8

/** Milliseconds by which the loop is late when its turn has become long. */
const longTurnMs = 20

/** How much the bound on requests under way changes in a period: for a delay that is twice what it may be, and for none. */
const step = 0.04

/** Milliseconds by which the loop is kept late at the most where answers from memory alone are too many. */
const memoryDelayMs = 20

/** How much the part of them that is refused changes in a period. A refusal saves little of what such an answer costs: slowly. */
const memoryStep = 0.01

/** The largest part of them that is refused: beyond it a refusal saves less than the answer is worth (npm run bench:traffic). */
const maxRefusedPart = 0.5

/** A look that is late stands for more than one period, and for no more than so many. */
const maxPeriods = 4

/**
 * Whether there is room for one more request. Work that waits for its turn of the event loop is a queue that nobody
 * sees: how late a timer is measures it. When it is too late for a while (the idea of CoDel, RFC 8289: a queue that
 * never empties is a bad one), requests under way are bounded, by a bound that falls while the loop is late and rises
 * while it is not: who comes beyond it is refused, and a request comes in when one has left. Where the smallest bound is not
 * enough, a part of the answers from memory is refused, too.
 */
export function createAdmission ({ maxInFlight = 4096, maxDelayMs = 300, crowdedDelayMs = 30, crowd = 1500, targetDelayMs = 8, graceMs = 5000, endTurn = () => {}, now = performance.now.bind(performance), random = Math.random }: AdmissionOptions = {}) {
  let inFlight = 0
  let arrived = 0
  let isEnding = false
  let bound = maxInFlight
  let refusedPart = 0
  let delayMs = 0
  let dueAt = Infinity
  let lookedAt = -Infinity
  let beginsAt = Infinity
  let late = { since: -Infinity, looks: 0 }
  let timer: NodeJS.Timeout | undefined

  function look (at: number): void {
    delayMs = Math.max(0, at - dueAt)
    const periods = Math.min(maxPeriods, (at - lookedAt) / periodMs)
    const isBusy = inFlight + arrived >= minBusy
    const allowedMs = Math.max(inFlight, arrived) > crowd ? crowdedDelayMs : maxDelayMs
    lookedAt = at
    if (bound < maxInFlight) adapt(isBusy, periods)
    else if (!isBusy || delayMs <= allowedMs || at < beginsAt) late = { since: at, looks: 0 }
    else if (++late.looks >= lateLooks && at - late.since >= lateMs) bound = Math.max(minInFlight, inFlight / 2)
  }

  function adapt (isBusy: boolean, periods: number): void {
    /** By how much the loop is later than it may be, as a part of that; -1 for one that is in time. */
    const errorFor = (target: number): number => isBusy ? Math.min((delayMs - target) / target, 2) : -1
    if (bound <= minInFlight || refusedPart > 0) {
      refusedPart = Math.max(0, Math.min(maxRefusedPart, refusedPart + memoryStep * periods * errorFor(memoryDelayMs)))
    }
    if (refusedPart > 0) return
    bound = Math.max(minInFlight, Math.min(maxInFlight, bound * (1 - step * periods * errorFor(targetDelayMs))))
    if (bound === maxInFlight) late = { since: lookedAt, looks: 0 }
  }

  function onTimer (): void {
    const at = now()
    look(at)
    arrived = 0
    isEnding = false
    dueAt = at + periodMs
  }

  return {
    start (): void {
      const at = now()
      dueAt = at + periodMs
      beginsAt = at + graceMs
      lookedAt = at
      late = { since: at, looks: 0 }
      timer = setInterval(onTimer, periodMs).unref()
    },
    stop (): void { clearInterval(timer) },

    /**
     * Whether a request that has come at a moment must be refused, whatever it asks for. While thousands of sockets can be read,
     * a turn of the loop does not come to its timers: this looks meanwhile, and has it ended.
     */
    refusesAny (at: number): boolean {
      arrived++
      if (at - dueAt > longTurnMs && !isEnding) {
        isEnding = true
        endTurn()
      }
      if (at - dueAt > crowdedDelayMs && at - lookedAt >= periodMs) look(at)
      return refusedPart > 0 && random() < refusedPart
    },

    /** Whether one that needs work must be refused; one that is not comes in by `enter`. */
    refusesWork: (): boolean => inFlight >= bound,

    enter (): void { inFlight++ },
    leave (): void { inFlight-- },

    onTimer,

    get stats () { return { inFlight, delayMs, bound: Math.floor(bound), refusedPart } }
  }
}

export type Admission = ReturnType<typeof createAdmission>

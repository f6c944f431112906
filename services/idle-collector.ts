import { performance } from 'node:perf_hooks'
import { getHeapStatistics, setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'

export interface IdleCollectorOptions {
  /** Share of the time that the event loop has been at work since the last look. */
  utilization?: () => number
  /** Bytes of the heap: what is in use, and what is held for it. */
  heap?: () => { used: number, held: number }
  /** Collects all garbage and gives the memory back. */
  collect?: () => void
}

/** Milliseconds between two looks, and how many of them must find a process that does nothing. */
const periodMs = 3000
const idleLooks = 10

/** A process that works for less than this share of its time has nobody who would notice a pause. */
const maxUtilization = 0.05

/** Bytes that must be in it for a collection to be worth its pause. */
const minGain = 8 * 2 ** 20

/** Bytes in use beyond which the pause would be long: some 40 ms for 30 MB. */
const maxUsed = 128 * 2 ** 20

/**
 * Gives memory back that only the boot, or a rush that is over, needed: V8 keeps its young generation as large as it has ever
 * been, a third of a process that nobody asks (`npm run bench -- --scenario memory`). It waits for half a minute without work,
 * because a heap that was given back costs a hot read a tenth more CPU time afterwards. V8's own memory reducer has the same
 * effect; what in it that is has not been found.
 */
export function createIdleCollector ({ utilization = measureUtilization(), heap = measureHeap, collect = collectAll }: IdleCollectorOptions = {}) {
  let heldAfter = 0
  let idle = 0

  function look (): void {
    idle = utilization() > maxUtilization ? 0 : idle + 1
    if (idle < idleLooks) return
    const { used, held } = heap()
    if (used > maxUsed || held - heldAfter < minGain) return
    collect()
    heldAfter = heap().held
  }

  return {
    start: () => setInterval(look, periodMs).unref(),
    look
  }
}

function measureUtilization (): () => number {
  let last = performance.eventLoopUtilization()
  return () => {
    const now = performance.eventLoopUtilization()
    const { utilization } = performance.eventLoopUtilization(now, last)
    last = now
    return utilization
  }
}

function measureHeap (): { used: number, held: number } {
  const { used_heap_size: used, total_heap_size: held } = getHeapStatistics()
  return { used, held }
}

function collectAll (): void {
  setFlagsFromString('--expose-gc')
  const gc = runInNewContext('gc') as (options: { type: 'major', execution: 'sync', flavor: 'last-resort' }) => void
  setFlagsFromString('--no-expose-gc')
  gc({ type: 'major', execution: 'sync', flavor: 'last-resort' })
}

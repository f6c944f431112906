import type { KnownVideos } from './known-videos.ts'
import type { Ledger } from './ledger.ts'
import type { Batch, CounterStore, Tombstone, TombstoneCursor } from './store.ts'

export interface FlusherOptions {
  store: CounterStore
  ledger: Ledger
  known: KnownVideos
  log: Log
  /** Milliseconds between two looks for pending changes. The store decides whether it is time (collectGapMs). */
  periodMs?: number
  now?: () => number
}

export interface Log {
  info (numbers: object, message: string): void
  warn (numbers: object, message: string): void
}

export interface FlushStats {
  /** Milliseconds since everything that was pending had reached the ledger. */
  lagMs: number
  /** Counters, likes and receipts that this process has written. */
  flushed: number
  /** Looks that failed because a store was unavailable. */
  failures: number
  /** Milliseconds that the last flush with something in it took. */
  lastFlushMs: number
}

/** Batches of one look, at most: the rest waits for the next one, so that the event loop breathes. */
const maxRounds = 50

/** Tombstones between two notes of how far the removal is. */
const buryTogether = 1000

/** Milliseconds of lag after which the log says that the counters do not reach PostgreSQL. */
const alarmingLagMs = 5000

export type Flusher = ReturnType<typeof createFlusher>

/**
 * Brings what is counted into PostgreSQL: collect, merge, acknowledge. Every process does it for all of them;
 * whoever comes first does the work, and what two do at once, or one does twice, changes nothing. A process
 * that is killed anywhere in it leaves the changes pending for the next one.
 */
export function createFlusher ({ store, ledger, known, log, periodMs = 300, now = Date.now }: FlusherOptions) {
  const startedAt = now()
  const stats = { flushed: 0, failures: 0, lastFlushMs: 0 }
  /** Deleted videos before it are forgotten by this process. */
  let seen: TombstoneCursor = { transactionId: 0, id: 0 }
  /** Tombstones before it are done with, if this process does the work. */
  let buried: TombstoneCursor | undefined
  let timer: NodeJS.Timeout | undefined
  let underWay: Promise<void> | undefined
  let isClosed = false
  let isAlarmed = false
  let purgedAt = 0
  let loggedAt = now()
  let loggedFlushes = 0

  /** Brings everything that is pending into the ledger. Rejects when a store is unavailable; nothing is lost then. */
  async function flush (options: { isForced: boolean }): Promise<void> {
    let isForced = options.isForced
    for (let round = 0; round < maxRounds; round++) {
      const batches = await store.collect({ isForced })
      if (batches.length === 0) break
      const startedAt = performance.now()
      const gone = await ledger.merge(batches)
      await Promise.all(batches.map(batch => store.acknowledge(batch)))
      await forget(gone)
      stats.flushed += batches.reduce((sum, batch) => sum + sizeOf(batch), 0)
      stats.lastFlushMs = performance.now() - startedAt
      if (!batches.some(batch => batch.isPartial)) break
      isForced = true
    }
  }

  async function forget (tombstones: Tombstone[]): Promise<void> {
    if (tombstones.length === 0) return
    for (const { videoId, userId } of tombstones) {
      if (userId === null) known.forget(videoId)
    }
    await store.forget(tombstones)
  }

  /** Every process forgets what was deleted since its last look. */
  async function forgetDeleted (): Promise<void> {
    const { videoIds, cursor } = await ledger.deletedVideos(seen)
    for (const id of videoIds) known.forget(id)
    seen = cursor
  }

  /** One process removes what was deleted from the store, chunk by chunk: what fails goes on where it stood. */
  async function bury (): Promise<void> {
    buried = await store.claimBurial()
    if (!buried) return
    const found = await ledger.tombstones(buried)
    for (let start = 0; start < found.length; start += buryTogether) {
      const chunk = found.slice(start, start + buryTogether)
      await store.forget(chunk.filter(({ isGone }) => isGone).map(({ tombstone }) => tombstone))
      buried = chunk.at(-1)!.cursor
      await store.noteBurial(buried)
    }
  }

  async function tick (): Promise<void> {
    try {
      await flush({ isForced: false })
      await forgetDeleted()
      await bury()
      if (buried && now() - purgedAt > 60_000) {
        purgedAt = now()
        await ledger.purge(buried)
      }
    } catch (error) {
      stats.failures++
      if (lagMs() > alarmingLagMs && !isAlarmed) {
        isAlarmed = true
        log.warn({ ...numbers(), cause: (error as Error).message }, 'counters do not reach PostgreSQL; they are kept')
      }
      return
    }
    if (isAlarmed) {
      isAlarmed = false
      log.info(numbers(), 'counters reach PostgreSQL again')
    }
    if (now() - loggedAt > 60_000) {
      if (stats.flushed > loggedFlushes) log.info(numbers(), 'counters flushed')
      loggedAt = now()
      loggedFlushes = stats.flushed
    }
  }

  const lagMs = (): number => Math.max(0, now() - Math.max(startedAt, store.stats.flushedUntil ?? 0))

  const numbers = () => ({ ...stats, lastFlushMs: Math.round(stats.lastFlushMs), lagMs: lagMs(), pending: store.stats.pending, recoveries: store.stats.recoveries })

  function schedule (): void {
    if (isClosed) return
    timer = setTimeout(() => {
      underWay = tick().finally(schedule)
    }, periodMs)
  }

  return {
    start: schedule,

    flush,

    get stats (): FlushStats { return { ...stats, lagMs: lagMs() } },

    /** Stops, and flushes once more. Never rejects: what could not be written stays pending in the store. */
    async close (): Promise<void> {
      isClosed = true
      clearTimeout(timer)
      await underWay
      await flush({ isForced: true }).catch((error: unknown) => {
        log.warn({ ...numbers(), cause: (error as Error).message }, 'the last flush failed; what Redis holds is flushed by the next process')
      })
    }
  }
}

const sizeOf = ({ counters, likes, receipts }: Batch): number => counters.length + likes.length + receipts.length

import { steadyNow } from '../../shared/clock.ts'
import type { KnownVideos } from './known-videos.ts'
import type { Ledger } from './ledger.ts'
import type { Batch, CounterStore, Tombstone, TombstoneCursor } from './store.ts'

export interface FlusherOptions {
  store: CounterStore
  ledger: Ledger
  known: KnownVideos
  log: Log
  /** Milliseconds between two attempts to collect. The store decides whether one is due (collectGapMs). */
  periodMs?: number
  now?: () => number
}

export interface Log {
  info (numbers: object, message: string): void
  warn (numbers: object, message: string): void
}

export interface FlushStats {
  /** Flush lag: milliseconds since the ledger was complete. */
  lagMs: number
  /** Counters, likes and receipts that this process has flushed. */
  flushed: number
  /** Flushes that failed because a store was unavailable. */
  failures: number
  /** Duration of the last non-empty flush in milliseconds. */
  lastFlushMs: number
}

/** Maximum batches per flush: the rest waits for the next one, so that the event loop is not blocked. */
const maxRounds = 50

/** Tombstones per chunk; the progress is recorded after each. */
const burialChunk = 1000

/** Flush lag in milliseconds after which a warning is logged. */
const warningLagMs = 5000

export type Flusher = ReturnType<typeof createFlusher>

/**
 * Flushes counters to PostgreSQL: collect, merge, acknowledge. Every process flushes for all of them; the first one
 * that collects does the work. Every step is idempotent, so that concurrent and repeated flushes change nothing. If a
 * process is killed at any point, the changes stay pending and another process flushes them.
 */
export function createFlusher ({ store, ledger, known, log, periodMs = 300, now = steadyNow }: FlusherOptions) {
  const startedAt = now()
  const stats = { flushed: 0, failures: 0, lastFlushMs: 0 }
  /** Deleted videos up to this tombstone are forgotten by this process. */
  let seen: TombstoneCursor = { transactionId: 0, id: 0 }
  /** Tombstone up to which everything is removed, if this process has the claim. */
  let buried: TombstoneCursor | undefined
  let timer: NodeJS.Timeout | undefined
  let underWay: Promise<void> | undefined
  let isClosed = false
  let hasWarned = false
  let purgedAt = 0
  let loggedAt = now()
  let loggedFlushes = 0

  /** Flushes everything that is pending. Rejects when a store is unavailable; nothing is lost then. */
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

  /** Forgets the videos that were deleted since the last call; every process does. */
  async function forgetDeleted (): Promise<void> {
    const { videoIds, cursor } = await ledger.deletedVideos(seen)
    for (const id of videoIds) known.forget(id)
    seen = cursor
  }

  /**
   * Removes deleted videos and likes from the store, in chunks, by one process. After a failure it continues where it
   * stopped.
   */
  async function bury (): Promise<void> {
    buried = await store.claimBurial()
    if (!buried) return
    const found = await ledger.tombstones(buried)
    for (let start = 0; start < found.length; start += burialChunk) {
      const chunk = found.slice(start, start + burialChunk)
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
      if (lagMs() > warningLagMs && !hasWarned) {
        hasWarned = true
        log.warn(
          { ...numbers(), cause: (error as Error).message },
          'counters cannot be flushed to PostgreSQL; the store keeps them'
        )
      }
      return
    }
    // A tick that found nothing to flush, because another process collects, proves nothing.
    if (hasWarned && lagMs() < warningLagMs) {
      hasWarned = false
      log.info(numbers(), 'counters are flushed to PostgreSQL again')
    }
    if (now() - loggedAt > 60_000) {
      if (stats.flushed > loggedFlushes) log.info(numbers(), 'counters flushed')
      loggedAt = now()
      loggedFlushes = stats.flushed
    }
  }

  const lagMs = (): number => Math.max(0, now() - Math.max(startedAt, store.stats.flushedUntil ?? 0))

  const numbers = () => ({
    ...stats,
    lastFlushMs: Math.round(stats.lastFlushMs),
    lagMs: lagMs(),
    pending: store.stats.pending,
    recoveries: store.stats.recoveries
  })

  function schedule (): void {
    if (isClosed) return
    timer = setTimeout(() => {
      underWay = tick().finally(schedule)
    }, periodMs)
  }

  return {
    start: schedule,

    flush,

    get stats (): FlushStats {
      return { ...stats, lagMs: lagMs() }
    },

    /** Stops, after a last flush. Never rejects: what cannot be flushed stays pending in the store. */
    async close (): Promise<void> {
      isClosed = true
      clearTimeout(timer)
      await underWay
      await flush({ isForced: true }).catch((error: unknown) => {
        log.warn(
          { ...numbers(), cause: (error as Error).message },
          'the last flush failed; another process flushes what is pending in Redis'
        )
      })
    }
  }
}

const sizeOf = ({ counters, likes, receipts }: Batch): number => counters.length + likes.length + receipts.length

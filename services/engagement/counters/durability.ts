import { setTimeout as sleep } from 'node:timers/promises'
import { ApiError } from '../../shared/errors.ts'
import type { Flusher } from './flusher.ts'
import type { Ledger } from './ledger.ts'
import type { AwaitedWrite, StoredCounters } from './store.ts'

/** Decides when a write is acknowledged. */
export interface Durability {
  /** Resolves when a comment may be acknowledged. @throws ApiError `engagement_unconfirmed` */
  comment (videoId: number, stored: Pick<StoredCounters, 'generation' | 'comments'>): Promise<void>
  /** Resolves when a like, or its removal, may be acknowledged. @throws ApiError `engagement_unconfirmed` */
  like (videoId: number, userId: number, stored: StoredCounters): Promise<void>
}

/** `buffered`: a write is acknowledged when the store has it. With the store, the last second can be lost. */
export const buffered: Durability = { async comment () {}, async like () {} }

export interface FlushedOptions {
  flusher: Pick<Flusher, 'flush'>
  ledger: Pick<Ledger, 'findWrites'>
  /** Milliseconds after which a write is answered 503. */
  maxWaitMs?: number
}

/** Milliseconds between two flushes while none of the awaited writes arrives. */
const retryMs = 20

/**
 * `flushed`: a write is acknowledged when PostgreSQL has committed it. Group commit: a flush begins as soon as the one
 * before has ended while writes wait, and every write waits for one that began after it. What counts is what is found
 * in the ledger afterwards: a store that lost its memory in between confirms nothing.
 */
export function createFlushedDurability ({ flusher, ledger, maxWaitMs = 2000 }: FlushedOptions): Durability {
  const waiting = new Set<{ write: AwaitedWrite, resolve: () => void }>()
  let isRunning = false

  async function run (): Promise<void> {
    isRunning = true
    while (waiting.size > 0) {
      const group = [...waiting]
      const found = await flusher.flush({ isForced: true })
        .then(() => ledger.findWrites(group.map(({ write }) => write)))
        // Both are tried again as long as a write waits.
        .catch(() => [])
      for (const index of found) {
        group[index]!.resolve()
        waiting.delete(group[index]!)
      }
      if (found.length === 0) await sleep(retryMs)
    }
    isRunning = false
  }

  async function confirm (write: AwaitedWrite): Promise<void> {
    const { promise, resolve, reject } = Promise.withResolvers<void>()
    const awaited = { write, resolve }
    const timer = setTimeout(() => {
      waiting.delete(awaited)
      reject(new ApiError('engagement_unconfirmed'))
    }, maxWaitMs)
    waiting.add(awaited)
    if (!isRunning) run().catch(() => {})
    try {
      await promise
    } finally {
      clearTimeout(timer)
    }
  }

  return {
    async comment (videoId, { generation, comments }) {
      // A total of 0: what was counted before the generation is in the ledger.
      if (comments > 0) await confirm({ kind: 'comment', videoId, generation, comments })
    },

    async like (videoId, userId, { generation, version }) {
      // Without a version nothing had to change, and the ledger has it.
      if (version) await confirm({ kind: 'like', videoId, userId, generation, version })
    }
  }
}

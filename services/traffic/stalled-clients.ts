/** What is known of a connection: bytes written for a client so far, and how many of them it has not taken yet. */
export interface Taker {
  readonly bytesWritten: number
  readonly writableLength: number
}

/** What was written for a client at a moment. */
interface Due { since: number, bytes: number }

/** Finds clients that have not taken, within a time, what was there for them at its beginning. */
export function createStalledClients<T extends Taker> ({ timeoutMs, now = performance.now.bind(performance) }: { timeoutMs: number, now?: () => number }) {
  const takers = new Map<T, Due | undefined>()

  function isLate (taker: T, due: Due | undefined): boolean {
    const { writableLength: untaken } = taker
    // Nearly all of them, at every look: asking for bytesWritten would cost each of them a copy of its buffer.
    if (untaken === 0) {
      if (due) takers.set(taker, undefined)
      return false
    }
    const { bytesWritten: bytes } = taker
    if (due && bytes - untaken < due.bytes) return now() - due.since >= timeoutMs
    takers.set(taker, { since: now(), bytes })
    return false
  }

  return {
    add (taker: T): void { takers.set(taker, undefined) },
    delete (taker: T): void { takers.delete(taker) },

    /** Looks at all of them. @returns those that are late */
    look (): T[] {
      const late: T[] = []
      for (const [taker, due] of takers) if (isLate(taker, due)) late.push(taker)
      return late
    }
  }
}

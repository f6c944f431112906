/** A connection: bytes written to its client so far, and how many of them are still buffered. */
export interface Connection {
  readonly bytesWritten: number
  readonly writableLength: number
}

/** Bytes that had been written at a moment, and that the client must have received `timeoutMs` later. */
interface Due {
  since: number
  bytes: number
}

/** Finds clients that have not received, within `timeoutMs`, what had been written to them at its beginning. */
export function createStalledClients<T extends Connection> (
  { timeoutMs, now = performance.now.bind(performance) }: { timeoutMs: number, now?: () => number }
) {
  const connections = new Map<T, Due | undefined>()

  function isStalled (connection: T, due: Due | undefined): boolean {
    const { writableLength: buffered } = connection
    // Nearly all connections: reading bytesWritten would copy the buffer of each.
    if (buffered === 0) {
      if (due) connections.set(connection, undefined)
      return false
    }
    const { bytesWritten: bytes } = connection
    if (due && bytes - buffered < due.bytes) return now() - due.since >= timeoutMs
    connections.set(connection, { since: now(), bytes })
    return false
  }

  return {
    add (connection: T): void {
      connections.set(connection, undefined)
    },
    delete (connection: T): void {
      connections.delete(connection)
    },

    /** Checks all connections. @returns those of stalled clients */
    find (): T[] {
      const stalled: T[] = []
      for (const [connection, due] of connections) if (isStalled(connection, due)) stalled.push(connection)
      return stalled
    }
  }
}

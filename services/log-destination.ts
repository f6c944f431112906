import pino, { type DestinationStream } from 'pino'

/**
 * Standard output for log lines. They leave in batches, at the latest each second: one write for each request costs more
 * than its routing. Of several processes no batch is longer than a pipe takes whole (PIPE_BUF, pipe(7)), so that they
 * do not run into each other when the reader is slow.
 */
export function createLogDestination ({ isShared }: { isShared: boolean }): DestinationStream & { flushSync: () => void } {
  const batch = isShared ? { minLength: 3500, maxWrite: 4096 } : { minLength: 16_000 }
  return pino.destination({ fd: 1, sync: false, periodicFlush: 1000, ...batch })
}

import pino, { type DestinationStream } from 'pino'

/**
 * Standard output for log lines. They leave in batches, at the latest each second: one write for each request costs more
 * than its routing. No batch is longer than a pipe takes whole (PIPE_BUF, pipe(7)), so that those of several processes
 * do not run into each other when the reader is slow.
 */
export function createLogDestination (): DestinationStream & { flushSync: () => void } {
  return pino.destination({ fd: 1, sync: false, minLength: 3500, maxWrite: 4096, periodicFlush: 1000 })
}

import pino, { type DestinationStream } from 'pino'

/** Characters that are buffered for a slow or stopped reader; lines beyond them are dropped and counted. */
const maxBuffered = 4_000_000

/** Milliseconds between two log lines about dropped lines. */
const reportMs = 5000

export interface LogDestination extends DestinationStream {
  /** Lines that were dropped because standard output was not read. */
  readonly dropped: number
  /**
   * Resolves when everything is written, or after some milliseconds: a reader that has stopped must not hold up the
   * exit.
   */
  flushWithin (ms: number): Promise<void>
}

/** Milliseconds after which the last lines are written, however few they are. */
const flushMs = 1000

/**
 * Standard output for log lines. They are written in batches, at the latest each second: one write for each line
 * costs more than routing a request, and sonic-boom's own buffer twice as much as making the line. Of several
 * processes no batch is longer than a pipe takes as a whole (PIPE_BUF, pipe(7)), so that their lines do not mix when
 * the reader is slow.
 *
 * A reader that stops reading costs bounded memory and never blocks the process.
 */
export function createLogDestination ({ isShared }: { isShared: boolean }): LogDestination {
  // Node sets a pipe to O_NONBLOCK when it opens the stream of standard output. Without it a full pipe blocks a
  // thread of libuv in write(2), which holds up even process.exit().
  process.stdout.on('error', () => {})
  const maxBatch = isShared ? 3500 : 16_000
  // With a minLength of 0 flush() calls back at once, whatever is still to be written.
  const stream = pino.destination({
    fd: 1,
    sync: false,
    minLength: 1,
    maxLength: maxBuffered,
    ...isShared ? { maxWrite: 4096 } : {}
  })
  // sonic-boom 4.2 retries a synchronous flush for ever on a full or broken pipe, and pino calls it for fatal lines
  // and at exit.
  stream.flushSync = () => {}
  let dropped = 0
  let reported = 0
  let batch = ''
  let lines = 0
  stream.on('drop', () => {
    dropped += lines
  })
  stream.on('error', () => {})

  function writeBatch (): void {
    if (lines > 0) stream.write(batch)
    batch = ''
    lines = 0
  }

  function write (line: string): void {
    // Counted in UTF-16 code units: 3,500 leaves room for some that are more than one byte.
    if (lines > 0 && batch.length + line.length > maxBatch) writeBatch()
    batch += line
    lines++
  }
  setInterval(writeBatch, flushMs).unref()

  setInterval(() => {
    const count = dropped - reported
    if (count === 0) return
    const before = dropped
    writeBatch()
    write(
      `${
        JSON.stringify({
          level: 40,
          time: Date.now(),
          pid: process.pid,
          dropped: count,
          msg: 'log lines were dropped because standard output was not read'
        })
      }\n`
    )
    writeBatch()
    // The report itself may have been dropped: then the next one includes it.
    if (dropped === before) reported = dropped
    else dropped = before
  }, reportMs).unref()

  return {
    write,

    get dropped () {
      return dropped
    },

    async flushWithin (ms) {
      writeBatch()
      await new Promise<void>(resolve => {
        const timer = setTimeout(resolve, ms)
        // Twice: the first flush waits for the write in flight, and may leave less than a batch behind.
        stream.flush(() => {
          stream.flush(() => {
            clearTimeout(timer)
            resolve()
          })
        })
      })
    }
  }
}

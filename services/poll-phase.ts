/** A signal that does nothing by itself: Go's runtime interrupts its threads by it, for that reason. */
const signal = 'SIGURG'

let isHeard = false

/**
 * Ends the poll phase of this turn of the event loop soon. As long as 1,024 sockets or more can be read at once, libuv polls
 * up to 48 times in one turn (uv__io_poll in src/unix/linux.c): with requests of 60 µs that are three seconds in which no timer
 * fires and no setImmediate runs, and whatever waits for one stands still. It goes on to them when a signal has come.
 */
export function endPollPhase (): void {
  if (!isHeard) process.on(signal, () => {})
  isHeard = true
  process.kill(process.pid, signal)
}

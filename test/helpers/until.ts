import { setTimeout as sleep } from 'node:timers/promises'

/** Deadline of a condition, in milliseconds: generous, because it costs time only when the test fails anyway. */
const deadlineMs = 30_000

/**
 * Waits until a condition holds, and asks every 10 ms.
 *
 * @returns the first value that is not false, null or undefined
 * @throws Error with `what` when it does not come about in 30 s
 */
export async function until<T> (what: string, condition: () => T | Promise<T>): Promise<NonNullable<T>> {
  for (const startedAt = performance.now(); ;) {
    const value = await condition()
    if (value !== false && value != null) return value as NonNullable<T>
    if (performance.now() - startedAt > deadlineMs) {
      throw new Error(`This did not come about in ${deadlineMs / 1000} s: ${what}`)
    }
    await sleep(10)
  }
}

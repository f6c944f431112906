import { availableParallelism } from 'node:os'
import { extname } from 'node:path'
import { Piscina } from 'piscina'
import { ApiError } from './errors.ts'
import type { PasswordTask } from './password-worker.ts'

export interface PasswordOptions {
  /** bcrypt cost of new hashes: each step doubles the work. */
  cost: number
  /** Worker threads; by default one fewer than the CPUs, and at least one. */
  threads?: number
  /** Passwords that may wait for a thread; one more is refused. */
  maxQueue?: number
}

export type PasswordService = ReturnType<typeof createPasswordService>

/**
 * Hashes and compares passwords in worker threads, behind a queue that is bounded so that whoever is
 * let in is answered within about a second.
 */
export function createPasswordService (options: PasswordOptions) {
  const threads = options.threads ?? Math.max(1, availableParallelism() - 1)
  const pool = new Piscina({
    filename: new URL(`./password-worker${extname(import.meta.url)}`, import.meta.url).href,
    // Threads start with the first password and go after a quiet minute: each costs memory.
    minThreads: 0,
    maxThreads: threads,
    idleTimeout: 60_000,
    maxQueue: options.maxQueue ?? threads * 8
  })
  // Well-formed, of the cost of a new hash, and of no password: comparing with it takes the full time.
  const decoy = `$2b$${String(options.cost).padStart(2, '0')}$${'halo'.repeat(5)}ha.${'halo'.repeat(7)}ha`

  async function run<Result> (task: PasswordTask): Promise<Result> {
    try {
      return await pool.run(task) as Result
    } catch (error) {
      // Piscina tells a full queue by its message alone.
      if (error instanceof Error && /queue/i.test(error.message)) {
        throw new ApiError('server_busy', { cause: error })
      }
      throw error
    }
  }

  return {
    /** @throws ApiError `server_busy` when the queue is full */
    hash: (password: string): Promise<string> => run<string>({ kind: 'hash', password, cost: options.cost }),

    /**
     * Compares a password with a stored hash. Without one (an unknown user) it does the same work for
     * nothing, so that the time tells nobody which emails exist.
     *
     * @throws ApiError `server_busy` when the queue is full
     */
    async verify (password: string, stored: string | undefined): Promise<boolean> {
      const isEqual = await run<boolean>({ kind: 'compare', password, hash: stored ?? decoy })
      return isEqual && stored !== undefined
    },

    close: (): Promise<void> => pool.destroy()
  }
}

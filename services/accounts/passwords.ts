import { createHmac } from 'node:crypto'
import { availableParallelism } from 'node:os'
import { extname } from 'node:path'
import { Piscina } from 'piscina'
import { createBoundedQueue } from '../traffic/bounded-queue.ts'
import { ApiError } from '../shared/errors.ts'
import type { PasswordTask, Pepper } from './password-worker.ts'

export interface PasswordOptions {
  /** bcrypt cost of new hashes: each step doubles the work. */
  cost: number
  /** Pepper of new hashes. */
  pepper: string
  /** Peppers of earlier hashes. */
  previousPeppers?: readonly string[]
  /** Whether outdated hashes are replaced at login; true when left out. */
  isRehashed?: boolean
  /** Whether new passwords are checked against a list of the most common ones. */
  blocklist?: 'off' | 'common'
  /** Worker threads; by default one fewer than the CPUs, and at least one. */
  threads?: number
  /** Maximum passwords in the queue. */
  maxQueue?: number
}

/**
 * Milliseconds that a password may wait for a thread: well below SERVER_WRITE_TIMEOUT, which would abort its request.
 */
const maxWaitMs = 2000

export type PasswordService = ReturnType<typeof createPasswordService>

/**
 * Hashes and verifies passwords in worker threads, behind a queue that is bounded by length and by waiting time: an
 * accepted request is answered within about two seconds, and a refused one has changed nothing.
 */
export function createPasswordService (options: PasswordOptions) {
  const { cost, blocklist = 'off', isRehashed = true } = options
  const threads = options.threads ?? Math.max(1, availableParallelism() - 1)
  const maxQueue = options.maxQueue ?? threads * 8
  const peppers = [options.pepper, ...options.previousPeppers ?? []].map(toPepper)
  const pepper = peppers[0]!
  const pool = new Piscina({
    // The threads do not inherit import hooks (of a tracer or a test runner): those would double the time of each
    // start.
    execArgv: [],
    env: withoutNodeOptions(process.env),
    filename: new URL(`./password-worker${extname(import.meta.url)}`, import.meta.url).href,
    // Threads start with the first password and end after an idle minute: each costs memory.
    minThreads: 0,
    maxThreads: threads,
    idleTimeout: 60_000
  })
  const queue = createBoundedQueue({
    concurrency: threads,
    maxWaiting: maxQueue,
    maxWaitMs,
    usualMs: 100 * 2 ** (cost - 10)
  })
  const current = `halo1$${pepper.id}$$2b$${String(cost).padStart(2, '0')}$`
  // A well-formed hash of the present cost that no password has: verifying with it takes the full time.
  const decoy = `${current}${'halo'.repeat(5)}ha.${'halo'.repeat(7)}ha`

  const run = <Result>(task: PasswordTask): Promise<Result> => queue.run(async () => await pool.run(task) as Result)

  return {
    /**
     * Checks the queue before the database is used.
     *
     * @throws ApiError `server_busy` when a password would wait too long
     */
    requireRoom: queue.requireRoom,

    /**
     * Hashes a new password.
     *
     * @param names the user's own names, which the password must not equal if the blocklist is on
     * @throws ApiError `server_busy` when the queue is full; `password_too_common`
     */
    async hash (password: string, names: readonly string[] = []): Promise<string> {
      const isChecked = blocklist === 'common'
      if (isChecked && names.some(name => isSame(name, password))) {
        throw new ApiError('password_too_common', {
          message: 'The password must not be the username or the email: choose another one'
        })
      }
      const hash = await run<string | null>({ kind: 'hash', password, cost, pepper, isChecked })
      if (hash === null) throw new ApiError('password_too_common')
      return hash
    },

    /** Hashes a password that is in use already, common or not. @throws ApiError `server_busy` */
    rehash: (password: string): Promise<string> =>
      run<string>({ kind: 'hash', password, cost, pepper, isChecked: false }),

    /**
     * Verifies a password with a stored hash of this service or of the Go service. Without one (an unknown user) it
     * does the same work, so that the time does not reveal which emails exist.
     *
     * @throws ApiError `server_busy` when the queue is full
     */
    async verify (password: string, stored: string | undefined): Promise<boolean> {
      const isEqual = await run<boolean>({ kind: 'compare', password, stored: stored ?? decoy, decoy, peppers })
      return isEqual && stored !== undefined
    },

    /**
     * Whether a hash has an earlier form, pepper or cost and should be replaced while the password is known. A hash
     * of the Go service covers 72 bytes: the rest of a longer password was never verified, so that its hash is kept.
     */
    isOutdated: (stored: string, password: string): boolean =>
      isRehashed && !stored.startsWith(current) && (stored.startsWith('halo1$') || Buffer.byteLength(password) <= 72),

    /** Passwords that are worked on, and that wait. */
    get stats () {
      return queue.stats
    },

    close: (): Promise<void> => pool.destroy()
  }
}

/** A name that reveals nothing about the secret. */
function toPepper (secret: string): Pepper {
  return { id: createHmac('sha256', secret).update('id').digest('base64url').slice(0, 8), secret }
}

const isSame = (name: string, password: string): boolean =>
  name.normalize('NFKC').toLowerCase() === password.normalize('NFKC').toLowerCase()

function withoutNodeOptions ({ NODE_OPTIONS: _, ...env }: NodeJS.ProcessEnv): NodeJS.ProcessEnv {
  return env
}

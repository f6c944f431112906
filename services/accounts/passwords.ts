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
  /** Secret that new hashes are made with. */
  pepper: string
  /** Secrets that earlier hashes were made with. */
  previousPeppers?: readonly string[]
  /** Whether new passwords are held against a list of the most common ones. */
  blocklist?: 'off' | 'common'
  /** Worker threads; by default one fewer than the CPUs, and at least one. */
  threads?: number
  /** Passwords that may wait for a thread; one more is refused. */
  maxQueue?: number
}

/** Milliseconds that a password may wait for a thread: long before SERVER_WRITE_TIMEOUT cuts its request off. */
const maxWaitMs = 2000

export type PasswordService = ReturnType<typeof createPasswordService>

/**
 * Hashes and compares passwords in worker threads, behind a queue that is bounded by length and by waiting time: a request
 * that is let in is answered within about two seconds, and one that is refused has changed nothing.
 */
export function createPasswordService (options: PasswordOptions) {
  const { cost, blocklist = 'off' } = options
  const threads = options.threads ?? Math.max(1, availableParallelism() - 1)
  const maxQueue = options.maxQueue ?? threads * 8
  const peppers = [options.pepper, ...options.previousPeppers ?? []].map(toPepper)
  const pepper = peppers[0]!
  const pool = new Piscina({
    // Import hooks of the process (a tracer, a test runner) are not for these threads: they would double each start.
    execArgv: [],
    env: withoutNodeOptions(process.env),
    filename: new URL(`./password-worker${extname(import.meta.url)}`, import.meta.url).href,
    // Threads start with the first password and go after a quiet minute: each costs memory.
    minThreads: 0,
    maxThreads: threads,
    idleTimeout: 60_000
  })
  const queue = createBoundedQueue({ concurrency: threads, maxWaiting: maxQueue, maxWaitMs, usualMs: 100 * 2 ** (cost - 10) })
  const current = `halo1$${pepper.id}$$2b$${String(cost).padStart(2, '0')}$`
  // Well-formed, of the form and cost of a new hash, and of no password: comparing with it takes the full time.
  const decoy = `${current}${'halo'.repeat(5)}ha.${'halo'.repeat(7)}ha`

  const run = <Result>(task: PasswordTask): Promise<Result> => queue.run(async () => await pool.run(task) as Result)

  return {
    /** Refuses a request before the database is asked for it. @throws ApiError `server_busy` when it would wait too long */
    requireRoom: queue.requireRoom,

    /**
     * @param names what the password must not be, where a blocklist is on: the user's own names
     * @throws ApiError `server_busy` when the queue is full; `password_too_common`
     */
    async hash (password: string, names: readonly string[] = []): Promise<string> {
      const isChecked = blocklist === 'common'
      if (isChecked && names.some(name => isSame(name, password))) {
        throw new ApiError('password_too_common', { message: 'The username or the email is the first password that attackers try: take another one' })
      }
      const hash = await run<string | null>({ kind: 'hash', password, cost, pepper, isChecked })
      if (hash === null) throw new ApiError('password_too_common')
      return hash
    },

    /** Makes the hash of a password anew that is in use, common or not. @throws ApiError `server_busy` */
    rehash: (password: string): Promise<string> => run<string>({ kind: 'hash', password, cost, pepper, isChecked: false }),

    /**
     * Compares a password with a stored hash, of ours or of the Go service. Without one (an unknown user) it does the
     * same work for nothing, so that the time tells nobody which emails exist.
     *
     * @throws ApiError `server_busy` when the queue is full
     */
    async verify (password: string, stored: string | undefined): Promise<boolean> {
      const isEqual = await run<boolean>({ kind: 'compare', password, stored: stored ?? decoy, decoy, peppers })
      return isEqual && stored !== undefined
    },

    /**
     * Whether a hash is of an earlier form, pepper or cost, and should be made anew while the password is at hand. One of
     * the Go service knows 72 bytes of a password: of a longer one nobody knows whether the rest was right.
     */
    isOutdated: (stored: string, password: string): boolean =>
      !stored.startsWith(current) && (stored.startsWith('halo1$') || Buffer.byteLength(password) <= 72),

    close: (): Promise<void> => pool.destroy()
  }
}

/** The name says nothing of the secret to who does not have it. */
function toPepper (secret: string): Pepper {
  return { id: createHmac('sha256', secret).update('id').digest('base64url').slice(0, 8), secret }
}

const isSame = (name: string, password: string): boolean =>
  name.normalize('NFKC').toLowerCase() === password.normalize('NFKC').toLowerCase()

function withoutNodeOptions ({ NODE_OPTIONS: _, ...env }: NodeJS.ProcessEnv): NodeJS.ProcessEnv { return env }

import { createHash } from 'node:crypto'
import { setTimeout as sleep } from 'node:timers/promises'
import { clientKey } from '../http/client-key.ts'
import type { Database } from '../stores/database.ts'
import { ApiError } from '../shared/errors.ts'
import { ExpiringMap } from '../shared/expiring-map.ts'

/** An attempt to log in with a password. */
export interface LoginAttempt {
  /** The account's email, in the form in which emails are compared. */
  account: string
  address: string
  /** Whether the user has logged in from this address before: then attackers elsewhere cannot lock them out. */
  isKnownAddress: boolean
}

/**
 * Exponential back-off: after `freeFailures` the delay is one second, and doubles every `failuresPerDoubling`
 * failures.
 */
interface BackOff {
  freeFailures: number
  failuresPerDoubling: number
  maxDelaySeconds: number
}

/** Failed logins per (account, address). Delays of up to 15 minutes. */
const accountAndAddress: BackOff = { freeFailures: 5, failuresPerDoubling: 1, maxDelaySeconds: 900 }
/** The same from an address where the user has logged in before: up to a minute, because it may be the user. */
const accountAndKnownAddress: BackOff = { freeFailures: 5, failuresPerDoubling: 1, maxDelaySeconds: 60 }

/** Failed logins per address (one password tried on many accounts). Many people can share an address. */
const perAddress: BackOff = { freeFailures: 50, failuresPerDoubling: 10, maxDelaySeconds: 300 }

/**
 * Attempts per account from unknown addresses (distributed guessing). Beyond `freeAttempts` in a window, a random
 * sample of `sampledAttempts` is verified, so that attackers cannot lock the owner out completely.
 */
const distributed = { windowSeconds: 30, freeAttempts: 20, sampledAttempts: 6 }

/** Attempts per (account, address) that run at once; one that was interrupted is forgotten after `runningSeconds`. */
const maxRunning = 5
const runningSeconds = 10

/** Milliseconds between two tries of an attempt that waits for running ones to end, and how many tries there are. */
const retryMs = 40
const maxRetries = 25

// An attempt is counted before the password is verified: of a hundred at once, only as many are verified as are free.
// Running attempts are no failures: one more than `maxRunning` tries again. After an hour without a failure, counting
// starts again at zero.
const begin = {
  name: 'begin_login_attempt',
  text: `
    with before as (
      select key, case when last_at < now() - interval '1 hour' then 0 else failures end as failures,
        case when running_at < now() - $5 * interval '1 second' then 0 else running end as running,
        last_at + least($4, power(2, least(30, (failures - $2) / $3))) * interval '1 second' as waits_until
      from login_attempts where key = $1 for update
    ), begun as (
      insert into login_attempts as a (key, running) select $1, 1
      where not exists (select from before) or exists (
        select from before where case when failures < $2 then failures + running < $2 and running < $6 else running = 0 and waits_until <= now() end)
      on conflict (key) do update set
        failures = case when a.last_at < now() - interval '1 hour' then 0 else a.failures end,
        running = case when a.running_at < now() - $5 * interval '1 second' then 1 else a.running + 1 end, running_at = now()
      returning key
    )
    select exists (select from begun) as has_begun,
      coalesce((select failures >= $2 and waits_until > now() from before), false) as must_wait`
}

const fail = {
  name: 'fail_login_attempt',
  text:
    'update login_attempts set failures = failures + 1, last_at = now(), running = greatest(0, running - 1) where key = any($1)'
}

const succeed = {
  name: 'succeed_login_attempt',
  text: 'update login_attempts set failures = 0, running = greatest(0, running - 1) where key = $1'
}

const withdraw = {
  name: 'withdraw_login_attempt',
  text: 'update login_attempts set running = greatest(0, running - 1) where key = any($1)'
}

const countDistributed = {
  name: 'count_crowd_of_attempts',
  text: `
    insert into login_attempts as a (key, failures) values ($1, 1)
    on conflict (key) do update set
      previous = case when a.last_at > now() - $2 * interval '1 second' then a.previous
        when a.last_at > now() - 2 * $2 * interval '1 second' then a.failures else 0 end,
      failures = case when a.last_at > now() - $2 * interval '1 second' then a.failures + 1 else 1 end,
      last_at = case when a.last_at > now() - $2 * interval '1 second' then a.last_at else now() end
    returning greatest(failures, previous) as tries`
}

const addressWait = {
  name: 'wait_of_address',
  text: `
    select extract(epoch from waits_until - now())::float8 as wait_seconds from (
      select last_at + least($4, power(2, least(30, (failures - $2) / $3))) * interval '1 second' as waits_until
      from login_attempts where key = $1 and failures >= $2 and last_at > now() - interval '1 hour'
    ) as waiting
    where waits_until > now()`
}

const countAddress = {
  name: 'count_failure_of_address',
  text: `
    insert into login_attempts as a (key, failures) values ($1, 1)
    on conflict (key) do update set failures = case when a.last_at < now() - interval '1 hour' then 1 else a.failures + 1 end, last_at = now()`
}

const isKnown = {
  name: 'is_known_address',
  text: 'select exists (select from known_addresses where user_id = $1 and address = $2) as is_known'
}

const remember = {
  name: 'remember_address',
  text: `
    insert into known_addresses as k (user_id, address) select id, $2 from users where id = $1
    on conflict (user_id, address) do update set last_at = now() where k.last_at < now() - interval '1 day'`
}

export type LoginThrottle = ReturnType<typeof createLoginThrottle>

/** Attempts that a process keeps in memory while PostgreSQL cannot be written. */
const fallbackLimits = { maxSize: 50_000, maxAgeMs: 3_600_000 }

/**
 * The same back-off per (account, address) in the memory of the process, for when the table cannot be written (a full
 * disk, a standby, a missing grant): login is then neither impossible nor unthrottled.
 */
function createMemoryThrottle (now: () => number) {
  const attempts = new ExpiringMap<string, { failures: number, lastAt: number, running: number }>({
    ...fallbackLimits,
    now
  })
  const of = (key: string) => attempts.get(key) ?? { failures: 0, lastAt: -Infinity, running: 0 }
  return {
    begin (key: string, { freeFailures, failuresPerDoubling, maxDelaySeconds }: BackOff): boolean {
      const attempt = of(key)
      const waitMs = attempt.failures < freeFailures
        ? 0
        : Math.min(maxDelaySeconds, 2 ** Math.min(30, (attempt.failures - freeFailures) / failuresPerDoubling)) * 1000
      if (attempt.running >= maxRunning || now() - attempt.lastAt < waitMs) return false
      attempts.set(key, { ...attempt, running: attempt.running + 1 })
      return true
    },
    end (key: string, outcome: 'failed' | 'succeeded' | 'withdrawn'): void {
      const { failures, lastAt, running } = of(key)
      attempts.set(key, {
        failures: outcome === 'failed' ? failures + 1 : outcome === 'succeeded' ? 0 : failures,
        lastAt: outcome === 'failed' ? now() : lastAt,
        running: Math.max(0, running - 1)
      })
    }
  }
}

export interface LoginAttemptOptions {
  /** A number from 0 up to 1. */
  chance?: () => number
  now?: () => number
  /** Called when an attempt could not be counted in PostgreSQL. */
  onFallback?: (error: unknown) => void
}

/**
 * Throttles password guessing by exponential back-off. The state is in PostgreSQL, for all processes, under hashed
 * keys, so that the table is no list of emails.
 */
export function createLoginThrottle (
  database: Database,
  { chance = Math.random, now = performance.now.bind(performance), onFallback = () => {} }: LoginAttemptOptions = {}
) {
  const memory = createMemoryThrottle(now)
  const inMemory = new WeakSet<LoginAttempt>()

  /** Runs `work`; if PostgreSQL is unavailable, runs `fallback` in the memory of the process. */
  async function withFallback<T> (work: () => Promise<T>, fallback: () => T): Promise<T> {
    try {
      return await work()
    } catch (error) {
      if (!(error instanceof ApiError) || error.code !== 'service_unavailable') throw error
      onFallback(error.cause)
      return fallback()
    }
  }

  const keysOf = ({ account, address }: LoginAttempt) => ({
    pair: hash(`pair:${clientKey(address)}:${account}`),
    address: hash(`address:${clientKey(address)}`),
    account: hash(`account:${account}`)
  })

  /** Returns false while the attempt has to wait. */
  async function beginAt (key: string, backOff: BackOff): Promise<boolean> {
    for (let tries = 0; ; tries++) {
      const [row] = await database.query<{ has_begun: boolean, must_wait: boolean }>(begin, [
        key,
        backOff.freeFailures,
        backOff.failuresPerDoubling,
        backOff.maxDelaySeconds,
        runningSeconds,
        maxRunning
      ])
      if (row!.has_begun) return true
      if (row!.must_wait) return false
      // The running attempts may all succeed.
      if (tries >= maxRetries) throw new ApiError('server_busy')
      await sleep(retryMs)
    }
  }

  /** Whether an attempt from an unknown address is verified. */
  async function isSampled (key: string): Promise<boolean> {
    const [row] = await database.query<{ tries: number }>(countDistributed, [key, distributed.windowSeconds])
    return row!.tries <= distributed.freeAttempts || chance() < distributed.sampledAttempts / row!.tries
  }

  /** As `begin` below, with the state in PostgreSQL. */
  async function beginInDatabase (attempt: LoginAttempt): Promise<boolean> {
    const keys = keysOf(attempt)
    if (!attempt.isKnownAddress) {
      const [row] = await database.query<{ wait_seconds: number }>(addressWait, [
        keys.address,
        perAddress.freeFailures,
        perAddress.failuresPerDoubling,
        perAddress.maxDelaySeconds
      ])
      if (row) {
        const seconds = Math.max(1, Math.ceil(row.wait_seconds))
        throw new ApiError('rate_limit_exceeded', {
          message: `Too many passwords were wrong at this address; try again in ${seconds} s`,
          retryAfter: seconds,
          violatedPolicies: ['failed-logins']
        })
      }
    }
    if (!await beginAt(keys.pair, backOffOf(attempt))) return false
    if (attempt.isKnownAddress || await isSampled(keys.account)) return true
    await database.query(withdraw, [[keys.pair]])
    return false
  }

  const backOffOf = ({ isKnownAddress }: LoginAttempt): BackOff =>
    isKnownAddress ? accountAndKnownAddress : accountAndAddress

  /** Ends an attempt where it began: in PostgreSQL, one that began in memory would free the slot of another. */
  async function end (
    attempt: LoginAttempt,
    outcome: 'failed' | 'succeeded' | 'withdrawn',
    inDatabase: (keys: ReturnType<typeof keysOf>) => Promise<void>
  ): Promise<void> {
    const keys = keysOf(attempt)
    const endInMemory = (): void => {
      memory.end(keys.pair, outcome)
    }
    if (inMemory.delete(attempt)) endInMemory()
    else await withFallback(() => inDatabase(keys), endInMemory)
  }

  return {
    /** Whether a user has logged in from this address before; false when PostgreSQL is unavailable. */
    isKnownAddress: (userId: number, address: string): Promise<boolean> =>
      withFallback(async () => {
        const [row] = await database.query<{ is_known: boolean }>(isKnown, [userId, clientKey(address)])
        return row!.is_known
      }, () => false),

    /**
     * Begins an attempt. Returns false while it has to wait.
     *
     * @throws ApiError `rate_limit_exceeded` for an address with too many failures; `server_busy` while too many
     *   attempts run
     */
    begin: (attempt: LoginAttempt): Promise<boolean> =>
      withFallback(() => beginInDatabase(attempt), () => {
        inMemory.add(attempt)
        return memory.begin(keysOf(attempt).pair, backOffOf(attempt))
      }),

    /** Ends an attempt with a wrong password. */
    async fail (attempt: LoginAttempt): Promise<void> {
      await end(attempt, 'failed', async ({ pair, address }) => {
        await database.query(fail, [[pair]])
        await database.query(countAddress, [address])
      })
    },

    /** Ends an attempt whose password was not verified. */
    async withdraw (attempt: LoginAttempt): Promise<void> {
      await end(attempt, 'withdrawn', async ({ pair }) => {
        await database.query(withdraw, [[pair]])
      })
    },

    /** Ends an attempt with the right password. Failures from other addresses still count. */
    async succeed (attempt: LoginAttempt, userId: number): Promise<void> {
      await end(attempt, 'succeeded', async ({ pair }) => {
        await database.query(succeed, [pair])
        if (!attempt.isKnownAddress) await database.query(remember, [userId, clientKey(attempt.address)])
      })
    }
  }
}

const hash = (text: string): string => createHash('sha256').update(text).digest('base64url')

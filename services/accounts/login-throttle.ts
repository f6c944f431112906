import { createHash } from 'node:crypto'
import { setTimeout as sleep } from 'node:timers/promises'
import { clientKey } from '../http/client-key.ts'
import type { Database } from '../stores/database.ts'
import { ApiError } from '../shared/errors.ts'
import { ExpiringMap } from '../shared/expiring-map.ts'

/** A try at a password. */
export interface LoginAttempt {
  /** The account, by the form in which emails are compared. */
  account: string
  address: string
  /** Whether the account's user has logged in at this address before: then others cannot lock them out. */
  isKnownAddress: boolean
}

interface Limit {
  /** Failures that cost nothing. */
  free: number
  /** The wait after one more is a second; it doubles after so many. */
  doublesEvery: number
  /** The longest wait, in seconds. */
  maxSeconds: number
}

/** Who guesses at one account from one address waits soon and long; where the owner has been, whom it may meet, not so long. */
const pairLimit: Limit = { free: 5, doublesEvery: 1, maxSeconds: 900 }
const knownPairLimit: Limit = { free: 5, doublesEvery: 1, maxSeconds: 60 }

/** Who tries one password at many accounts. An address can be that of many people. */
const addressLimit: Limit = { free: 50, doublesEvery: 10, maxSeconds: 300 }

/**
 * Of the tries at one account from everywhere where its owner has not been, in windows of so many seconds: so many are
 * looked at; beyond them chance decides, so that a crowd of attackers leaves the owner a part of the few.
 */
const crowd = { seconds: 30, free: 20, budget: 6 }

/** Tries that run at once; one that was cut off is forgotten after so many seconds. */
const maxRunning = 5
const runningSeconds = 10

/** Milliseconds between two looks of who waits for others to end, and how many of them. */
const retryMs = 40
const maxRetries = 25

// A try is counted before the password is looked at: of a hundred at once only as many are looked at as are free. Those
// that run are no failures: whoever comes while there are too many of them comes again. After a quiet hour it begins anew.
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
  text: 'update login_attempts set failures = failures + 1, last_at = now(), running = greatest(0, running - 1) where key = any($1)'
}

const succeed = {
  name: 'succeed_login_attempt',
  text: 'update login_attempts set failures = 0, running = greatest(0, running - 1) where key = $1'
}

const withdraw = {
  name: 'withdraw_login_attempt',
  text: 'update login_attempts set running = greatest(0, running - 1) where key = any($1)'
}

const countCrowd = {
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

/** Attempts that a process remembers by itself while PostgreSQL cannot, and milliseconds for which it does. */
const remembered = { maxSize: 50_000, maxAgeMs: 3_600_000 }

/**
 * The same waits for one (account, address), in the memory of the process: for when the table cannot be written (a full
 * disk, a standby, a missing grant). Login is then neither impossible nor unthrottled.
 */
function createOwnAttempts (now: () => number) {
  const attempts = new ExpiringMap<string, { failures: number, lastAt: number, running: number }>({ ...remembered, now })
  const of = (key: string) => attempts.get(key) ?? { failures: 0, lastAt: -Infinity, running: 0 }
  return {
    begin (key: string, { free, doublesEvery, maxSeconds }: Limit): boolean {
      const attempt = of(key)
      const waitMs = attempt.failures < free ? 0 : Math.min(maxSeconds, 2 ** Math.min(30, (attempt.failures - free) / doublesEvery)) * 1000
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
  /** PostgreSQL could not count an attempt. */
  onFallback?: (error: unknown) => void
}

/**
 * Growing waits for who guesses passwords, kept in PostgreSQL for all processes; by hashes, so that it holds no list of
 * emails.
 */
export function createLoginThrottle (database: Database, { chance = Math.random, now = performance.now.bind(performance), onFallback = () => {} }: LoginAttemptOptions = {}) {
  const own = createOwnAttempts(now)

  /** What PostgreSQL says, or what this process does by itself when PostgreSQL cannot. */
  async function orElse<T> (work: () => Promise<T>, fallback: () => T): Promise<T> {
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

  /** False while it has to wait. */
  async function beginAt (key: string, limit: Limit): Promise<boolean> {
    for (let tries = 0; ; tries++) {
      const [row] = await database.query<{ has_begun: boolean, must_wait: boolean }>(begin, [
        key, limit.free, limit.doublesEvery, limit.maxSeconds, runningSeconds, maxRunning
      ])
      if (row!.has_begun) return true
      if (row!.must_wait) return false
      // The others may all be right.
      if (tries >= maxRetries) throw new ApiError('server_busy')
      await sleep(retryMs)
    }
  }

  /** Whether one more from anywhere is looked at. */
  async function isAmongFew (key: string): Promise<boolean> {
    const [row] = await database.query<{ tries: number }>(countCrowd, [key, crowd.seconds])
    return row!.tries <= crowd.free || chance() < crowd.budget / row!.tries
  }

  /** As `begin` below, by PostgreSQL. */
  async function beginInDatabase (attempt: LoginAttempt): Promise<boolean> {
    const keys = keysOf(attempt)
    if (!attempt.isKnownAddress) {
      const [row] = await database.query<{ wait_seconds: number }>(addressWait, [keys.address, addressLimit.free, addressLimit.doublesEvery, addressLimit.maxSeconds])
      if (row) {
        const seconds = Math.max(1, Math.ceil(row.wait_seconds))
        throw new ApiError('rate_limit_exceeded', { message: `Too many passwords were wrong at this address; try again in ${seconds} s`, retryAfter: seconds, violatedPolicies: ['failed-logins'] })
      }
    }
    if (!await beginAt(keys.pair, limitOf(attempt))) return false
    if (attempt.isKnownAddress || await isAmongFew(keys.account)) return true
    await database.query(withdraw, [[keys.pair]])
    return false
  }

  const limitOf = ({ isKnownAddress }: LoginAttempt): Limit => isKnownAddress ? knownPairLimit : pairLimit

  return {
    /** Whether a user has logged in at this address before; false when that cannot be told. */
    isKnownAddress: (userId: number, address: string): Promise<boolean> => orElse(async () => {
      const [row] = await database.query<{ is_known: boolean }>(isKnown, [userId, clientKey(address)])
      return row!.is_known
    }, () => false),

    /**
     * Begins a try. False while it has to wait.
     *
     * @throws ApiError `rate_limit_exceeded` for an address that fails at too many accounts; `server_busy` while too many
     *   tries run
     */
    begin: (attempt: LoginAttempt): Promise<boolean> =>
      orElse(() => beginInDatabase(attempt), () => own.begin(keysOf(attempt).pair, limitOf(attempt))),

    /** The password was a wrong one. */
    async fail (attempt: LoginAttempt): Promise<void> {
      const { pair, address } = keysOf(attempt)
      await orElse(async () => {
        await database.query(fail, [[pair]])
        await database.query(countAddress, [address])
      }, () => { own.end(pair, 'failed') })
    },

    /** The password was never looked at. */
    async withdraw (attempt: LoginAttempt): Promise<void> {
      const { pair } = keysOf(attempt)
      await orElse(async () => { await database.query(withdraw, [[pair]]) }, () => { own.end(pair, 'withdrawn') })
    },

    /** It was the right one. What others have tried at the account is not forgotten by that. */
    async succeed (attempt: LoginAttempt, userId: number): Promise<void> {
      const { pair } = keysOf(attempt)
      await orElse(async () => {
        await database.query(succeed, [pair])
        if (!attempt.isKnownAddress) await database.query(remember, [userId, clientKey(attempt.address)])
      }, () => { own.end(pair, 'succeeded') })
    }
  }
}

const hash = (text: string): string => createHash('sha256').update(text).digest('base64url')

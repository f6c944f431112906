import { createHash } from 'node:crypto'
import { clientKey } from './client-address.ts'
import type { Database } from './database.ts'

/** Tries at a password, by account and address. */
export interface LoginAttempt {
  /** The account, by the form in which emails are compared. */
  account: string
  address: string
  /** Whether the account's user is at home at this address: then others cannot lock them out. */
  isKnownAddress: boolean
}

/**
 * Failures that cost nothing, and the most seconds that one costs then: the wait doubles with each further one (for an
 * account as a whole with each five). At an account as a whole the wait stays short, because it meets its owner too.
 */
const limits = {
  pair: { free: 5, maxSeconds: 900, doublesEvery: 1 },
  account: { free: 20, maxSeconds: 30, doublesEvery: 5 }
} as const

// The attempt is counted before the password is looked at: of a hundred at once only as many are looked at as are
// free. After a quiet hour it begins anew. No row comes back while the wait lasts, and nothing is counted then.
const count = {
  name: 'count_login_attempt',
  text: `
    insert into login_attempts as a (key, failures) values ($1, 1)
    on conflict (key) do update set
      failures = case when a.last_at < now() - interval '1 hour' then 1 else a.failures + 1 end, last_at = now()
    where a.failures < $2
      or a.last_at <= now() - least($3, power(2, least(30, (a.failures - $2) / $4))) * interval '1 second'
    returning failures`
}

const uncount = {
  name: 'uncount_login_attempt',
  text: 'update login_attempts set failures = greatest(0, failures - 1) where key = any($1)'
}

const clear = {
  name: 'clear_login_attempts',
  text: 'delete from login_attempts where key = $1'
}

export type LoginAttempts = ReturnType<typeof createLoginAttempts>

/**
 * Growing waits for who guesses passwords: soon long ones for an account and an address together, late and short ones
 * for an account as a whole, so that a crowd of attackers cannot lock its owner out for long, and none at all of those
 * where the owner has been before. Kept in PostgreSQL, for all processes; by hashes, so that it holds no list of emails.
 */
export function createLoginAttempts (database: Database) {
  const keysOf = ({ account, address }: LoginAttempt) => ({
    pair: hash(`pair:${clientKey(address)}:${account}`),
    account: hash(`account:${account}`)
  })

  async function isFree (kind: keyof typeof limits, key: string): Promise<boolean> {
    const { free, maxSeconds, doublesEvery } = limits[kind]
    return (await database.query(count, [key, free, maxSeconds, doublesEvery])).length > 0
  }

  return {
    /** Counts an attempt as one that fails. False while it has to wait; then it is not counted. */
    async begin (attempt: LoginAttempt): Promise<boolean> {
      const keys = keysOf(attempt)
      if (!await isFree('pair', keys.pair)) return false
      if (attempt.isKnownAddress || await isFree('account', keys.account)) return true
      await database.query(uncount, [[keys.pair]])
      return false
    },

    /** The password was never looked at. */
    async withdraw (attempt: LoginAttempt): Promise<void> {
      const { pair, account } = keysOf(attempt)
      await database.query(uncount, [attempt.isKnownAddress ? [pair] : [pair, account]])
    },

    /** It was the right one. What others have tried at the account is not forgotten by that. */
    async succeed (attempt: LoginAttempt): Promise<void> {
      const { pair, account } = keysOf(attempt)
      await database.query(clear, [pair])
      if (!attempt.isKnownAddress) await database.query(uncount, [[account]])
    }
  }
}

const hash = (text: string): string => createHash('sha256').update(text).digest('base64url')

import { ExpiringMap } from '../../shared/expiring-map.ts'
import { createTokenBuckets } from './token-buckets.ts'

/** What a process asks of the bucket that all share. */
export interface LeaseRequest {
  client: string
  /** Tokens to be leased, if there are so many. */
  wanted: number
  /** Tokens that were granted already. */
  owed: number
}

export interface Lease {
  tokens: number
  /** Milliseconds until there are some again; 0 when some were leased. */
  waitMs: number
  /** Tokens that the bucket has left. */
  left: number
}

export interface SharedBucketOptions {
  /** Tokens a second that flow into a bucket. */
  rate: number
  /** Tokens that a full bucket holds. */
  burst: number
  /** Asks the shared buckets; rejects when they are away. */
  lease: (requests: LeaseRequest[]) => Promise<Lease[]>
  /** Clients that are told apart at once. */
  maxClients?: number
  /** Milliseconds, by a clock that never goes back. */
  now?: () => number
}

/** What a process knows of a client that has more than its free tokens to do with. */
interface Account {
  /** Leased and not used; below zero what was granted while a lease was under way. */
  tokens: number
  /** Granted without a lease. */
  owed: number
  left: number
  deniedUntil: number
  /** When a lease was asked for that has not come yet. */
  askedAt: number | undefined
}

/** How a bucket is shared out, by its size: a small one in single tokens. */
function shareOut (burst: number) {
  const atMost = (tokens: number, most: number): number => Math.max(1, Math.min(most, Math.floor(tokens)))
  return {
    /**
     * Tokens of a client and process that nobody else hears of, at once and a second: who stays below costs nothing remote. Of a
     * small bucket none: those of all processes would be more than flows in.
     */
    free: burst <= 100 ? 0 : atMost(burst / 20, 10),
    /** Tokens that are leased together. */
    batch: atMost(burst / 80, 25),
    /** Tokens left at which the next are asked for, so that they are there in time. */
    lowWater: atMost(burst / 200, 10),
    /** Tokens that are granted while a lease is under way, also of a bucket that is empty. */
    credit: atMost(burst / 200, 10),
    /** Of the tokens that a bucket was last known to have, one in so many is granted meanwhile; of a small one all. */
    creditShare: burst <= 100 ? 1 : 8
  }
}

/**
 * Of the tokens that a bucket was last known to have, one in so many is leased at once, and no less than a batch: a bucket
 * that is nearly full is shared out generously, so that who is far below the limit seldom costs a call.
 */
const largeShare = 32

/** Milliseconds after which nobody is refused for want of a lease that does not come: the process's own bucket decides. */
const patienceMs = 20

/** Milliseconds after which the shared buckets are asked again when they were away. */
const retryMs = 500

/**
 * Token buckets that many processes share, of which each request is decided at once, without asking: a process
 * leases some tokens of a busy client together and uses them up, and what it grants while it waits for more is
 * owed, and taken from the bucket with the next lease. So a client gets what flows in, whatever process it asks,
 * and not more than a few tokens a process beyond it for a moment.
 *
 * Each process has a bucket of its own of the same size as well: nobody gets more than that of it, also while the
 * shared buckets are away or slow.
 */
export function createSharedBuckets ({ rate, burst, lease, maxClients = 500_000, now = performance.now.bind(performance) }: SharedBucketOptions) {
  const own = createTokenBuckets({ rate, burst, maxClients })
  const { free, batch, lowWater, credit, creditShare } = shareOut(burst)
  const ownFree = free > 0 ? createTokenBuckets({ rate: Math.min(free, rate), burst: free, maxClients }) : undefined
  // An account that rests for as long as a bucket fills that is twice empty (lease.lua) is a new one: its bucket is full.
  const accounts = new ExpiringMap<string, Account>({ maxAgeMs: Math.max(1000, 2 * burst / rate * 1000), maxSize: maxClients, now })
  let waiting = new Map<string, Account>()
  let awayUntil = -Infinity
  /** When a call failed and none has been answered since. */
  let failedAt = Infinity
  const stats = { leases: 0, calls: 0, failures: 0 }

  function ask (client: string, account: Account, at: number): void {
    account.askedAt = at
    if (waiting.size === 0) setImmediate(send)
    waiting.set(client, account)
  }

  function send (): void {
    const asked = [...waiting]
    waiting = new Map()
    const requests = asked.map(([client, { owed, left }]) => ({ client, wanted: Math.max(batch, Math.floor(left / largeShare)), owed }))
    for (const [, account] of asked) account.owed = 0
    stats.leases += requests.length
    stats.calls++
    const sentAt = now()
    lease(requests).then(leases => {
      const at = now()
      failedAt = Infinity
      asked.forEach(([, account], index) => { credited(account, leases[index]!, at) })
    }, () => {
      stats.failures++
      // A process that was held up finds the answers and the time limits of all calls at once, and Node looks at the limits first.
      const isAway = sentAt >= failedAt
      if (isAway) awayUntil = now() + retryMs
      else failedAt = Math.min(failedAt, now())
      // What was owed may have been taken. What was granted since is owed, or forgotten rather than owed for ever.
      for (const [, account] of asked) {
        account.askedAt = undefined
        if (!isAway) account.owed += Math.max(0, -account.tokens)
        account.tokens = Math.max(0, account.tokens)
      }
    })
  }

  function credited (account: Account, { tokens, waitMs, left }: Lease, at: number): void {
    account.askedAt = undefined
    account.left = left
    account.tokens += tokens
    if (account.tokens < 0) {
      account.owed -= account.tokens
      account.tokens = 0
    }
    if (tokens === 0) account.deniedUntil = at + waitMs
  }

  function accountOf (client: string): Account {
    const account = accounts.get(client) ?? { tokens: 0, owed: free, left: burst, deniedUntil: -Infinity, askedAt: undefined }
    // Once more, so that it stays while the client is busy.
    accounts.set(client, account)
    return account
  }

  /** As take(), by what is leased; undefined while that is not known. */
  function takeLeased (client: string, at: number, cost: number): number | undefined {
    if (cost === 1 && accounts.get(client) === undefined && ownFree?.take(client, at) === 0) return burst - free + ownFree.remaining(client, at)
    const account = accountOf(client)
    if (account.askedAt !== undefined && at - account.askedAt > patienceMs) return undefined
    if (at < account.deniedUntil) return at - account.deniedUntil
    // Who comes with many requests at once has a whole bucket, and not what is leased in a moment.
    if (account.tokens <= -Math.max(credit, Math.floor(account.left / creditShare))) return -1
    account.tokens -= cost
    if (account.tokens < lowWater && account.askedAt === undefined) ask(client, account, at)
    return Math.max(0, account.left + account.tokens)
  }

  return {
    stats,

    /**
     * Takes tokens of a client when there is at least one; what it lacks then is owed, and flows in before the next.
     *
     * @param cost tokens to take, one unless told otherwise
     * @returns the tokens that are left after it; or, below zero, the milliseconds until there is one, when there was none
     */
    take (client: string, cost = 1): number {
      const at = now()
      const left = at < awayUntil ? undefined : takeLeased(client, at, cost)
      if (left !== undefined && left < 0) return left
      const waitMs = own.take(client, at, cost)
      if (waitMs > 0) return -waitMs
      // The lease may yet come: a process that was held up must not make a client's bucket larger.
      if (left === undefined && at >= awayUntil) accountOf(client).tokens -= cost
      const ownLeft = own.remaining(client, at)
      return left === undefined ? ownLeft : Math.min(left, ownLeft)
    }
  }
}

export type SharedBuckets = ReturnType<typeof createSharedBuckets>

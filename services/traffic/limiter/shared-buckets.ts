import { ExpiringMap } from '../../shared/expiring-map.ts'
import { createTokenBuckets } from './token-buckets.ts'

/** A request for tokens of a shared bucket. */
export interface LeaseRequest {
  client: string
  /** Tokens to lease, at the most. */
  wanted: number
  /** Tokens that the process has granted already, without a lease. */
  owed: number
}

export interface Lease {
  tokens: number
  /** Milliseconds until the bucket has tokens again; 0 when some were leased. */
  waitMs: number
  /** Tokens that the bucket has left. */
  left: number
}

export interface SharedBucketOptions {
  /** Tokens a second that flow into a bucket. */
  rate: number
  /** Tokens that a full bucket holds. */
  burst: number
  /** Leases tokens of the shared buckets; rejects while they are unavailable. */
  lease: (requests: LeaseRequest[]) => Promise<Lease[]>
  /** Clients that have a bucket of their own at the same time. */
  maxClients?: number
  /** Monotonic clock, in milliseconds. */
  now?: () => number
}

/** A process's account with the shared bucket of a client that uses more than its free tokens. */
interface Account {
  /** Leased and not used; below zero: granted while a lease was in flight. */
  tokens: number
  /** Granted without a lease. */
  owed: number
  left: number
  deniedUntil: number
  /** When the lease in flight was requested. */
  askedAt: number | undefined
}

/** How tokens of a bucket are distributed, by its size: of a small bucket one by one. */
function shareOut (burst: number) {
  const atMost = (tokens: number, most: number): number => Math.max(1, Math.min(most, Math.floor(tokens)))
  return {
    /**
     * Tokens a second (and at once) that a process grants to each client without telling the shared bucket: most
     * clients stay below and cost no call. Of a small bucket none: the free tokens of all processes would exceed its
     * rate.
     */
    free: burst <= 100 ? 0 : atMost(burst / 20, 10),
    /** Tokens of one lease. */
    batch: atMost(burst / 80, 25),
    /** Tokens left at which the next lease is requested, so that it arrives in time. */
    lowWater: atMost(burst / 200, 10),
    /** Tokens that are granted while a lease is in flight, even of a bucket that is empty. */
    credit: atMost(burst / 200, 10),
    /** While a lease is in flight, this fraction (1/n) of the tokens last known is granted; of a small bucket all. */
    creditShare: burst <= 100 ? 1 : 8
  }
}

/**
 * A lease is this fraction (1/n) of the tokens last known, and no less than a batch: leases of a nearly full bucket
 * are large, so that clients far below their limit seldom cost a call.
 */
const largeShare = 32

/** Milliseconds after which the process's own bucket decides instead of a lease that is late. */
const leaseTimeoutMs = 20

/** Milliseconds after which the shared buckets are tried again when they were unavailable. */
const retryMs = 500

/**
 * Token buckets that many processes share. Every request is decided synchronously: a process leases tokens of a busy
 * client in batches and uses them; tokens that it grants while a lease is in flight are owed, and taken from the
 * bucket with the next lease. So a client gets the rate of its bucket from all processes together, and exceeds it for
 * a moment by a few tokens a process at the most.
 *
 * Each process also has a bucket of the same size of its own for each client: no process grants more than that, even
 * while the shared buckets are unavailable or slow.
 */
export function createSharedBuckets (
  { rate, burst, lease, maxClients = 500_000, now = performance.now.bind(performance) }: SharedBucketOptions
) {
  const own = createTokenBuckets({ rate, burst, maxClients })
  const { free, batch, lowWater, credit, creditShare } = shareOut(burst)
  const ownFree = free > 0 ? createTokenBuckets({ rate: Math.min(free, rate), burst: free, maxClients }) : undefined
  // An account that is idle for as long as it takes to fill two buckets (lease.lua allows a debt of one) is dropped:
  // its bucket is full.
  const accounts = new ExpiringMap<string, Account>({
    maxAgeMs: Math.max(1000, 2 * burst / rate * 1000),
    maxSize: maxClients,
    now
  })
  let waiting = new Map<string, Account>()
  let unavailableUntil = -Infinity
  /** When the first of the calls failed that have failed since the last answer. */
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
    const requests = asked.map(([client, { owed, left }]) => ({
      client,
      wanted: Math.max(batch, Math.floor(left / largeShare)),
      owed
    }))
    for (const [, account] of asked) account.owed = 0
    stats.leases += requests.length
    stats.calls++
    const sentAt = now()
    lease(requests).then(leases => {
      const at = now()
      failedAt = Infinity
      asked.forEach(([, account], index) => {
        credited(account, leases[index]!, at)
      })
    }, () => {
      stats.failures++
      // After a stall, answers and timeouts of all calls are due at once, and Node runs the timeouts first.
      const isUnavailable = sentAt >= failedAt
      if (isUnavailable) unavailableUntil = now() + retryMs
      else failedAt = Math.min(failedAt, now())
      // The debt of this call may have been taken. Tokens granted since are owed, or forgotten rather than owed for
      // ever.
      for (const [, account] of asked) {
        account.askedAt = undefined
        if (!isUnavailable) account.owed += Math.max(0, -account.tokens)
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
    const account = accounts.get(client) ??
      { tokens: 0, owed: free, left: burst, deniedUntil: -Infinity, askedAt: undefined }
    // Set again, so that it stays while the client is busy.
    accounts.set(client, account)
    return account
  }

  /** As take(), of leased tokens; undefined while a lease is late. */
  function takeLeased (client: string, at: number, cost: number): number | undefined {
    if (cost === 1 && accounts.get(client) === undefined && ownFree?.take(client, at) === 0) {
      return burst - free + ownFree.remaining(client, at)
    }
    const account = accountOf(client)
    if (account.askedAt !== undefined && at - account.askedAt > leaseTimeoutMs) return undefined
    if (at < account.deniedUntil) return at - account.deniedUntil
    // A burst may use the whole bucket, not just what is leased at this moment.
    if (account.tokens <= -Math.max(credit, Math.floor(account.left / creditShare))) return -1
    account.tokens -= cost
    if (account.tokens < lowWater && account.askedAt === undefined) ask(client, account, at)
    return Math.max(0, account.left + account.tokens)
  }

  return {
    stats,

    /**
     * Takes tokens of a client when there is at least one; missing ones are a debt that is paid before the next is
     * granted.
     *
     * @param cost tokens to take
     * @returns the tokens that are left; or, below zero, the milliseconds until there is one, when there was none
     */
    take (client: string, cost = 1): number {
      const at = now()
      const left = at < unavailableUntil ? undefined : takeLeased(client, at, cost)
      if (left !== undefined && left < 0) return left
      const waitMs = own.take(client, at, cost)
      if (waitMs > 0) return -waitMs
      // The lease may still arrive: a stall must not make a client's bucket larger.
      if (left === undefined && at >= unavailableUntil) accountOf(client).tokens -= cost
      const ownLeft = own.remaining(client, at)
      return left === undefined ? ownLeft : Math.min(left, ownLeft)
    }
  }
}

export type SharedBuckets = ReturnType<typeof createSharedBuckets>

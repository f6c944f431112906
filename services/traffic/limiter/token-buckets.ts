export interface TokenBucketOptions {
  /** Tokens a second that flow into a bucket. */
  rate: number
  /** Tokens that a full bucket holds. */
  burst: number
  /** Clients that are told apart at once; those beyond share one bucket, so that memory is bounded. */
  maxClients?: number
}

export interface TokenBuckets {
  /**
   * Takes tokens from a client's bucket when there is at least one; what it lacks then is owed.
   *
   * @param nowMs a clock that never goes back, in milliseconds
   * @param cost tokens to take, one unless told otherwise
   * @returns 0 when granted, else the milliseconds until a token is there
   */
  take (client: string, nowMs: number, cost?: number): number
  /** Whole tokens in a client's bucket. */
  remaining (client: string, nowMs: number): number
  /** Buckets in memory. */
  readonly size: number
}

/**
 * Token buckets by client, kept as one number each: the time at which the bucket will be full again
 * (GCRA's theoretical arrival time, ITU-T I.371; the same algorithm from the other side).
 *
 * Buckets lie in two maps by when they were last used. A bucket fills up in `burst / rate` seconds, so one
 * that was not used for as long is full, and a full bucket need not be remembered: the older map is dropped
 * whole. There is no sweep, and memory follows the clients of the last moments.
 */
export function createTokenBuckets ({ rate, burst, maxClients = 500_000 }: TokenBucketOptions): TokenBuckets {
  const tokenMs = 1000 / rate
  const capacityMs = burst * tokenMs
  let recent = new Map<string, number>()
  let older = new Map<string, number>()
  let turnsAt = -Infinity

  function turn (nowMs: number): void {
    // After two whole periods without a request, what is in `recent` is full as well.
    older = nowMs < turnsAt + capacityMs ? recent : new Map()
    recent = new Map()
    turnsAt = nowMs + capacityMs
  }

  const fullAt = (client: string, nowMs: number): number =>
    Math.max(recent.get(client) ?? older.get(client) ?? 0, nowMs)

  return {
    take (client, nowMs, cost = 1) {
      if (nowMs >= turnsAt) turn(nowMs)
      if (recent.size >= maxClients && !recent.has(client) && !older.has(client)) client = 'others'
      const full = fullAt(client, nowMs)
      const excessMs = full + tokenMs - nowMs - capacityMs
      // Sums of fractions drift; a microsecond of grace keeps the drift from costing a token.
      if (excessMs > 1e-3) return excessMs
      recent.set(client, full + cost * tokenMs)
      return 0
    },

    remaining: (client, nowMs) => Math.max(0, Math.floor((nowMs + capacityMs - fullAt(client, nowMs)) / tokenMs + 1e-6)),

    get size () { return recent.size + older.size }
  }
}

export interface TokenBucketOptions {
  /** Tokens a second that flow into a bucket. */
  rate: number
  /** Tokens that a full bucket holds. */
  burst: number
  /** Clients that have a bucket of their own at the same time; all others share one, so that memory is bounded. */
  maxClients?: number
}

export interface TokenBuckets {
  /**
   * Takes tokens from a client's bucket when there is at least one; missing ones are a debt.
   *
   * @param nowMs monotonic clock, in milliseconds
   * @param cost tokens to take, 1 by default
   * @returns 0 when granted, else the milliseconds until the bucket has a token
   */
  take (client: string, nowMs: number, cost?: number): number
  /** Whole tokens in a client's bucket. */
  remaining (client: string, nowMs: number): number
  /** Buckets in memory. */
  readonly size: number
}

/**
 * Token buckets by client, stored as one number each: the time at which the bucket will be full again (GCRA's
 * theoretical arrival time, ITU-T I.371).
 *
 * The buckets are in two maps, by when they were last used. A bucket fills in `burst / rate` seconds, so one that was
 * not used for as long is full and need not be stored: the older map is dropped as a whole. There is no sweep.
 */
export function createTokenBuckets ({ rate, burst, maxClients = 500_000 }: TokenBucketOptions): TokenBuckets {
  const tokenMs = 1000 / rate
  const capacityMs = burst * tokenMs
  let recent = new Map<string, number>()
  let older = new Map<string, number>()
  let turnsAt = -Infinity

  function turn (nowMs: number): void {
    // After two periods without a request, the buckets in `recent` are full as well.
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
      // Floating-point sums drift; a tolerance of a microsecond keeps the drift from costing a token.
      if (excessMs > 1e-3) return excessMs
      recent.set(client, full + cost * tokenMs)
      return 0
    },

    remaining: (client, nowMs) =>
      Math.max(0, Math.floor((nowMs + capacityMs - fullAt(client, nowMs)) / tokenMs + 1e-6)),

    get size () {
      return recent.size + older.size
    }
  }
}

import type { Limit } from './limit.ts'

/** A token that was taken, or asked for in vain. */
export interface Taken {
  limit: Limit
  /** As Limit.take() gave it. */
  left: number
}

/** Fields for so many tokens left are written down once each. */
const maxWritten = 10_000

/**
 * What an answer says of the limits that its request met, as names and values in turn: RateLimit-Policy and RateLimit
 * (draft-ietf-httpapi-ratelimit-headers), where a quota is a whole bucket in the time in which it fills; and
 * X-RateLimit-*, which came before them and have room for one policy, the last one.
 */
export function createLimitFields ({ hasLegacyHeaders }: { hasLegacyHeaders: boolean }) {
  const written = new Map<Limit, string[][]>()

  function writeOne ({ limit: { name, policy: { rate, burst } }, left }: Taken): string[] {
    const reset = String(Math.ceil((burst - left) / rate))
    return ['ratelimit-policy', `"${name}";q=${burst};w=${Math.ceil(burst / rate)}`, 'ratelimit', `"${name}";r=${left};t=${reset}`,
      ...hasLegacyHeaders ? ['x-ratelimit-limit', String(burst), 'x-ratelimit-remaining', String(left), 'x-ratelimit-reset', reset] : []]
  }

  function one ({ limit, left }: Taken): string[] {
    const whole = Math.max(0, Math.floor(left))
    if (whole > maxWritten) return writeOne({ limit, left: whole })
    let ofLimit = written.get(limit)
    if (!ofLimit) written.set(limit, ofLimit = [])
    return (ofLimit[whole] ??= writeOne({ limit, left: whole }))
  }

  return {
    one,

    /** Of two policies, the general one first. */
    two (general: Taken, special: Taken): string[] {
      const [nameOfPolicies, policies, name, state] = one(general)
      const [, ownPolicy, , ownState, ...legacy] = one(special)
      return [nameOfPolicies!, `${policies}, ${ownPolicy}`, name!, `${state}, ${ownState}`, ...legacy]
    }
  }
}

export type LimitFields = ReturnType<typeof createLimitFields>

import { serializeFields } from '../../http/response-head.ts'
import type { Limit } from './limit.ts'

/** A token that was taken, or asked for in vain. */
export interface Taken {
  limit: Limit
  /** As Limit.take() gave it. */
  left: number
}

/** Number of tokens left up to which the fields are serialised once and kept. */
const maxWritten = 10_000

/**
 * Builds the rate limit fields of responses: RateLimit-Policy and RateLimit (draft-ietf-httpapi-ratelimit-headers),
 * where a quota is a full bucket in the time in which it fills; and X-RateLimit-*, which older clients read and which
 * have room for one policy, the narrower one.
 */
export function createLimitFields ({ hasLegacyHeaders }: { hasLegacyHeaders: boolean }) {
  const written = new Map<Limit, Written[]>()

  function writeOne ({ limit: { name, policy: { rate, burst } }, left }: Taken): Written {
    const reset = String(Math.ceil((burst - left) / rate))
    const policy = `"${name}";q=${burst};w=${Math.ceil(burst / rate)}`
    const state = `"${name}";r=${left};t=${reset}`
    const legacy: Record<string, string> = hasLegacyHeaders
      ? { 'x-ratelimit-limit': String(burst), 'x-ratelimit-remaining': String(left), 'x-ratelimit-reset': reset }
      : {}
    const headers = { 'ratelimit-policy': policy, ratelimit: state, ...legacy }
    const toText = (fields: Record<string, string>): string => serializeFields(Object.entries(fields).flat())
    return { policy, state, legacy, legacyText: toText(legacy), headers, text: toText(headers) }
  }

  function find ({ limit, left }: Taken): Written {
    const whole = Math.max(0, Math.floor(left))
    if (whole > maxWritten) return writeOne({ limit, left: whole })
    let ofLimit = written.get(limit)
    if (!ofLimit) written.set(limit, ofLimit = [])
    return (ofLimit[whole] ??= writeOne({ limit, left: whole }))
  }

  return {
    /**
     * The fields as an object, of the policy of the client's address and of a route's own policy.
     *
     * @param address undefined before the rate limiter has run
     */
    headers (address: Taken | undefined, route: Taken | undefined): Record<string, string> {
      if (!address) return {}
      const first = find(address)
      if (!route) return first.headers
      const { policy, state, legacy } = find(route)
      return { 'ratelimit-policy': `${first.policy}, ${policy}`, ratelimit: `${first.state}, ${state}`, ...legacy }
    },

    /** The same as text. */
    serialized (address: Taken | undefined, route: Taken | undefined): string {
      if (!address) return ''
      const first = find(address)
      if (!route) return first.text
      const { policy, state, legacyText } = find(route)
      return `ratelimit-policy: ${first.policy}, ${policy}\r\nratelimit: ${first.state}, ${state}\r\n${legacyText}`
    }
  }
}

/** The fields for a number of tokens left of a limit: in parts, as an object, and as text. */
interface Written {
  policy: string
  state: string
  legacy: Record<string, string>
  legacyText: string
  headers: Record<string, string>
  text: string
}

export type LimitFields = ReturnType<typeof createLimitFields>

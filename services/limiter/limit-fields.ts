import { serializeFields } from '../serialized-head.ts'
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
 * What an answer says of the limits that its request met, as names and values in turn or as text: RateLimit-Policy and RateLimit
 * (draft-ietf-httpapi-ratelimit-headers), where a quota is a whole bucket in the time in which it fills; and
 * X-RateLimit-*, which came before them and have room for one policy, the last one.
 */
export function createLimitFields ({ hasLegacyHeaders }: { hasLegacyHeaders: boolean }) {
  const written = new Map<Limit, Written[]>()

  function writeOne ({ limit: { name, policy: { rate, burst } }, left }: Taken): Written {
    const reset = String(Math.ceil((burst - left) / rate))
    const policy = `"${name}";q=${burst};w=${Math.ceil(burst / rate)}`
    const state = `"${name}";r=${left};t=${reset}`
    const legacy = hasLegacyHeaders ? ['x-ratelimit-limit', String(burst), 'x-ratelimit-remaining', String(left), 'x-ratelimit-reset', reset] : []
    const list = [...fieldsOf(policy, state), ...legacy]
    return { policy, state, legacy, legacyText: serializeFields(legacy), list, text: serializeFields(list) }
  }

  function find ({ limit, left }: Taken): Written {
    const whole = Math.max(0, Math.floor(left))
    if (whole > maxWritten) return writeOne({ limit, left: whole })
    let ofLimit = written.get(limit)
    if (!ofLimit) written.set(limit, ofLimit = [])
    return (ofLimit[whole] ??= writeOne({ limit, left: whole }))
  }

  return {
    one: (taken: Taken): string[] => find(taken).list,

    /** Of two policies, the general one first. */
    two (general: Taken, special: Taken): string[] {
      const [first, { policy, state, legacy }] = [find(general), find(special)]
      return [...fieldsOf(`${first.policy}, ${policy}`, `${first.state}, ${state}`), ...legacy]
    },

    /** The same as text, of one policy or of two. */
    serialized (general: Taken, special: Taken | undefined): string {
      const first = find(general)
      if (!special) return first.text
      const { policy, state, legacyText } = find(special)
      return `ratelimit-policy: ${first.policy}, ${policy}\r\nratelimit: ${first.state}, ${state}\r\n${legacyText}`
    }
  }
}

/** What is said of so many tokens of a limit: in parts, as names and values in turn, and as text. */
interface Written { policy: string, state: string, legacy: string[], legacyText: string, list: string[], text: string }

const fieldsOf = (policy: string, state: string): string[] => ['ratelimit-policy', policy, 'ratelimit', state]

export type LimitFields = ReturnType<typeof createLimitFields>

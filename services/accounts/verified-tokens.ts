import type { Claims } from './access-tokens.ts'
import { ApiError } from '../shared/errors.ts'
import { ExpiringMap } from '../shared/expiring-map.ts'
import type { Revocations } from './revocations.ts'

export interface VerifiedTokensOptions {
  /** Reads the value of an Authorization header. Throws for one that is no valid token. */
  verify: (authorization: string | undefined) => Claims
  /** Whose session has ended before the token. */
  revocations: Pick<Revocations, 'isLoaded' | 'isRevoked'>
  /** Hears of each use of a session. */
  onUse?: (sid: string) => void
  /** Milliseconds for which a token that was verified need not be verified again. */
  maxAgeMs?: number
  /** Tokens that are remembered, twice over. */
  maxSize?: number
}

export type VerifiedTokens = ReturnType<typeof createVerifiedTokens>

/** Who bears a token: verified once and known from then on, because a bearer comes back many times. */
export function createVerifiedTokens ({ verify, revocations, onUse = () => {}, maxAgeMs = 60_000, maxSize = 10_000 }: VerifiedTokensOptions) {
  const known = new ExpiringMap<string, Claims>({ maxAgeMs, maxSize })

  function seen (authorization: string): Claims | undefined {
    const claims = known.get(authorization)
    return claims && claims.exp * 1000 > Date.now() ? claims : undefined
  }

  return {
    get size () { return known.size },

    /** The bearer, if the token was verified a moment ago and still holds: the way of the many. */
    peek (authorization: string): Claims | undefined {
      const claims = seen(authorization)
      if (!claims || !revocations.isLoaded || revocations.isRevoked(claims)) return undefined
      onUse(claims.sid)
      return claims
    },

    /** The bearer. @throws ApiError `unauthorized`; `service_unavailable` while it is not known who was logged out */
    read (authorization: string | undefined): Claims {
      const before = authorization === undefined ? undefined : seen(authorization)
      const claims = before ?? verify(authorization)
      // A process that has just begun and cannot ask believes nobody.
      if (!revocations.isLoaded) throw new ApiError('service_unavailable')
      if (revocations.isRevoked(claims)) throw new ApiError('unauthorized', { message: 'The session of this access token has ended' })
      // A token that is taken is no longer than an access token: memory is bounded.
      if (!before) known.set(authorization!, claims)
      onUse(claims.sid)
      return claims
    }
  }
}

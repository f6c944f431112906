import type { Claims } from './access-tokens.ts'
import { ApiError } from '../shared/errors.ts'
import { ExpiringMap } from '../shared/expiring-map.ts'
import type { Revocations } from './revocations.ts'

export interface VerifiedTokensOptions {
  /** Verifies the value of an Authorization header. @throws ApiError `unauthorized` */
  verify: (authorization: string | undefined) => Claims
  /** Sessions that ended before their tokens expired. */
  revocations: Pick<Revocations, 'isLoaded' | 'isRevoked'>
  /** Called for each use of a session. */
  onUse?: (sid: string) => void
  /** Milliseconds for which a verified token is not verified again. */
  maxAgeMs?: number
  /** Maximum entries per generation; up to two generations are kept. */
  maxSize?: number
}

export type VerifiedTokens = ReturnType<typeof createVerifiedTokens>

/**
 * Cache of verified access tokens: a signature is verified once a minute, because clients send the same token many
 * times.
 */
export function createVerifiedTokens (
  { verify, revocations, onUse = () => {}, maxAgeMs = 60_000, maxSize = 10_000 }: VerifiedTokensOptions
) {
  const known = new ExpiringMap<string, Claims>({ maxAgeMs, maxSize })

  function seen (authorization: string): Claims | undefined {
    const claims = known.get(authorization)
    return claims && claims.exp * 1000 > Date.now() ? claims : undefined
  }

  return {
    get size () {
      return known.size
    },

    /**
     * Returns the claims of a valid token.
     *
     * @throws ApiError `unauthorized`; `service_unavailable` while the revocations are not loaded
     */
    read (authorization: string | undefined): Claims {
      const before = authorization === undefined ? undefined : seen(authorization)
      const claims = before ?? verify(authorization)
      // A process that has just started and cannot read the revocations accepts no token.
      if (!revocations.isLoaded) throw new ApiError('service_unavailable')
      if (revocations.isRevoked(claims)) {
        throw new ApiError('unauthorized', { message: 'The session of this access token has ended' })
      }
      // Only valid tokens are stored, and those have a bounded length.
      if (!before) known.set(authorization!, claims)
      onUse(claims.sid)
      return claims
    }
  }
}

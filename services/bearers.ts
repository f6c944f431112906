import { RecentMap } from './recent-map.ts'

/** What a token says of its bearer; clients decode these. */
export interface Claims {
  user_id: number
  email: string
  username: string
  /** Seconds since 1970 at which it ends. */
  exp: number
}

export interface BearersOptions {
  /** Reads the value of an Authorization header. Throws for one that is no valid token. */
  verify: (authorization: string | undefined) => Claims
  /** Milliseconds for which a token that was verified need not be verified again. */
  maxAgeMs?: number
  /** Tokens that are remembered, twice over. */
  maxSize?: number
}

export type Bearers = ReturnType<typeof createBearers>

/** Characters of a header that is remembered: what anybody may send must not fill the memory. */
const maxLength = 4096

/** Who bears a token: verified once and known from then on, because a bearer comes back many times. */
export function createBearers ({ verify, maxAgeMs = 60_000, maxSize = 10_000 }: BearersOptions) {
  const known = new RecentMap<string, Claims>({ maxAgeMs, maxSize })

  /** The bearer, if the token was verified a moment ago and still holds: the way of the many. */
  function peek (authorization: string): Claims | undefined {
    const claims = known.get(authorization)
    return claims && claims.exp * 1000 > Date.now() ? claims : undefined
  }

  return {
    peek,

    /** The bearer. Throws what `verify` throws. */
    read (authorization: string | undefined): Claims {
      const seen = authorization === undefined ? undefined : peek(authorization)
      if (seen) return seen
      const claims = verify(authorization)
      if (authorization!.length <= maxLength) known.set(authorization!, claims)
      return claims
    }
  }
}

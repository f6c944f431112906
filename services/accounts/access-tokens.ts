import { createHash, randomBytes } from 'node:crypto'
import type { Account } from '../../schemas/user.ts'
import { ApiError } from '../shared/errors.ts'
import { isWeakSecret, type TokenKey } from './token-keys.ts'

/** The claims of an access token. */
export interface Claims {
  user_id: number
  email: string
  username: string
  /** Seconds since 1970 at which it was issued. */
  iat: number
  /** Seconds since 1970 at which it ends. */
  exp: number
  /** The session that it belongs to. A token of the Go service is a session of its own. */
  sid: string
  isLegacy: boolean
}

/** Signs and verifies with one key, by @fastify/jwt. @throws for a wrong signature or an expired token */
export interface TokenSigner {
  sign (payload: object): string
  verify(token: string): unknown
}

export interface AccessTokenOptions {
  keys: readonly TokenKey[]
  signerOf: (key: TokenKey) => TokenSigner
  issuer: string
  audience: string
  lifetimeSeconds: number
  /** Whether tokens of the Go service (without key id, issuer and audience) are accepted. */
  acceptsLegacy: boolean
}

/** The media type of access tokens (RFC 9068 §2.1). */
const tokenType = 'at+jwt'

/** Maximum characters of a token; ours have about 600. */
const maxLength = 4096

/** Clock skew in seconds that is allowed for `iat` and `nbf` (RFC 7519 §4.1.5), not for `exp`. */
const maxSkewSeconds = 60

const tokenForm = /^bearer ([\w-]+)\.([\w-]+)\.([\w-]+)$/i

export type AccessTokens = ReturnType<typeof createAccessTokens>

/**
 * Access tokens as RFC 9068 has them, verified as RFC 8725 recommends: the key determines the algorithm, the header
 * has only known members, a token has one canonical encoding, and every claim is checked.
 */
export function createAccessTokens (options: AccessTokenOptions) {
  const { issuer, audience, lifetimeSeconds, acceptsLegacy } = options
  const keys = options.keys.map(key => ({ key, signer: options.signerOf(key) }))
  const signing = keys[0]!
  const byKid = new Map(
    keys.filter(({ key }) => key.algorithm !== 'HS256' || !isWeakSecret(key.secret)).map(one => [one.key.kid, one])
  )

  /** Verifies with the key of the header's `kid`, or a token of the Go service with any of the secrets. */
  function payloadOf (token: string, header: Record<string, unknown>): { payload: unknown, isLegacy: boolean } {
    if ('kid' in header) {
      const found = typeof header['kid'] === 'string' ? byKid.get(header['kid']) : undefined
      if (!found) throw new Error('No key of that name')
      if (header['alg'] !== found.key.algorithm) throw new Error('Not the algorithm of the key')
      if (header['typ'] !== tokenType) throw new Error('Not the type of an access token')
      return { payload: found.signer.verify(token), isLegacy: false }
    }
    if (!acceptsLegacy || header['alg'] !== 'HS256' || (header['typ'] ?? 'JWT') !== 'JWT') {
      throw new Error('Names no key')
    }
    let cause: unknown
    for (const { key, signer } of keys) {
      if (key.algorithm !== 'HS256') continue
      try {
        return { payload: signer.verify(token), isLegacy: true }
      } catch (error) {
        cause = error
        if (isExpired(error)) break
      }
    }
    throw cause
  }

  function claimsOf (token: string, payload: unknown, isLegacy: boolean): Claims {
    const claims = asObject(payload)
    const { user_id: userId, email = '', username = '', exp, iat, nbf, sub, iss, aud, jti, sid, client_id: clientId } =
      claims
    const now = Date.now() / 1000
    if (!Number.isSafeInteger(userId) || (userId as number) < 1) throw new Error('user_id is no id')
    if (typeof email !== 'string' || typeof username !== 'string') throw new Error('email or username is no text')
    if (!isTime(exp) || exp <= now) throw new Error('exp is no time to come')
    if (iat !== undefined && !(isTime(iat) && iat <= now + maxSkewSeconds)) throw new Error('iat is no time in the past')
    if (nbf !== undefined && !(isTime(nbf) && nbf <= now + maxSkewSeconds)) throw new Error('It is not valid yet')
    if (isLegacy) {
      if (iss !== undefined || aud !== undefined || sub !== undefined || jti !== undefined || sid !== undefined) {
        throw new Error('A token of another kind')
      }
      const id = `legacy-${createHash('sha256').update(token).digest('base64url').slice(0, 22)}`
      return { user_id: userId as number, email, username, iat: iat ?? 0, exp, sid: id, isLegacy }
    }
    if (iat === undefined || nbf === undefined || iss !== issuer || aud !== audience || clientId !== issuer) {
      throw new Error('Not for this service')
    }
    if (sub !== String(userId) || typeof jti !== 'string' || !isSessionId(sid)) throw new Error('A claim is missing')
    return { user_id: userId as number, email, username, iat, exp, sid, isLegacy }
  }

  return {
    /** Lifetime of a token in seconds. */
    lifetimeSeconds,

    /**
     * Issues a token of a session.
     *
     * @param sessionEndsAt upper bound of the token's expiry
     */
    issue (
      { id, email, username }: Pick<Account, 'id' | 'email' | 'username'>,
      sid: string,
      sessionEndsAt: Date
    ): { token: string, expiresIn: number } {
      const now = Math.floor(Date.now() / 1000)
      const expiresIn = Math.max(1, Math.min(lifetimeSeconds, Math.floor(sessionEndsAt.getTime() / 1000) - now))
      const token = signing.signer.sign({
        iss: issuer,
        aud: audience,
        client_id: issuer,
        sub: String(id),
        jti: randomBytes(12).toString('base64url'),
        sid,
        iat: now,
        nbf: now,
        exp: now + expiresIn,
        user_id: id,
        email,
        username
      })
      return { token, expiresIn }
    },

    /**
     * Verifies the value of an Authorization header.
     *
     * @throws ApiError `unauthorized` unless it is exactly one valid token
     */
    verify (authorization: string | undefined): Claims {
      if (authorization === undefined) throw new ApiError('unauthorized')
      const [, head, body, signature] = (authorization.length <= maxLength && tokenForm.exec(authorization)) || []
      if (head === undefined || body === undefined || signature === undefined) throw new ApiError('unauthorized')
      try {
        if (!isCanonical(signature)) throw new Error('The signature has another spelling')
        const header = readHeader(head)
        const token = `${head}.${body}.${signature}`
        const { payload, isLegacy } = payloadOf(token, header)
        return claimsOf(token, payload, isLegacy)
      } catch (cause) {
        throw new ApiError('unauthorized', {
          message: `The access token ${isExpired(cause) ? 'has expired' : 'is not valid'}`,
          cause
        })
      }
    }
  }
}

/** A session id: 16 random bytes in base64url. */
export const createSessionId = (): string => randomBytes(16).toString('base64url')

export const isSessionId = (value: unknown): value is string => typeof value === 'string' && /^[\w-]{22}$/.test(value)

/** Whether a base64url text is the canonical encoding of its bytes. */
const isCanonical = (text: string): boolean => Buffer.from(text, 'base64url').toString('base64url') === text

const isTime = (value: unknown): value is number => typeof value === 'number' && Number.isFinite(value) && value > 0

const isExpired = (error: unknown): boolean => (error as { code?: string }).code === 'FAST_JWT_EXPIRED'

function asObject (value: unknown): Record<string, unknown> {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) throw new Error('This is no object')
  return value as Record<string, unknown>
}

/** Parsed headers, by their encoded form: there are only a few different ones. */
const headers = new Map<string, Record<string, unknown>>()

function readHeader (text: string): Record<string, unknown> {
  const known = headers.get(text)
  if (known) return known
  const header = asObject(JSON.parse(Buffer.from(text, 'base64url').toString()))
  // crit, jku, jwk, x5u, x5c and so on: nothing that a token says about its own key is trusted.
  const strange = Object.keys(header).find(name => !['alg', 'typ', 'kid'].includes(name))
  if (strange !== undefined) throw new Error('The header has a member that ours do not have')
  if (headers.size < 50) headers.set(text, header)
  return header
}

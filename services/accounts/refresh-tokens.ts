import { createHmac, timingSafeEqual } from 'node:crypto'
import { isSessionId } from './access-tokens.ts'

/** The session that a token belongs to, and its rotation. */
export interface RefreshClaim {
  sid: string
  /** Rotation number: how often the session was refreshed before. */
  generation: number
}

/** Marks a refresh token, for people and for scanners of leaked secrets. */
const prefix = 'halo_refresh_'

export type RefreshTokens = ReturnType<typeof createRefreshTokens>

/**
 * Creates and verifies refresh tokens. A token consists of a session id, a rotation number, and a signature: a token
 * that is presented a second time was really issued, which reuse detection needs, and no token has to be stored in
 * the database. A repeated refresh of the same rotation gives the same next token.
 *
 * @param secrets the first signs; all of them verify
 */
export function createRefreshTokens (secrets: readonly string[]) {
  const keys = secrets.map(secret => createHmac('sha256', secret).update('HALO refresh tokens').digest())
  const signature = (key: Buffer, text: string): Buffer => createHmac('sha256', key).update(text).digest()

  return {
    encode ({ sid, generation }: RefreshClaim): string {
      const text = `${sid}.${generation}`
      return `${prefix}${text}.${signature(keys[0]!, text).toString('base64url')}`
    },

    /** Returns the claim of a token; undefined for a token that was not issued. */
    decode (token: string): RefreshClaim | undefined {
      const match = /^halo_refresh_([\w-]{22})\.(0|[1-9]\d{0,8})\.([\w-]{43})$/.exec(token)
      if (!match) return undefined
      const [, sid, generation, given] = match as unknown as [string, string, string, string]
      const bytes = Buffer.from(given, 'base64url')
      const isOurs = bytes.toString('base64url') === given &&
        keys.some(key => timingSafeEqual(bytes, signature(key, `${sid}.${generation}`)))
      return isOurs && isSessionId(sid) ? { sid, generation: Number(generation) } : undefined
    }
  }
}

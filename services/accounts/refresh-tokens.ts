import { createHmac, timingSafeEqual } from 'node:crypto'
import { isSessionId } from './access-tokens.ts'

/** Which refresh of which session a token is for. */
export interface RefreshClaim {
  sid: string
  /** How often the session was refreshed before. */
  generation: number
}

/** Tells a refresh token from other secrets, for people and for scanners of leaked ones. */
const prefix = 'halo_refresh_'

export type RefreshTokens = ReturnType<typeof createRefreshTokens>

/**
 * Refresh tokens name a session and a generation of it, and are signed: nobody but us can make one, so that one
 * that comes a second time was really given out, and none of them has to be kept in the database, where it could
 * be stolen. A repeated refresh of the same generation gives the same next token.
 *
 * @param secrets the first signs, all of them verify
 */
export function createRefreshTokens (secrets: readonly string[]) {
  const keys = secrets.map(secret => createHmac('sha256', secret).update('HALO refresh tokens').digest())
  const signature = (key: Buffer, text: string): Buffer => createHmac('sha256', key).update(text).digest()

  return {
    encode ({ sid, generation }: RefreshClaim): string {
      const text = `${sid}.${generation}`
      return `${prefix}${text}.${signature(keys[0]!, text).toString('base64url')}`
    },

    /** What a token is for; undefined for one that was not given out. */
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

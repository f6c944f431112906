import { createHmac } from 'node:crypto'

/**
 * An access token for a user, as the Go service signed it with this secret; good for two hours and, to be another
 * one, some seconds more.
 */
export function signToken (secret: string, userId: number, { jitter = 0 } = {}): string {
  const encode = (value: object) => Buffer.from(JSON.stringify(value)).toString('base64url')
  const now = Math.floor(Date.now() / 1000)
  const claims = {
    user_id: userId,
    email: `${userId}@example.com`,
    username: `user${userId}`,
    iat: now,
    nbf: now - 60,
    exp: now + 7200 + jitter
  }
  const head = `${encode({ alg: 'HS256', typ: 'JWT' })}.${encode(claims)}`
  return `${head}.${createHmac('sha256', secret).update(head).digest('base64url')}`
}

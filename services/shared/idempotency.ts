import { createHash } from 'node:crypto'

/** One use of an Idempotency-Key: a hash of its scope and key, and a hash of the payload. */
export interface IdempotentUse {
  use: string
  fingerprint: string
}

/**
 * Returns the use of an Idempotency-Key.
 *
 * @param scope whose key it is and for what: the same key in another scope is another one
 */
export const useOf = (scope: string, key: string, payload: unknown): IdempotentUse => ({
  use: hash(`${scope}:${key}`),
  fingerprint: hash(JSON.stringify(payload, inOrder) ?? '')
})

/** The order of the members of an object says nothing. */
const inOrder = (name: string, value: unknown): unknown =>
  typeof value === 'object' && value !== null && !Array.isArray(value)
    ? Object.fromEntries(Object.entries(value).sort(([a], [b]) => a < b ? -1 : 1))
    : value

const hash = (text: string): string => createHash('sha256').update(text).digest('base64url')

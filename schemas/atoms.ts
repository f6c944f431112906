import { Type } from '@sinclair/typebox'

/** Parts of other schemas. The formats are defined in plugins/validation.ts. */

export const Id = Type.Integer({ minimum: 1, maximum: Number.MAX_SAFE_INTEGER, description: 'Id', examples: [42] })

/** An id in a path: a positive integer without sign or leading zeros. */
export const PathId = (description: string) =>
  Type.Integer({ minimum: 1, maximum: Number.MAX_SAFE_INTEGER, description, examples: [1] })

export const Timestamp = Type.String({
  format: 'date-time',
  description: 'ISO 8601, UTC',
  examples: ['2026-02-09T12:00:00.000Z']
})

/** One line that others are shown, with a visible character (services/shared/visible-text.ts). */
export const Line = (options: Record<string, unknown>) => Type.String({ format: 'line', ...options })

/** Lines that others are shown; may be empty. */
export const Text = (options: Record<string, unknown>) => Type.String({ format: 'text', ...options })

/** Any characters that can be stored: no NUL, no unpaired surrogate. */
export const Storable = (options: Record<string, unknown>) => Type.String({ format: 'storable', ...options })

export const Count = (description: string, options: Record<string, unknown> = {}) =>
  Type.Integer({ minimum: 0, description, examples: [7], ...options })

/** One of several words. `enum` gives better errors and OpenAPI than TypeBox's union of literals. */
export const OneOf = <const T extends readonly string[]>(words: T, options: Record<string, unknown> = {}) =>
  Type.Unsafe<T[number]>({ type: 'string', enum: [...words], ...options })

/** `security` of a route with an optional token. */
export const optionalToken: Record<string, string[]>[] = [{}, { bearer: [] }]

/** The header Idempotency-Key, with what it does on the route. */
export const IdempotencyKey = (description: string) =>
  Type.Optional(
    Type.String({
      minLength: 1,
      maxLength: 255,
      description: `${description}; any text that the client has not used before, such as a random UUID`
    })
  )

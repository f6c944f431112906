import { Type } from '@sinclair/typebox'

/**
 * Parts of other schemas. `format: 'text'` refuses what PostgreSQL cannot store (NUL) and what UTF-8 cannot encode
 * (unpaired surrogates); plugins/validation.ts defines it.
 */

export const Id = Type.Integer({ minimum: 1, maximum: Number.MAX_SAFE_INTEGER, description: 'Id', examples: [42] })

/** An id in a path: a positive integer without sign or leading zeros. */
export const PathId = (description: string) =>
  Type.Integer({ minimum: 1, maximum: Number.MAX_SAFE_INTEGER, description, examples: [1] })

export const Timestamp = Type.String({
  format: 'date-time',
  description: 'ISO 8601, UTC',
  examples: ['2026-02-09T12:00:00.000Z']
})

export const Text = (options: Record<string, unknown>) => Type.String({ format: 'text', ...options })

export const Count = (description: string, options: Record<string, unknown> = {}) =>
  Type.Integer({ minimum: 0, description, examples: [7], ...options })

/** One of several words. `enum` gives better errors and OpenAPI than TypeBox's union of literals. */
export const OneOf = <const T extends readonly string[]>(words: T, options: Record<string, unknown> = {}) =>
  Type.Unsafe<T[number]>({ type: 'string', enum: [...words], ...options })

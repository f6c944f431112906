import { createHmac, timingSafeEqual } from 'node:crypto'
import { ApiError } from '../shared/errors.ts'

/** A position in a list that is ordered by time and id, newest first. */
export interface Position {
  /** Microseconds since 1970, as exact as PostgreSQL keeps them. */
  createdMicros: number
  id: number
}

export type Cursors = ReturnType<typeof createCursors>

const signatureBytes = 12

/**
 * Positions as texts that clients hand back: signed, and bound to the filters of their list, so that one that
 * was made up, altered or carried over to another list is refused and not misunderstood.
 *
 * @param secret the service's own; a key for cursors alone is derived from it
 */
export function createCursors (secret: string) {
  const key = createHmac('sha256', secret).update('halo:cursors:1').digest()

  const sign = (place: Buffer, filters: string): Buffer =>
    createHmac('sha256', key).update(place).update(filters).digest().subarray(0, signatureBytes)

  return {
    /** @param filters text that identifies the list: the same filters, the same text */
    encode ({ createdMicros, id }: Position, filters: string): string {
      const place = Buffer.alloc(16)
      place.writeBigInt64BE(BigInt(createdMicros), 0)
      place.writeBigInt64BE(BigInt(id), 8)
      return Buffer.concat([place, sign(place, filters)]).toString('base64url')
    },

    /** @throws ApiError `invalid_cursor` for what `encode` has not made for these filters */
    decode (cursor: string, filters: string): Position {
      const bytes = Buffer.from(cursor, 'base64url')
      // Base64 has several spellings of the same bytes; only the one that was given out is taken.
      if (bytes.length !== 16 + signatureBytes || bytes.toString('base64url') !== cursor) {
        throw new ApiError('invalid_cursor')
      }
      const place = bytes.subarray(0, 16)
      if (!timingSafeEqual(bytes.subarray(16), sign(place, filters))) throw new ApiError('invalid_cursor')
      return { createdMicros: Number(place.readBigInt64BE(0)), id: Number(place.readBigInt64BE(8)) }
    }
  }
}

import { createHmac, timingSafeEqual } from 'node:crypto'
import { ApiError } from '../shared/errors.ts'

/** A position in a list that is ordered by time and id, newest first. */
export interface Position {
  /** Microseconds since 1970, as exact as PostgreSQL keeps them. */
  createdMicros: bigint
  id: number
}

export type Cursors = ReturnType<typeof createCursors>

const signatureBytes = 12

/**
 * Cursors: positions as texts that clients send back. They are signed, and bound to the filters of their list, so that
 * one that was made up, altered, or is of another list is refused.
 *
 * @param secrets the first signs; all of them verify. A key for cursors alone is derived from each
 */
export function createCursors (secrets: readonly string[]) {
  const keys = secrets.map(secret => createHmac('sha256', secret).update('halo:cursors:1').digest())

  const sign = (key: Buffer, place: Buffer, filters: string): Buffer =>
    createHmac('sha256', key).update(place).update(filters).digest().subarray(0, signatureBytes)

  return {
    /** @param filters text that identifies the list: the same filters, the same text */
    encode ({ createdMicros, id }: Position, filters: string): string {
      const place = Buffer.alloc(16)
      place.writeBigInt64BE(createdMicros, 0)
      place.writeBigInt64BE(BigInt(id), 8)
      return Buffer.concat([place, sign(keys[0]!, place, filters)]).toString('base64url')
    },

    /** @throws ApiError `invalid_cursor` for what `encode` has not made for these filters */
    decode (cursor: string, filters: string): Position {
      const bytes = Buffer.from(cursor, 'base64url')
      // Base64 has several spellings of the same bytes; only the one that was given out is taken.
      if (bytes.length !== 16 + signatureBytes || bytes.toString('base64url') !== cursor) {
        throw new ApiError('invalid_cursor')
      }
      const place = bytes.subarray(0, 16)
      const signature = bytes.subarray(16)
      if (!keys.some(key => timingSafeEqual(signature, sign(key, place, filters)))) throw new ApiError('invalid_cursor')
      return { createdMicros: place.readBigInt64BE(0), id: Number(place.readBigInt64BE(8)) }
    }
  }
}

/** Writes microseconds since 1970 as PostgreSQL reads a timestamp, exactly, from year 1 to 9999. */
export function timestampOf (micros: bigint): string {
  const fraction = ((micros % 1000n) + 1000n) % 1000n
  const ms = Number((micros - fraction) / 1000n)
  return new Date(ms).toISOString().replace('Z', `${String(fraction).padStart(3, '0')}Z`)
}

import { createHash } from 'node:crypto'
import { gzipSync } from 'node:zlib'

/** A response that never changes while the process runs: serialised and compressed once. */
export interface StaticResponse {
  body: Buffer
  /** Undefined if compressing saves little. */
  compressed: Buffer | undefined
  /** Strong validator of the uncompressed bytes (RFC 9110 §8.8.3). */
  etag: string
  contentType: string
}

/** Largest ratio of compressed to plain size at which the compressed form is kept. */
const worthwhile = 0.9

export function createStaticResponse (body: Buffer, contentType: string): StaticResponse {
  const compressed = gzipSync(body, { level: 9 })
  return {
    body,
    compressed: compressed.length < body.length * worthwhile ? compressed : undefined,
    etag: `"${createHash('sha1').update(body).digest('base64url')}"`,
    contentType
  }
}

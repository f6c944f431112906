import type { ServerResponse } from 'node:http'
import { STATUS_CODES, validateHeaderName, validateHeaderValue, type ResponseInternals } from './node-http.ts'

/**
 * Fields of a head as they go over the wire (RFC 9112 §5), to be joined with others and given to `writeSerializedHead`.
 *
 * @param fields names and values in turn
 * @throws TypeError for a name or a value that HTTP does not allow
 */
export function serializeFields (fields: string[]): string {
  const lines: string[] = []
  for (let index = 0; index < fields.length; index += 2) {
    const name = fields[index]!
    const value = fields[index + 1]!
    validateHeaderName(name)
    validateHeaderValue(name, value)
    lines.push(name, ': ', value, '\r\n')
  }
  // In one piece, which += would not give: it is copied for each answer.
  return lines.join('')
}

const statusLines = new Map(Object.entries(STATUS_CODES).map(([status, reason]) => [Number(status), `HTTP/1.1 ${status} ${reason}\r\n`]))

/**
 * Writes the head of an answer whose fields are text already. writeHead() checks and joins each field of each answer anew,
 * which is a tenth of what a hot read costs (npm run bench -- --scenario hot-video, before and after). Date, Connection and
 * Keep-Alive come from Node as they do with writeHead().
 *
 * @param length bytes of the body; undefined for an answer that has none
 * @throws Error when the answer has a head already
 */
export function writeSerializedHead (response: ServerResponse, status: number, fields: string, length: number | undefined): void {
  const internals = response as ServerResponse & ResponseInternals
  if (response.headersSent) throw new Error('This answer has a head already')
  let head = statusLines.get(status)! + fields
  response.statusCode = status
  if (length === undefined) internals._hasBody = false
  else {
    // So Node keeps a connection of HTTP/1.0 as well: what has a length is never sent in chunks.
    response.useChunkedEncodingByDefault = true
    if (internals._hasBody) internals._contentLength = length
    // To HEAD: of a body that is not sent.
    else head += `content-length: ${length}\r\n`
  }
  internals._storeHeader(head)
}

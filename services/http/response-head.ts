import type { IncomingMessage, ServerResponse } from 'node:http'
import {
  STATUS_CODES,
  ServerResponse as NodeServerResponse,
  validateHeaderName,
  validateHeaderValue
} from './node-http.ts'

/**
 * Serialises header fields as they go over the wire (RFC 9112 §5).
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
  // Joined, not concatenated: V8 would keep the pieces, and copy them for each response.
  return lines.join('')
}

/** Members of a response that Node's documentation does not name (lib/_http_outgoing.js). */
interface ResponseInternals {
  /** What writeHead() ends in: adds the fields of the connection and keeps the head until the body is sent. */
  _storeHeader(head: string): void
  /** Length of the body in bytes, when it is known before it is sent. */
  _contentLength: number | null
  /** False for a response without a body, whatever is written. */
  _hasBody: boolean
}

const hasStoreHeader = '_storeHeader' in NodeServerResponse.prototype

const statusLines = new Map(
  Object.entries(STATUS_CODES).map(([status, reason]) => [Number(status), `HTTP/1.1 ${status} ${reason}\r\n`])
)

/** The service's responses: they can be told to close their connection, and take a head as text. */
export const HeadResponse = class
  extends (NodeServerResponse as unknown as new(request: IncomingMessage) => ServerResponse & ResponseInternals) {
  /** Whether the process drains: then every response says `Connection: close`. */
  get isDraining (): boolean {
    return false
  }

  override writeHead (...args: unknown[]): this {
    if (this.isDraining) this.shouldKeepAlive = false
    return super.writeHead(...args as Parameters<ServerResponse['writeHead']>)
  }

  writeTextHead (status: number, fields: string, length: number | undefined): void {
    if (this.headersSent) throw new Error('The head of this response has been sent')
    if (this.isDraining) this.shouldKeepAlive = false
    let head = statusLines.get(status)! + fields
    this.statusCode = status
    if (length === undefined) this._hasBody = false
    else {
      // Keeps a connection of HTTP/1.0 open as well: a response with a length is never sent in chunks.
      this.useChunkedEncodingByDefault = true
      if (this._hasBody) this._contentLength = length
      // For HEAD: the length of a body that is not sent.
      else head += `content-length: ${length}\r\n`
    }
    this._storeHeader(head)
  }
}

/**
 * Writes the head of a response whose fields are text already. Node's writeHead() validates and joins each field of
 * each response, which takes 8 to 10 µs of the 20 µs of a bare response (measured for issue 18). Date, Connection and
 * Keep-Alive come from Node either way. A response of `app.inject`, and a Node without the private method, get the
 * same head by writeHead().
 *
 * @param length bytes of the body; undefined for a response without one
 * @throws Error when the head has been sent already
 */
export function writeSerializedHead (
  response: ServerResponse,
  status: number,
  fields: string,
  length: number | undefined
): void {
  if (hasStoreHeader && response instanceof HeadResponse) response.writeTextHead(status, fields, length)
  else {
    response.writeHead(status, [
      ...parseFields(fields),
      ...length === undefined ? [] : ['content-length', String(length)]
    ])
  }
}

function parseFields (fields: string): string[] {
  return fields.split('\r\n').slice(0, -1).flatMap(line => {
    const end = line.indexOf(': ')
    return [line.slice(0, end), line.slice(end + 2)]
  })
}

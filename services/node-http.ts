import type { IncomingMessage, ServerResponse } from 'node:http'

/**
 * `node:http`, taken without `import`: an ES module that imports it evaluates all of its exports, WebSocket's among them, and
 * with it Node loads undici, which nobody here uses.
 */
const http = process.getBuiltinModule('node:http')

export const { STATUS_CODES, createServer, validateHeaderName, validateHeaderValue } = http

/** What Node's documentation does not tell of an answer, and serialized-head.ts needs (lib/_http_outgoing.js). */
export interface ResponseInternals {
  /** What writeHead() ends in: takes the head until the end of its fields, adds those of the connection, and keeps it until the body is sent. */
  _storeHeader (head: string, fields?: unknown): void
  /** The length of a body that is known before it is sent. */
  _contentLength: number | null
  /** False of answers that have no body, whatever is written. */
  _hasBody: boolean
}

// Rather no service than one whose every answer fails.
if (!('_storeHeader' in http.ServerResponse.prototype)) throw new Error(`Node ${process.version} writes heads otherwise than Node 24 does`)

export const NodeServerResponse = http.ServerResponse as unknown as new (request: IncomingMessage) => ServerResponse & ResponseInternals

import { randomUUID } from 'node:crypto'
import type { IncomingMessage } from 'node:http'
import type { Socket } from 'node:net'
import type { ConnectionError, FastifyError, FastifyInstance, FastifyReply, FastifyRequest } from 'fastify'
import fp from 'fastify-plugin'
import { catalogue, type ErrorCode } from '../schemas/error-catalogue.ts'
import { ApiError, problem } from '../services/shared/errors.ts'
import { STATUS_CODES } from '../services/http/node-http.ts'
import { labelsOf } from '../services/runtime/metrics.ts'
import { toViolations } from '../services/http/violations.ts'

declare module 'fastify' {
  interface FastifyInstance {
    /** Counts a request that a rate limit refused. */
    countLimited (labels: string): void
  }
}

const contentType = 'application/problem+json; charset=utf-8'

/** Error codes of wrong path parameters; a wrong value elsewhere is `invalid_request`. */
const codeOfParameter: Record<string, ErrorCode> = { id: 'invalid_id', user_id: 'invalid_id', metric: 'invalid_metric' }

const partOfContext = { body: 'body', querystring: 'query', params: 'path', headers: 'headers' } as const

const codeOfStatus: Record<number, ErrorCode> = {
  400: 'invalid_request',
  401: 'unauthorized',
  // Of @fastify/static: a path that leaves its folder.
  403: 'not_found',
  404: 'not_found',
  405: 'method_not_allowed',
  408: 'request_timeout',
  413: 'payload_too_large',
  415: 'unsupported_media_type',
  429: 'rate_limit_exceeded',
  431: 'headers_too_large',
  503: 'service_unavailable'
}

/** Bytes of an unreadable request in which its Origin is looked for. */
const maxScanned = 32 * 1024

/** Converts errors to HTTP: every response that is not 2xx or 304 comes from here. */
export default fp(async function errors (app) {
  app.server.on('connect', (request: IncomingMessage, socket: Socket) => {
    answerOnSocket(
      app,
      socket,
      new ApiError('method_not_allowed', { message: 'This service is no proxy: it does not take CONNECT' }),
      'CONNECT'
    )
  })
  app.decorate('countLimited', app.meters.counts('halo_requests_limited_total', 'Requests that a rate limit refused, by policy'))
  app.setErrorHandler((error, request, reply) => sendError(error, request, reply))
  app.setNotFoundHandler((request, reply) => sendError(new ApiError('not_found'), request, reply))
}, { name: 'halo:errors', dependencies: ['halo:config', 'halo:meters'] })

/**
 * Answers a request whose URL the router cannot decode. It has no route and reaches no hook, so this function calls
 * the request context and the rate limiter, and sets the common headers.
 */
export function frameworkErrors (error: FastifyError, request: FastifyRequest, reply: FastifyReply): void {
  const { server } = request
  server.requests.begin(request, reply)
  const refusal = server.takeAddressToken(request)
  reply.headers(server.responseHeaders.of(request))
  sendError(refusal ?? error, request, reply)
}

/**
 * Answers what Node cannot parse as a request (not HTTP, too slow, too large): there is a socket and no response
 * object.
 */
export function clientErrorHandler (this: FastifyInstance, error: ConnectionError, socket: Socket): void {
  if (error.code === 'ECONNRESET' || socket.destroyed) return
  const code: ErrorCode = error.code === 'HPE_HEADER_OVERFLOW'
    ? 'headers_too_large'
    : error.code === 'ERR_HTTP_REQUEST_TIMEOUT'
      ? 'request_timeout'
      : 'invalid_request'
  if (!socket.writable) {
    socket.destroy()
    return
  }
  answerOnSocket(
    this,
    socket,
    new ApiError(code, code === 'invalid_request' ? { message: 'This is not an HTTP/1.1 request' } : {}),
    error.code,
    originIn(error.rawPacket)
  )
}

/** The Origin in the bytes that Node could not read, so that a page can read the answer. */
const originIn = (bytes: unknown): string | undefined =>
  Buffer.isBuffer(bytes)
    ? /^origin:[ \t]{0,9}([\x21-\x7e]{1,300})\r?$/im.exec(bytes.toString('latin1', 0, maxScanned))?.[1]
    : undefined

/** Writes a problem to a socket, with the common headers, and its log line. */
function answerOnSocket (
  app: FastifyInstance,
  socket: Socket,
  refusal: ApiError,
  cause: string | undefined,
  origin?: string
): void {
  const requestId = randomUUID()
  const body = JSON.stringify(problem(refusal, app.config?.publicUrl ?? '', '', requestId))
  const headers = {
    ...app.securityHeaders,
    ...app.corsHeaders?.(origin),
    'x-request-id': requestId,
    'content-type': contentType,
    'cache-control': 'no-store',
    'content-length': Buffer.byteLength(body),
    connection: 'close'
  }
  socket.end([
    `HTTP/1.1 ${refusal.statusCode} ${STATUS_CODES[refusal.statusCode]}`,
    ...Object.entries(headers).map(([name, value]) => `${name}: ${value}`),
    '',
    body
  ].join('\r\n'))
  app.requests?.logUnreadable({
    reqId: requestId,
    status: refusal.statusCode,
    error: refusal.code,
    cause,
    ip: socket.remoteAddress
  })
}

function sendError (error: unknown, request: FastifyRequest, reply: FastifyReply): FastifyReply {
  const answer = toApiError(error)
  const { server } = request
  for (const policy of answer.violatedPolicies ?? []) server.countLimited(labelsOf({ policy }))
  const reqId = request.id
  const { traceIds } = request
  if (answer.statusCode === 500) {
    server.log.error({ reqId, ...traceIds, err: error }, 'unexpected error')
  } else if (answer.statusCode === 503 && !request.raw.destroyed && answer.code !== 'server_busy') {
    server.log.warn({ reqId, ...traceIds, error: answer.code, cause: String(answer.cause ?? '') }, answer.message)
  }
  reply.code(answer.statusCode).headers({ ...answer.headers, 'content-type': contentType, 'cache-control': 'no-store' })
  if (answer.retryAfter !== undefined) reply.header('retry-after', String(answer.retryAfter))
  // RFC 6750 §3: without a token the scheme only, with one the reason.
  if (answer.statusCode === 401) {
    reply.header(
      'www-authenticate',
      `Bearer realm="halo"${request.headers.authorization === undefined ? '' : ', error="invalid_token"'}`
    )
  }
  return reply.send(problem(answer, server.config.publicUrl, request.url.split('?', 1)[0]!, reqId))
}

function toApiError (error: unknown): ApiError {
  if (error instanceof ApiError) return error
  const { validation, validationContext, statusCode, message } = error as FastifyError
  if (validation) {
    const part = partOfContext[validationContext as keyof typeof partOfContext] ?? 'body'
    const violations = toViolations(validation, part)
    const first = violations[0]
    const code = part === 'path' ? codeOfParameter[first?.pointer.slice(1) ?? ''] : undefined
    if (code) return new ApiError(code, { violations })
    const name = first?.pointer.slice(1) || part
    return new ApiError('invalid_request', { message: `${name} ${first?.detail ?? 'is not valid'}`, violations })
  }
  // The status of the error, not of the reply, which is still 200.
  const code = statusCode === undefined
    ? undefined
    : codeOfStatus[statusCode] ?? (statusCode > 400 && statusCode < 500 ? 'invalid_request' : undefined)
  if (code === undefined || catalogue[code].status >= 500) {
    return code ? new ApiError(code, { cause: error }) : new ApiError('internal_error', { cause: error })
  }
  return new ApiError(code, code === 'invalid_request' ? { message, cause: error } : { cause: error })
}

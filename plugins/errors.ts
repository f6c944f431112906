import { randomUUID } from 'node:crypto'
import type { IncomingMessage } from 'node:http'
import type { Socket } from 'node:net'
import type { FastifyBaseLogger, FastifyError, FastifyInstance, FastifyReply, FastifyRequest } from 'fastify'
import fp from 'fastify-plugin'
import createRouter from 'find-my-way'
import { ApiError, catalogue, problem, type ErrorCode, type Problem, type Violation } from '../services/errors.ts'
import { loggableUrl } from '../services/loggable.ts'
import { STATUS_CODES } from '../services/node-http.ts'
import { serializeFields } from '../services/serialized-head.ts'

const contentType = 'application/problem+json; charset=utf-8'

/** Which code a wrong value in the path gets; a wrong value elsewhere is `invalid_request`. */
const codeOfParameter: Record<string, ErrorCode> = { id: 'invalid_id', user_id: 'invalid_id', metric: 'invalid_metric' }

const partOfContext = { body: 'body', querystring: 'query', params: 'path', headers: 'headers' } as const

const codeOfStatus: Record<number, ErrorCode> = {
  400: 'invalid_request',
  401: 'unauthorized',
  // Of @fastify/static: a path that leads out of its folder.
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

/** The one place that turns errors into HTTP: every answer that is not 2xx or 304 comes from here. */
export default fp(async function errors (app) {
  answerForNode(app)
  app.setErrorHandler((error, request, reply) => sendError(app, error, request, reply))

  const methodsOf = collectMethods(app)
  app.setNotFoundHandler((request, reply) => {
    const allowed = methodsOf(request.url)
    // A route for files takes every path below it, also of files that there are not.
    const error = allowed.length > 0 && !allowed.includes(request.method)
      ? new ApiError('method_not_allowed', {
        message: `This address takes ${allowed.join(', ')}, not ${request.method}`,
        headers: { allow: allowed.join(', ') }
      })
      : new ApiError('not_found')
    return sendError(app, error, request, reply)
  })
}, { name: 'halo:errors', dependencies: ['halo:config'] })

/**
 * For what fails before there is a route: a path that cannot be decoded, for example. No hook has run for it,
 * so what every answer has is done here: the headers, and the limiter (by the peer's address: without a route
 * Fastify believes no proxy).
 */
export function frameworkErrors (error: FastifyError, request: FastifyRequest, reply: FastifyReply): void {
  const { server } = request
  reply.headers({ ...server.securityHeaders, ...server.corsHeaders(request.headers.origin), 'x-request-id': request.id })
  sendError(server, server.rateLimitRefusal(request, reply) ?? error, request, reply)
  request.log.info({ method: request.method, url: loggableUrl(request.raw.url ?? ''), status: reply.statusCode, ip: server.clientAddressOf(request.raw) }, 'request')
}

/** For what is not HTTP, or too slow or too large to become a request: there is only a socket to answer on. */
export function clientErrorHandler (this: FastifyInstance, error: Error & { code?: string }, socket: Socket): void {
  if (error.code === 'ECONNRESET' || socket.destroyed) return
  const code: ErrorCode = error.code === 'HPE_HEADER_OVERFLOW'
    ? 'headers_too_large'
    : error.code === 'ERR_HTTP_REQUEST_TIMEOUT' ? 'request_timeout' : 'invalid_request'
  if (!socket.writable) {
    socket.destroy()
    return
  }
  answerOnSocket(this, socket, new ApiError(code, code === 'invalid_request' ? { message: 'This is not an HTTP/1.1 request' } : {}), error.code)
}

/** Answers where Node has made no response, with what every answer has, and writes the line of the log. */
function answerOnSocket (app: FastifyInstance, socket: Socket, refusal: ApiError, cause: string | undefined): void {
  const requestId = randomUUID()
  const body = JSON.stringify(problem(refusal, app.config?.publicUrl ?? '', '', requestId))
  const headers = {
    ...app.securityHeaders,
    'x-request-id': requestId,
    'content-type': contentType,
    'cache-control': 'no-store',
    'content-length': Buffer.byteLength(body),
    connection: 'close'
  }
  socket.end([
    `HTTP/1.1 ${refusal.statusCode} ${STATUS_CODES[refusal.statusCode]}`,
    ...Object.entries(headers).map(([name, value]) => `${name}: ${value}`),
    '', body
  ].join('\r\n'))
  app.log?.info({ reqId: requestId, status: refusal.statusCode, error: refusal.code, cause, ip: socket.remoteAddress }, 'request refused: it could not be read')
}

/**
 * Why a request that Node has parsed is refused before anything else (RFC 9112 §3.2): without exactly one Host, the
 * proxies on its way may have read another host than this service does.
 */
export function hostProblem ({ rawHeaders, headers, httpVersionMinor }: IncomingMessage): ApiError | undefined {
  if (headers.host === undefined) {
    return httpVersionMinor === 0 ? undefined : new ApiError('invalid_request', { message: 'An HTTP/1.1 request has a Host header' })
  }
  let count = 0
  for (let index = 0; index < rawHeaders.length; index += 2) {
    const name = rawHeaders[index]!
    if (name.length === 4 && name.toLowerCase() === 'host') count++
  }
  return count > 1 ? new ApiError('invalid_request', { message: 'A request has one Host header' }) : undefined
}

/** Answers what Node would answer, or close, by itself: an expectation that is not 100-continue, and CONNECT. */
function answerForNode (app: FastifyInstance): void {
  app.server.on('checkExpectation', (request, response) => {
    refused.add(request)
    app.server.emit('request', request, response)
  })
  app.server.on('connect', (request: IncomingMessage, socket: Socket) => {
    answerOnSocket(app, socket, new ApiError('method_not_allowed', { message: 'This service is no proxy: it does not take CONNECT' }), 'CONNECT')
  })
}

/** Requests with an Expect that is not 100-continue (RFC 9110 §10.1.1). */
const refused = new WeakSet<IncomingMessage>()

/** Whether a request has an Expect that cannot be met. */
export const hasUnmetExpectation = (request: IncomingMessage): boolean => refused.has(request)

function sendError (app: FastifyInstance, error: unknown, request: FastifyRequest, reply: FastifyReply): FastifyReply {
  const { status, headers, body } = answerError(app, error, {
    url: request.url, requestId: request.id, hasToken: request.headers.authorization !== undefined, isCutOff: request.raw.destroyed, log: request.log
  })
  return reply.code(status).headers(headers).send(body)
}

/** What of a request its error's answer depends on. */
export interface FailedRequest {
  url: string
  requestId: string
  hasToken: boolean
  /** Whether the client has left. */
  isCutOff: boolean
  log: FastifyBaseLogger
}

/** The answer to a request that failed, and its line in the log where an operator should know. */
export function answerError (app: FastifyInstance, error: unknown, { url, requestId, hasToken, isCutOff, log }: FailedRequest): { status: number, headers: Record<string, string>, body: Problem } {
  const answer = toApiError(error)
  if (answer.statusCode === 500) {
    log.error({ err: error }, 'unexpected error')
  } else if (answer.statusCode === 503 && !isCutOff) {
    log.warn({ error: answer.code, cause: String(answer.cause ?? '') }, answer.message)
  }
  const headers: Record<string, string> = { ...answer.headers, 'content-type': contentType, 'cache-control': 'no-store' }
  if (answer.retryAfter !== undefined) headers['retry-after'] = String(answer.retryAfter)
  // RFC 6750 §3: the scheme alone when no token came, the reason when one did.
  if (answer.statusCode === 401) headers['www-authenticate'] = `Bearer realm="halo"${hasToken ? ', error="invalid_token"' : ''}`
  return { status: answer.statusCode, headers, body: problem(answer, app.config.publicUrl, url.split('?', 1)[0]!, requestId) }
}

/** An answer to many requests alike, of which only the path and the id differ. */
export interface Refusal {
  status: number
  /** As text (serialized-head.ts). */
  fields: string
  body: (path: string, requestId: string) => string
}

/** What a request is refused with that has no token to be told about. */
export function createRefusal (app: FastifyInstance, error: ApiError): Refusal {
  const { status, headers, body } = answerError(app, error, { url: '/', requestId: '', hasToken: false, isCutOff: true, log: app.log })
  // An id has no character that JSON would write otherwise (app.ts).
  const [start, middle, end] = JSON.stringify({ ...body, instance: '\u0000', request_id: '\u0000' }).split('"\\u0000"')
  return {
    status,
    fields: serializeFields(Object.entries(headers).flat()),
    body: (path, requestId) => `${start}${JSON.stringify(path)}${middle}"${requestId}"${end}`
  }
}

function toApiError (error: unknown): ApiError {
  if (error instanceof ApiError) return error
  const { validation, validationContext, statusCode, message } = error as FastifyError
  if (validation) {
    const part = partOfContext[validationContext as keyof typeof partOfContext] ?? 'body'
    const violations: Violation[] = validation.slice(0, 20).map(({ instancePath, params, message, keyword }) => ({
      in: part,
      pointer: `${instancePath}${memberOf(keyword, params)}`,
      detail: detailOf(keyword, params) ?? message ?? 'is not valid'
    }))
    const first = violations[0]
    const code = part === 'path' ? codeOfParameter[first?.pointer.slice(1) ?? ''] : undefined
    if (code) return new ApiError(code, { violations })
    const name = first?.pointer.slice(1) || part
    return new ApiError('invalid_request', { message: `${name} ${first?.detail ?? 'is not valid'}`, violations })
  }
  // An error's own status, never the reply's, which is still 200 here.
  const code = statusCode === undefined ? undefined : codeOfStatus[statusCode] ?? (statusCode > 400 && statusCode < 500 ? 'invalid_request' : undefined)
  if (code === undefined || catalogue[code].status >= 500) {
    return code ? new ApiError(code, { cause: error }) : new ApiError('internal_error', { cause: error })
  }
  return new ApiError(code, code === 'invalid_request' ? { message, cause: error } : { cause: error })
}

/** The member that an error of an object is about, as a part of a JSON pointer (RFC 6901). */
function memberOf (keyword: string, params: Record<string, unknown>): string {
  const name = keyword === 'required' ? params['missingProperty'] : keyword === 'additionalProperties' ? params['additionalProperty'] : undefined
  return typeof name === 'string' ? `/${name.slice(0, 100).replaceAll('~', '~0').replaceAll('/', '~1')}` : ''
}

/** What is wrong, where Ajv's own words do not say it. */
function detailOf (keyword: string, params: Record<string, unknown>): string | undefined {
  if (keyword === 'enum') return `must be one of ${(params['allowedValues'] as string[]).join(', ')}`
  if (keyword === 'additionalProperties') return 'is not known here'
  if (keyword === 'minProperties') return 'has nothing in it'
  if (keyword === 'format' && params['format'] === 'http-url') return 'must be an http or https address of at most 2048 characters, without user information, spaces, quotes or backslashes'
  if (keyword === 'format' && params['format'] === 'username') return 'must be of one alphabet, without invisible characters, NUL, half of a surrogate pair, or a space at either end'
  if (keyword === 'format' && params['format'] === 'text') return 'has a character that cannot be stored: NUL or half of a surrogate pair'
  return undefined
}

/** A router of its own that knows which methods an address takes; it is asked only when there is no route. */
function collectMethods (app: FastifyInstance): (url: string) => string[] {
  const router = createRouter({ maxParamLength: 16_384, ignoreTrailingSlash: true })
  const methods = new Set<string>()
  app.addHook('onRoute', ({ method, url }) => {
    for (const one of [method].flat()) {
      // The wildcard of the CORS preflight is no address of its own.
      if (one === 'OPTIONS' || router.hasRoute(one as 'GET', url)) continue
      methods.add(one)
      router.on(one as 'GET', url, () => {})
    }
  })
  return url => {
    const path = url.split('?', 1)[0]!
    return [...methods].filter(method => router.find(method as 'GET', path) !== null).sort()
  }
}

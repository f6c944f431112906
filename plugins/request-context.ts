import { randomBytes } from 'node:crypto'
import type { IncomingMessage } from 'node:http'
import type { Socket } from 'node:net'
import { LogController, type FastifyReply, type FastifyRequest } from 'fastify'
import fp from 'fastify-plugin'
import { createAddresses } from '../services/http/client-address.ts'
import { traceIdsOf, type TraceIds } from '../services/http/trace-context.ts'
import { loggableUrl } from '../services/runtime/log-redaction.ts'
import { labelsOf } from '../services/runtime/metrics.ts'

declare module 'fastify' {
  interface FastifyInstance {
    requests: {
      /** Requests that were received and are neither answered nor aborted. Event streams are not among them. */
      readonly inFlight: number
      /** Requests that were received and are over: answered, refused, or aborted by the client. */
      readonly total: number
      /** Fills the request context. The first hook calls it; `frameworkErrors` does for requests that reach no hook. */
      begin (request: FastifyRequest, reply: FastifyReply): void
      /** The response stays open as an event stream: it does not count as in flight any more. */
      markAsStream(request: FastifyRequest): void
      /** Counts a request that Node could not read, and writes its log line. */
      logUnreadable(
        fields: { reqId: string, status: number, error: string, cause: string | undefined, ip: string | undefined }
      ): void
    }
  }
  interface FastifyRequest {
    /**
     * Address of the client: the peer's, or what the proxies of TRUST_PROXY say. Limits, lockouts and logs use it;
     * Fastify's own `ip` takes an address with a port for another client.
     */
    clientAddress: string
    /** When the request was received: `performance.now()`, in milliseconds. */
    startedAt: number
    isEventStream: boolean
    /** Ids of the trace of which the client says that the request is a part, for log lines. */
    readonly traceIds: TraceIds | undefined
  }
}

/**
 * Fastify's own log lines about requests are off: `request-context` writes one line for each request, when it is
 * over.
 */
export class NoRequestLog extends LogController {
  override incomingRequest (): void {}
  override requestCompleted (): void {}
}

/**
 * The request context (id, client address, start), and one log line and one count for every request when it is over.
 * The `close` event of the response is the one event that happens exactly once whatever becomes of a request;
 * `onResponse` and `onRequestAbort` both miss some.
 */
export default fp(async function requestContext (app) {
  const { log } = app
  const addressOf = createAddresses(app.config.server.trustProxy)
  const queues = new WeakMap<Socket, Set<() => void>>()
  let inFlight = 0
  let total = 0
  const observers = new Map<string, (seconds: number) => void>()
  const duration = app.meters.histogram(
    'halo_http_request_duration_seconds',
    'Duration of requests by route, method and status class; without event streams'
  )
  app.meters.gauge('halo_requests_in_flight', 'Requests in flight, without event streams', 'sum', () => inFlight)
  app.meters.counter('halo_requests_total', 'Requests that are over: answered, refused, or aborted by the client', () => total)
  app.decorateRequest('clientAddress', '')
  app.decorateRequest('startedAt', 0)
  app.decorateRequest('isEventStream', false)
  app.decorateRequest('traceIds', {
    getter () {
      return traceIdsOf(this.headers.traceparent)
    }
  })

  function markAsStream (request: FastifyRequest): void {
    if (request.isEventStream) return
    request.isEventStream = true
    inFlight--
  }

  /** Takes the duration of a request. Labels are of routes and never of a client: their number is bounded. */
  function observe (request: FastifyRequest, status: number, seconds: number): void {
    const route = request.routeOptions.url ?? 'none'
    const { method } = request
    const key = `${method} ${status - status % 100} ${route}`
    let one = observers.get(key)
    if (!one) {
      one = duration(labelsOf({ route, method, status: status === 0 ? 'aborted' : `${Math.floor(status / 100)}xx` }))
      observers.set(key, one)
    }
    one(seconds)
  }

  /**
   * The ends of the pipelined requests of a connection. Their responses wait for their turn and have no socket yet:
   * those that never get one emit no event when the connection is closed.
   */
  function queueOf (socket: Socket): Set<() => void> {
    let queue = queues.get(socket)
    if (!queue) {
      const ends = queue = new Set()
      queues.set(socket, queue)
      socket.once('close', () => {
        for (const end of ends) end()
      })
    }
    return queue
  }

  function begin (request: FastifyRequest, { raw: response }: FastifyReply): void {
    request.clientAddress = addressOf(request.raw)
    request.startedAt = performance.now()
    inFlight++
    response.on('close', onClose)
    const queue = response.socket === null ? queueOf(request.raw.socket) : undefined
    queue?.add(onClose)

    function onClose (): void {
      if (queue) {
        response.off('close', onClose)
        queue.delete(onClose)
      }
      if (!request.isEventStream) inFlight--
      total++
      // A response that is finished has left its socket; that of `app.inject` has a socket that is never destroyed.
      const ms = performance.now() - request.startedAt
      if (!request.isEventStream) observe(request, response.headersSent ? response.statusCode : 0, ms / 1000)
      const isAborted = !response.writableFinished && response.socket?.destroyed !== false && !request.isEventStream
      log.info({
        reqId: request.id,
        method: request.method,
        url: loggableUrl(request.raw.url!),
        status: response.headersSent ? response.statusCode : undefined,
        ms: Math.round(ms * 10) / 10,
        ip: request.clientAddress,
        ...request.traceIds
      }, isAborted ? 'request aborted by the client' : 'request')
    }
  }

  app.decorate('requests', {
    get inFlight () {
      return inFlight
    },
    get total () {
      return total
    },
    begin,
    markAsStream,
    logUnreadable (fields) {
      total++
      log.info(fields, 'request refused: it could not be read')
    }
  })
  app.addHook('onRequest', (request, reply, done) => {
    begin(request, reply)
    done()
  })
}, { name: 'halo:request-context', dependencies: ['halo:config', 'halo:meters'] })

/**
 * Request ids: the client's own `X-Request-Id` when it has a safe form, or else a random prefix of this process and a
 * sequence number.
 */
export function createRequestIds (): (request: IncomingMessage) => string {
  const prefix = randomBytes(4).toString('hex')
  let count = 0
  return ({ headers }) => {
    const given = headers['x-request-id']
    if (typeof given === 'string' && /^[\w.-]{1,64}$/.test(given)) return given
    return `${prefix}-${(count++).toString(36)}`
  }
}

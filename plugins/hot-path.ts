import type { IncomingMessage, ServerResponse } from 'node:http'
import fp from 'fastify-plugin'
import { setArrival, type Arrival } from '../services/arrival.ts'
import { clientKey, createAddresses } from '../services/client-address.ts'
import { ApiError } from '../services/errors.ts'
import { isProbe } from '../services/probes.ts'
import { loggableUrl } from '../services/loggable.ts'
import { serializeFields, writeSerializedHead } from '../services/serialized-head.ts'
import { answerError, createRefusal, hasUnmetExpectation, hostProblem, type Refusal } from './errors.ts'

declare module 'fastify' {
  interface FastifyInstance {
    hotPath: HotPath
  }
}

/** Answers a request whole and returns true, or leaves it as it is and returns false. */
export type Shortcut = (arrival: Arrival, request: IncomingMessage, response: ServerResponse) => boolean

export interface HotPath {
  /** Those whose answer costs little more than a refusal: they are tried first, and refused last. */
  fromMemory: Shortcut[]
  /** What is better than a refusal, for a request that is refused. */
  insteadOfRefusal: Shortcut[]
  /** Tried in their order. */
  shortcuts: Shortcut[]
  /** Sends an answer, with the headers that every answer has, and writes its line in the log. */
  send (arrival: Arrival, request: IncomingMessage, response: ServerResponse, answer: HotAnswer): void
  /** Sends the answer to a request that failed. */
  sendError (arrival: Arrival, request: IncomingMessage, response: ServerResponse, error: unknown): void
}

export interface HotAnswer {
  status: number
  /** As text (serialized-head.ts); the length of the body is not among them. */
  fields: string
  /** Whether Vary is among them, with what CORS says in it. */
  hasVary?: boolean
  body?: string | Buffer | undefined
  /** Bytes of the body, where they are known. */
  length?: number
}

export interface HotPathOptions {
  requestId: (request: IncomingMessage) => string
}

type Listener = (request: IncomingMessage, response: ServerResponse) => void

/**
 * The way of every request until it is known to be Fastify's: the limiter and the admission, which refuse for little,
 * and the shortcuts. Requests of the few kinds that most are of are answered before Fastify makes a request and a
 * reply of them, with the same headers and log line (hot-reads.ts, hot-writes.ts). Whatever is not exactly of
 * such a kind goes the usual way, which answers alike: test/plugins/hot-path.test.ts holds the two against each other.
 * It takes a hot read from 1.8 to 1.2 times the CPU of bare node:http (npm run bench).
 */
export default fp<HotPathOptions>(async function hotPath (app, { requestId }) {
  const { admission, limits, limitFields, log, securityHeaders, corsHeaders } = app
  const addressOf = createAddresses(app.config.server.trustProxy)
  const fromMemory: Shortcut[] = []
  const insteadOfRefusal: Shortcut[] = []
  const shortcuts: Shortcut[] = []
  const commonFields = new Map<object, { all: string, withoutVary: string }>()

  /** The fields that every answer to a page of an origin has. */
  function commonFieldsFor (origin: string | undefined): { all: string, withoutVary: string } {
    const cors = corsHeaders(origin)
    let fields = commonFields.get(cors)
    if (!fields) {
      const all = Object.entries({ ...securityHeaders, ...cors })
      fields = { all: serializeFields(all.flat()), withoutVary: serializeFields(all.filter(([name]) => name !== 'vary').flat()) }
      commonFields.set(cors, fields)
    }
    return fields
  }

  const busy = createRefusal(app, new ApiError('server_busy'))
  /** By the seconds after which a further try makes sense. */
  const limited = new Map<number, Refusal>()

  function send (arrival: Arrival, request: IncomingMessage, response: ServerResponse, hotAnswer: HotAnswer): void {
    answer(arrival, request, response, hotAnswer)
    logLine(arrival, request, response, hotAnswer.status)
  }

  function answer (arrival: Arrival, request: IncomingMessage, response: ServerResponse, { status, fields, hasVary, body, length = body === undefined ? undefined : Buffer.byteLength(body) }: HotAnswer): void {
    const { id, addressToken, ownToken } = arrival
    const common = commonFieldsFor(request.headers.origin)
    // An id is of letters, digits, and marks that a head may have (app.ts).
    const all = `x-request-id: ${id}\r\n${hasVary ? common.withoutVary : common.all}${limitFields.serialized(addressToken, ownToken)}${fields}`
    writeSerializedHead(response, status, all, length)
    // Text of as many bytes as characters is ASCII, and Node writes it faster when it is told.
    if (typeof body === 'string') response.end(body, body.length === length ? 'latin1' : 'utf8')
    else response.end(body)
  }

  function logLine (arrival: Arrival, request: IncomingMessage, response: ServerResponse, status: number): void {
    log.info(lineOf(arrival, request, status), response.destroyed ? 'request cut off' : 'request')
  }

  const lineOf = ({ id, ip, at }: Arrival, request: IncomingMessage, status?: number) =>
    ({ reqId: id, method: request.method, url: loggableUrl(request.url!), status, ms: Math.round((performance.now() - at) * 10) / 10, ip })

  function sendError (arrival: Arrival, request: IncomingMessage, response: ServerResponse, error: unknown): void {
    const { status, headers, body } = answerError(app, error, {
      url: request.url!,
      requestId: arrival.id,
      hasToken: request.headers.authorization !== undefined,
      isCutOff: response.destroyed,
      log: log.child({ reqId: arrival.id })
    })
    send(arrival, request, response, { status, fields: serializeFields(Object.entries(headers).flat()), body: JSON.stringify(body) })
  }

  /**
   * Sends the answer to a request that is refused before anything is done for it. It must cost little, or refusing is what
   * the service is busy with: what such answers have in common is written down once.
   */
  function refuse (arrival: Arrival, request: IncomingMessage, response: ServerResponse, refusal: Refusal): void {
    const url = request.url!
    const end = url.indexOf('?')
    const { status, fields } = refusal
    answer(arrival, request, response, { status, fields, body: refusal.body(end === -1 ? url : url.slice(0, end), arrival.id) })
  }

  function refuseForWantOfRoom (arrival: Arrival, request: IncomingMessage, response: ServerResponse): true {
    admission.noteRefusal()
    refuse(arrival, request, response, busy)
    return true
  }

  function arrive (request: IncomingMessage): Arrival {
    const ip = addressOf(request)
    return { id: requestId(request), ip, addressToken: { limit: limits.address, left: limits.address.take(clientKey(ip)) }, at: performance.now() }
  }

  /** Whether a request was answered, or is being answered, before Fastify has met it. */
  function isAnswered (arrival: Arrival, request: IncomingMessage, response: ServerResponse): boolean {
    const { left } = arrival.addressToken
    if (left < 0 && !isProbe(request)) {
      const seconds = Math.ceil(-left / 1000)
      const refusal = limited.get(seconds) ?? createRefusal(app, limits.address.refusal(-left))
      if (limited.size < 1000) limited.set(seconds, refusal)
      refuse(arrival, request, response, refusal)
      logLine(arrival, request, response, refusal.status)
      return true
    }
    // The limiter comes first: a refusal of it costs less.
    const unreadable = hostProblem(request) ?? (hasUnmetExpectation(request) ? new ApiError('expectation_failed') : undefined)
    if (unreadable) {
      response.shouldKeepAlive = false
      sendError(arrival, request, response, unreadable)
      return true
    }
    if (admission.refusesAnyRequest(request, arrival.at)) return refuseForWantOfRoom(arrival, request, response)
    for (const shortcut of fromMemory) if (shortcut(arrival, request, response)) return true
    if (admission.refusesRequest(request)) {
      for (const shortcut of insteadOfRefusal) if (shortcut(arrival, request, response)) return true
      return refuseForWantOfRoom(arrival, request, response)
    }
    for (const shortcut of shortcuts) {
      if (!shortcut(arrival, request, response)) continue
      admission.track(response)
      return true
    }
    return false
  }

  app.decorate('hotPath', { fromMemory, insteadOfRefusal, shortcuts, send, sendError })

  app.addHook('onReady', async () => {
    const usual = app.server.listeners('request') as Listener[]
    app.server.removeAllListeners('request')
    app.server.on('request', (request, response) => {
      let arrival: Arrival
      try {
        arrival = arrive(request)
        if (isAnswered(arrival, request, response)) return
        setArrival(request, arrival)
      } catch (error) {
        // What no test has found must not end the process.
        log.error({ err: error, url: loggableUrl(request.url!) }, 'unexpected error')
        response.destroy()
        return
      }
      admission.track(response)
      // Fastify tells of none that has not got its answer.
      response.on('close', () => {
        const isStream = response.headersSent && !response.writableEnded
        if (!response.writableFinished && !isStream) log.info(lineOf(arrival, request), 'request cut off')
      })
      for (const listener of usual) listener.call(app.server, request, response)
    })
  })
}, { name: 'halo:hot-path', dependencies: ['halo:admission', 'halo:config', 'halo:cors', 'halo:errors', 'halo:rate-limit', 'halo:security-headers'] })

/** Whether a request brings a body, or may. */
export function hasBody ({ headers }: IncomingMessage): boolean {
  const length = headers['content-length']
  return (length !== undefined && length !== '0') || headers['transfer-encoding'] !== undefined
}

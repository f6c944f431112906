import type { IncomingMessage, ServerResponse } from 'node:http'
import fp from 'fastify-plugin'
import { clientKey, createAddresses } from '../services/client-address.ts'
import type { Taken } from '../services/limiter/limit-fields.ts'
import { loggableUrl } from '../services/loggable.ts'
import { answerError } from './errors.ts'

declare module 'fastify' {
  interface FastifyInstance {
    hotPath: HotPath
  }
}

/** Answers a request whole and returns true, or leaves it as it is and returns false. */
export type Shortcut = (request: IncomingMessage, response: ServerResponse) => boolean

/** A request that the limiter let in. */
export interface Admitted {
  id: string
  ip: string
  addressToken: Taken
  /** The token that a policy of its kind took beside that of the address. */
  ownToken?: Taken
  admittedAt: number
}

export interface HotPath {
  /** Tried in their order. */
  shortcuts: Shortcut[]
  /**
   * Takes a request's token from the limiter. Undefined when there was none: that costs nothing, so that the
   * limiter on the usual way refuses once more, and says why.
   */
  admit (request: IncomingMessage): Admitted | undefined
  /** Sends an answer, with the headers that every answer has, and writes its line in the log. */
  send (admitted: Admitted, request: IncomingMessage, response: ServerResponse, answer: HotAnswer): void
  /** Sends the answer to a request that failed. */
  sendError (admitted: Admitted, request: IncomingMessage, response: ServerResponse, error: unknown): void
}

export interface HotAnswer {
  status: number
  /** Names and values in turn, as writeHead takes them fastest. */
  headers: string[]
  /** Whether Vary is among them, with what CORS says in it. */
  hasVary?: boolean
  body?: string | Buffer | undefined
  /** Of a body that is text; Node need not look for other characters in one that is latin1. */
  encoding?: BufferEncoding
}

export interface HotPathOptions {
  requestId: (request: IncomingMessage) => string
}

type Listener = (request: IncomingMessage, response: ServerResponse) => void

/**
 * The way of the many: requests of the few kinds that most are of are answered before Fastify makes a request and a
 * reply of them, with the same limiter, headers and log line (hot-reads.ts, hot-writes.ts). Whatever is not exactly of
 * such a kind goes the usual way, which answers alike: test/plugins/hot-path.test.ts holds the two against each other.
 * It takes a hot read from 1.8 to 1.2 times the CPU of bare node:http (npm run bench).
 */
export default fp<HotPathOptions>(async function hotPath (app, { requestId }) {
  const { limits, limitFields, log, securityHeaders, corsHeaders } = app
  const addressOf = createAddresses(app.config.server.trustProxy)
  const shortcuts: Shortcut[] = []
  const heads = new Map<object, { all: string[], withoutVary: string[] }>()

  /** The headers that every answer to a page of an origin has. */
  function headFor (origin: string | undefined): { all: string[], withoutVary: string[] } {
    const cors = corsHeaders(origin)
    let head = heads.get(cors)
    if (!head) {
      const { vary, ...others } = { ...securityHeaders, ...cors }
      const withoutVary = Object.entries(others).flat()
      heads.set(cors, head = { all: vary === undefined ? withoutVary : [...withoutVary, 'vary', vary], withoutVary })
    }
    return head
  }

  function send ({ id, ip, addressToken, ownToken, admittedAt }: Admitted, request: IncomingMessage, response: ServerResponse, { status, headers, hasVary, body, encoding = 'utf8' }: HotAnswer): void {
    const head = headFor(request.headers.origin)
    response.writeHead(status, ['x-request-id', id, ...(hasVary ? head.withoutVary : head.all), ...(ownToken ? limitFields.two(addressToken, ownToken) : limitFields.one(addressToken)), ...headers])
    if (typeof body === 'string') response.end(body, encoding)
    else response.end(body)
    const line = { reqId: id, method: request.method, url: loggableUrl(request.url!), status, ms: Math.round((performance.now() - admittedAt) * 10) / 10, ip }
    log.info(line, response.destroyed ? 'request cut off' : 'request')
  }

  app.decorate('hotPath', {
    shortcuts,

    admit (request) {
      const ip = addressOf(request)
      const left = limits.address.take(clientKey(ip))
      return left < 0 ? undefined : { id: requestId(request), ip, addressToken: { limit: limits.address, left }, admittedAt: performance.now() }
    },

    send,

    sendError (admitted, request, response, error) {
      const { status, headers, body } = answerError(app, error, {
        url: request.url!,
        requestId: admitted.id,
        hasToken: request.headers.authorization !== undefined,
        log: log.child({ reqId: admitted.id })
      })
      send(admitted, request, response, withLength({ status, headers: Object.entries(headers).flat(), body: JSON.stringify(body) }))
    }
  })

  app.addHook('onReady', async () => {
    const usual = app.server.listeners('request') as Listener[]
    app.server.removeAllListeners('request')
    app.server.on('request', (request, response) => {
      try {
        for (const shortcut of shortcuts) {
          if (shortcut(request, response)) return
        }
      } catch (error) {
        // What no test has found must not end the process.
        log.error({ err: error, url: loggableUrl(request.url!) }, 'unexpected error')
        response.destroy()
        return
      }
      for (const listener of usual) listener.call(app.server, request, response)
    })
  })
}, { name: 'halo:hot-path', dependencies: ['halo:config', 'halo:cors', 'halo:errors', 'halo:rate-limit', 'halo:security-headers'] })

/** An answer with the length of its body among its headers. */
export function withLength (answer: HotAnswer & { body: string | Buffer }): HotAnswer {
  return { ...answer, headers: [...answer.headers, 'content-length', String(Buffer.byteLength(answer.body))] }
}

/** Whether a request brings a body, or may. */
export function hasBody ({ headers }: IncomingMessage): boolean {
  const length = headers['content-length']
  return (length !== undefined && length !== '0') || headers['transfer-encoding'] !== undefined
}

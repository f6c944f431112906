import type { IncomingMessage, ServerResponse } from 'node:http'
import fp from 'fastify-plugin'
import { createAddresses } from '../services/client-address.ts'

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
  admittedAt: number
}

export interface HotPath {
  add (shortcut: Shortcut): void
  /**
   * Takes a request's token from the limiter. Undefined when there was none: that costs nothing, so that the
   * limiter on the usual way refuses once more, and says why.
   */
  admit (request: IncomingMessage): Admitted | undefined
  /** The line in the log of a request that was answered. */
  log (admitted: Admitted, request: IncomingMessage, response: ServerResponse): void
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
  const { takeToken, log } = app
  const addressOf = createAddresses(app.config.server.trustProxy)
  const shortcuts: Shortcut[] = []
  app.decorate('hotPath', {
    add (shortcut) { shortcuts.push(shortcut) },

    admit (request) {
      const ip = addressOf(request)
      return takeToken(ip) > 0 ? undefined : { id: requestId(request), ip, admittedAt: performance.now() }
    },

    log ({ id, ip, admittedAt }, { method, url }, { statusCode, destroyed }) {
      log.info({ reqId: id, method, url, status: statusCode, ms: Math.round((performance.now() - admittedAt) * 10) / 10, ip }, destroyed ? 'request cut off' : 'request')
    }
  })

  app.addHook('onReady', async () => {
    const usual = app.server.listeners('request') as Listener[]
    app.server.removeAllListeners('request')
    app.server.on('request', (request, response) => {
      for (const shortcut of shortcuts) {
        if (shortcut(request, response)) return
      }
      for (const listener of usual) listener.call(app.server, request, response)
    })
  })
}, { name: 'halo:hot-path', dependencies: ['halo:config', 'halo:rate-limit'] })

/** Whether a request brings a body, or may. */
export function hasBody ({ headers }: IncomingMessage): boolean {
  const length = headers['content-length']
  return (length !== undefined && length !== '0') || headers['transfer-encoding'] !== undefined
}

import type { ServerResponse } from 'node:http'
import fp from 'fastify-plugin'
import { HeadResponse } from '../services/http/response-head.ts'

/** The phase of the process. */
export interface Lifecycle {
  hasStarted: boolean
  isDraining: boolean
}

declare module 'fastify' {
  interface FastifyInstance {
    lifecycle: Lifecycle
  }
}

/** server.ts sets it, the probes of routes/health.ts report it. */
export default fp<{ lifecycle: Lifecycle }>(async function lifecycle (app, options) {
  app.decorate('lifecycle', options.lifecycle)
}, { name: 'halo:lifecycle' })

/**
 * Responses that say `Connection: close` while the process drains, those to requests that were in flight then among
 * them: clients move on to another process by themselves, and the drain does not wait for idle connections. A hook
 * would cost every request what this costs only then.
 */
export function drainingResponse (lifecycle: Lifecycle): typeof ServerResponse {
  class DrainingResponse extends HeadResponse {
    override get isDraining (): boolean {
      return lifecycle.isDraining
    }
  }
  // Node's types make the class generic in its request, which a subclass of it cannot be.
  return DrainingResponse as unknown as typeof ServerResponse
}

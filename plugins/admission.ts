import type { IncomingMessage, ServerResponse } from 'node:http'
import fp from 'fastify-plugin'
import { createAdmission, type Admission } from '../services/admission.ts'

declare module 'fastify' {
  interface FastifyInstance {
    admission: Admission & {
      /** Whether a request is refused because there is too much to do; probes and numbers never are. */
      refusesRequest (request: IncomingMessage): boolean
      /** A request is under way until its response is over. */
      track (response: ServerResponse): void
      /** A response that stays open, as a stream of events does, is no longer a request under way. */
      untrack (response: ServerResponse): void
    }
  }
}

const alwaysAnswered = new Set(['/livez', '/readyz', '/startupz', '/health', '/metrics'])

/** Milliseconds between two lines of the log about an overload. */
const warnEveryMs = 5000

/** Requests that come while there is too much to do are refused before any work is done for them. */
export default fp(async function admission (app) {
  const control = createAdmission()
  let warned = { at: -Infinity, refused: 0 }

  function leave (this: ServerResponse): void {
    control.leave()
  }

  function warn (): void {
    const now = performance.now()
    if (now - warned.at < warnEveryMs) return
    const { refused, inFlight, delayMs, part } = control.stats
    app.log.warn({ refused: refused - warned.refused, inFlight, delayMs: Math.round(delayMs), part }, 'overload: requests are refused')
    warned = { at: now, refused }
  }

  app.decorate('admission', {
    ...control,
    get stats () { return control.stats },

    refusesRequest ({ url }) {
      if (alwaysAnswered.has(url!.split('?', 1)[0]!) || !control.refuses()) return false
      warn()
      return true
    },

    track (response) {
      if (response.writableEnded) return
      control.enter()
      response.on('close', leave)
    },

    untrack (response) {
      if (!response.listeners('close').includes(leave)) return
      response.off('close', leave)
      control.leave()
    }
  })
  app.addHook('onReady', async () => { control.start() })
  app.addHook('onClose', async () => { control.stop() })
}, { name: 'halo:admission', dependencies: ['halo:config', 'halo:errors'] })

import fp from 'fastify-plugin'
import { ApiError } from '../services/shared/errors.ts'
import { createLoadShedder } from '../services/traffic/load-shedder.ts'

declare module 'fastify' {
  interface FastifyInstance {
    loadShedding: {
      /** Milliseconds by which the event loop was late when it was last measured. */
      readonly delayMs: number
      /** Number of shed requests. */
      readonly refused: number
      /** Counts a shed request. @returns the error to answer with */
      refuse (): ApiError
    }
  }
  interface FastifyRequest {
    /** The process is overloaded: the request may be answered from the cache only. */
    isCacheOnly: boolean
  }
  interface FastifyContextConfig {
    /** Never shed: for operators. */
    isNeverShed?: boolean
  }
}

/** Milliseconds between two log lines about load shedding. */
const logEveryMs = 5000

/**
 * Refuses requests while the process is overloaded, before any work is done for them. Cached responses cost less than
 * a refusal.
 */
export default fp(async function loadShedding (app) {
  const { requests } = app
  const shedder = createLoadShedder({ inFlight: () => requests.inFlight })
  let refused = 0
  let logged = { at: -Infinity, refused: 0 }
  app.decorateRequest('isCacheOnly', false)

  function refuse (): ApiError {
    refused++
    const now = performance.now()
    if (now - logged.at >= logEveryMs) {
      const seconds = Math.min(Math.round((now - logged.at) / 1000), 3600)
      app.log.warn({
        refused: refused - logged.refused,
        seconds,
        inFlight: requests.inFlight,
        delayMs: Math.round(shedder.delayMs)
      }, 'load shedding: requests were answered 503')
      logged = { at: now, refused }
    }
    return new ApiError('server_busy')
  }

  app.decorate('loadShedding', {
    get delayMs () {
      return shedder.delayMs
    },
    get refused () {
      return refused
    },
    refuse
  })

  app.addHook('onRequest', (request, reply, done) => {
    const isOverloaded = shedder.isOverloaded(request.startedAt)
    if (!isOverloaded && !shedder.isLate(request.startedAt)) return done()
    const { isProbe, isNeverShed, cacheKey } = request.routeOptions.config
    request.isCacheOnly = isOverloaded && cacheKey !== undefined
    const isServed = !isOverloaded || isProbe || isNeverShed || cacheKey !== undefined
    // Answered after the poll phase: a client that is answered within it sends its next request into the same turn of
    // the loop, which may go on for 48 times 1,024 requests (uv__io_poll), some seconds, before its timers run.
    setImmediate(() => {
      done(isServed ? undefined : refuse())
    })
  })
  app.addHook('onReady', async () => {
    shedder.start()
  })
  app.addHook('onClose', async () => {
    shedder.stop()
  })
}, { name: 'halo:load-shedding', dependencies: ['halo:errors', 'halo:request-context'] })

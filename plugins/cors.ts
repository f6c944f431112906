import cors from '@fastify/cors'
import type { FastifyInstance } from 'fastify'
import fp from 'fastify-plugin'

const exposedHeaders = ['Retry-After', 'X-Request-Id', 'RateLimit', 'RateLimit-Policy', 'Link', 'Location']

/**
 * Which web pages may call the API. Preflights are answered by @fastify/cors, in a scope of its own with
 * nothing but its wildcard route in it; a plain request pays for what depends on it alone, its Origin.
 */
export default fp(async function crossOrigin (app) {
  const { origins } = app.config.cors

  // Before the limiter, so that a page can read a 429 as well.
  addOriginHeaders(app, origins)

  app.register(async function preflight (scope) {
    await scope.register(cors, {
      origin: origins === '*' ? '*' : origins,
      methods: ['GET', 'HEAD', 'POST', 'PUT', 'PATCH', 'DELETE'],
      maxAge: 600,
      strictPreflight: false
    })
  })
}, { name: 'halo:cors', dependencies: ['halo:config', 'halo:errors'] })

function addOriginHeaders (app: FastifyInstance, origins: '*' | string[]): void {
  const exposed = exposedHeaders.join(', ')
  const allowed = new Set(origins)
  app.addHook('onRequest', (request, reply, done) => {
    if (origins !== '*') reply.header('vary', 'Origin')
    const { origin } = request.headers
    if (origin !== undefined && (origins === '*' || allowed.has(origin))) {
      reply.header('access-control-allow-origin', origins === '*' ? '*' : origin)
      reply.header('access-control-expose-headers', exposed)
    }
    done()
  })
}

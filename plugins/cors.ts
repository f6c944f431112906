import fastifyCors from '@fastify/cors'
import fp from 'fastify-plugin'

const exposedHeaders = ['Retry-After', 'X-Request-Id', 'RateLimit', 'RateLimit-Policy', 'Link', 'Location', 'X-Next-Cursor', 'Idempotency-Replayed']

/**
 * Which web pages may read the answers. A request pays for what depends on it alone, its Origin; this stands
 * before the limiter, so that a page can read a 429 as well.
 */
export default fp(async function cors (app) {
  const { origins } = app.config.cors
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
}, { name: 'halo:cors', dependencies: ['halo:config', 'halo:errors'] })

/**
 * Preflights, answered by @fastify/cors in a scope with nothing but its wildcard route in it, so that its
 * hook runs for nothing else. It is registered after the limiter: a scope has the hooks that were there
 * before it.
 */
export const corsPreflight = fp(async function corsPreflight (app) {
  const { origins } = app.config.cors
  app.register(async function preflight (scope) {
    await scope.register(fastifyCors, {
      origin: origins === '*' ? '*' : origins,
      methods: ['GET', 'HEAD', 'POST', 'PUT', 'PATCH', 'DELETE'],
      maxAge: 600,
      strictPreflight: false
    })
  })
}, { name: 'halo:cors-preflight', dependencies: ['halo:cors', 'halo:rate-limit'] })

import fastifyCors from '@fastify/cors'
import fp from 'fastify-plugin'

const exposedHeaders = [
  'ETag',
  'Retry-After',
  'X-Request-Id',
  'RateLimit',
  'RateLimit-Policy',
  'X-RateLimit-Limit',
  'X-RateLimit-Remaining',
  'X-RateLimit-Reset',
  'Link',
  'Location',
  'X-Next-Cursor',
  'Idempotency-Replayed'
]

declare module 'fastify' {
  interface FastifyInstance {
    /** Returns the CORS headers of a response to a page of an origin. */
    corsHeaders(origin: string | undefined): Record<string, string>
  }
}

/**
 * The CORS headers of responses. Only what depends on the request, its Origin, is computed for each; @fastify/cors
 * answers preflights (below).
 */
export default fp(async function cors (app) {
  const { origins } = app.config.cors
  const exposed = { 'access-control-expose-headers': exposedHeaders.join(', ') }
  const vary: Record<string, string> = origins === '*' ? {} : { vary: 'Origin' }
  const forAnyOrigin = { 'access-control-allow-origin': '*', ...exposed }
  const forOrigin = new Map(
    (origins === '*' ? [] : origins).map(
      origin => [
        origin,
        {
          ...vary,
          'access-control-allow-origin': origin,
          // As with the Go service, for pages that call with `credentials: 'include'`; a token is never in a cookie.
          'access-control-allow-credentials': 'true',
          ...exposed
        }
      ]
    )
  )
  app.decorate('corsHeaders', origin => {
    if (origin === undefined) return vary
    return origins === '*' ? forAnyOrigin : forOrigin.get(origin) ?? vary
  })
}, { name: 'halo:cors', dependencies: ['halo:config', 'halo:errors'] })

/**
 * Preflights: @fastify/cors answers them, in a scope that contains only its wildcard route, so that its hook runs for
 * no other request.
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

import { Type } from '@sinclair/typebox'
import type { HTTPMethods } from 'fastify'
import fp from 'fastify-plugin'
import { ApiError } from '../services/shared/errors.ts'

/**
 * Answers 405 with `Allow` to the methods that an address does not take (RFC 9110 §15.5.6): a route for each of them,
 * so that the router decides, as it does for all others. OPTIONS has a route for every address (plugins/cors.ts).
 */
export default fp(async function methodNotAllowed (app) {
  const methodsOf = new Map<string, Set<string>>()
  app.addHook('onRoute', ({ method, url }) => {
    if (url === '*') return
    const methods = methodsOf.get(url) ?? new Set()
    methodsOf.set(url, methods)
    for (const one of [method].flat()) methods.add(one)
  })

  /** Called when all routes are there. */
  app.decorate('refuseOtherMethods', () => {
    for (const [url, taken] of [...methodsOf]) {
      const allowed = [...taken].sort().join(', ')
      const others = app.supportedMethods.filter(method => method !== 'OPTIONS' && !taken.has(method)) as HTTPMethods[]
      if (others.length === 0) continue
      app.route({
        method: others,
        url,
        schema: { hide: true, querystring: Type.Object({}, { additionalProperties: true }) },
        exposeHeadRoute: false,
        handler: async ({ method }) => {
          throw new ApiError('method_not_allowed', {
            message: `This address takes ${allowed}, not ${method}`,
            headers: { allow: allowed }
          })
        }
      })
    }
  })
}, { name: 'halo:method-not-allowed', dependencies: ['halo:errors'] })

declare module 'fastify' {
  interface FastifyInstance {
    refuseOtherMethods (): void
  }
}

import type { FastifyRequest } from 'fastify'
import fp from 'fastify-plugin'
import { serializeFields } from '../services/http/response-head.ts'

declare module 'fastify' {
  interface FastifyInstance {
    responseHeaders: {
      /** The headers that every response to a request has: request id, Helmet, CORS and rate limit. */
      of(request: FastifyRequest): Record<string, string>
      /** The same as text (response-head.ts), without `Vary`: cached responses have a `Vary` of their own. */
      serialized (request: FastifyRequest): string
    }
  }
}

/**
 * Sets the headers that every response has, refusals included, so that a web page can read a 429. They are set when a
 * response is sent (`onSend`): a response from the cache is written as one string (plugins/response-cache.ts), and
 * setting sixteen headers that nobody reads would cost it 5 % of its CPU time. A header that the route has set itself
 * wins.
 */
export default fp(async function responseHeaders (app) {
  const { securityHeaders, corsHeaders, limitFields } = app
  const securityText = serializeFields(Object.entries(securityHeaders).flat())
  /** By what CORS says; there is one object for each allowed origin. */
  const corsTexts = new Map<Record<string, string>, string>()

  function corsText (headers: Record<string, string>): string {
    let text = corsTexts.get(headers)
    if (text === undefined) {
      text = serializeFields(Object.entries(headers).filter(([name]) => name !== 'vary').flat())
      corsTexts.set(headers, text)
    }
    return text
  }

  app.decorate('responseHeaders', {
    of: request => ({
      'x-request-id': request.id,
      ...securityHeaders,
      ...corsHeaders(request.headers.origin),
      ...limitFields.headers(request.addressToken, request.routeToken)
    }),
    // An id consists of letters, digits, and marks that a header may have (request-context.ts).
    serialized: request =>
      `x-request-id: ${request.id}\r\n${securityText}${corsText(corsHeaders(request.headers.origin))}` +
      limitFields.serialized(request.addressToken, request.routeToken)
  })

  app.addHook('onSend', (request, reply, payload, done) => {
    const headers = app.responseHeaders.of(request)
    for (const name in headers) {
      if (name === 'vary' || !reply.hasHeader(name)) {
        reply.header(name, name === 'vary' ? joinVary(headers[name]!, reply.getHeader(name)) : headers[name])
      }
    }
    done()
  })
}, { name: 'halo:response-headers', dependencies: ['halo:cors', 'halo:rate-limit', 'halo:security-headers'] })

function joinVary (common: string, own: unknown): string {
  return own === undefined ? common : `${common}, ${String(own)}`
}

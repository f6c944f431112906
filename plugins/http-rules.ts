import type { IncomingMessage } from 'node:http'
import fp from 'fastify-plugin'
import { ApiError } from '../services/shared/errors.ts'

/**
 * Rules of HTTP that Node would enforce with a response of its own, without our headers and log line: exactly one
 * Host, and no expectation but 100-continue.
 */
export default fp(async function httpRules (app) {
  app.server.on('checkExpectation', (request, response) => {
    app.server.emit('request', request, response)
  })
  app.addHook('onRequest', (request, reply, done) => {
    const violation = violationOf(request.raw)
    // The rest of the connection may not be framed as its sender meant.
    if (violation) reply.raw.shouldKeepAlive = false
    done(violation)
  })
}, { name: 'halo:http-rules', dependencies: ['halo:errors'] })

/**
 * Without exactly one Host, the proxies on the way may have read another host than this service does (RFC 9112 §3.2);
 * an expectation that cannot be met is refused (RFC 9110 §10.1.1).
 */
function violationOf ({ rawHeaders, headers, httpVersionMinor }: IncomingMessage): ApiError | undefined {
  if (headers.host === undefined) {
    if (httpVersionMinor !== 0) {
      return new ApiError('invalid_request', { message: 'An HTTP/1.1 request has a Host header' })
    }
  } else {
    let hosts = 0
    for (let index = 0; index < rawHeaders.length; index += 2) {
      const name = rawHeaders[index]!
      if (name.length === 4 && name.toLowerCase() === 'host') hosts++
    }
    if (hosts > 1) return new ApiError('invalid_request', { message: 'A request has one Host header' })
  }
  if (headers.expect !== undefined && headers.expect.toLowerCase() !== '100-continue') {
    return new ApiError('expectation_failed')
  }
  return undefined
}

import fp from 'fastify-plugin'
import type { Client } from '../services/accounts/accounts.ts'
import { loggableText } from '../services/runtime/log-redaction.ts'
import { labelsOf } from '../services/runtime/metrics.ts'

declare module 'fastify' {
  interface FastifyRequest {
    /** The client of the request, with its audit log. */
    readonly client: Client
  }
}

/**
 * The audit log: one line for each event of an account (user, client address, request id). Never a password, a token
 * or a hash: services/accounts/accounts.ts defines the fields, and test/run.ts searches the log of all tests for
 * secrets.
 */
export default fp(async function audit (app) {
  const count = app.meters.counts('halo_audit_events_total', 'Events of accounts, by kind')
  app.decorateRequest('client', {
    getter () {
      const { id: reqId, clientAddress: ip, headers, log, traceIds } = this
      const userAgent = loggableText(headers['user-agent'] ?? '').slice(0, 255)
      return {
        address: ip,
        userAgent,
        audit (event, fields) {
          count(labelsOf({ event }))
          log.info({ reqId, audit: event, ...fields, ip, userAgent, ...traceIds }, 'audit')
        }
      }
    }
  })
}, { name: 'halo:audit', dependencies: ['halo:meters'] })

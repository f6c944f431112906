import fp from 'fastify-plugin'
import type { Client } from '../services/accounts/accounts.ts'
import { loggableText } from '../services/runtime/log-redaction.ts'

declare module 'fastify' {
  interface FastifyRequest {
    /** Where the request comes from, and where what it does with accounts is written down. */
    readonly client: Client
  }
}

/**
 * One line in the log for each thing that happens to accounts: who, from where, by which request. Never a password, a
 * token or a hash: what a line may have is named by services/accounts/accounts.ts, and test/run.ts looks for them in what all
 * tests have logged.
 */
export default fp(async function audit (app) {
  app.decorateRequest('client', {
    getter () {
      const { id: reqId, clientAddress: ip, headers, log } = this
      const userAgent = loggableText(headers['user-agent'] ?? '').slice(0, 255)
      return {
        address: ip,
        userAgent,
        audit (event, fields) { log.info({ reqId, audit: event, ...fields, ip, userAgent }, 'audit') }
      }
    }
  })
}, { name: 'halo:audit' })

import fp from 'fastify-plugin'
import { createAdultAccess, type AdultAccess } from '../services/accounts/adult-access.ts'

declare module 'fastify' {
  interface FastifyInstance {
    adultAccess: AdultAccess
  }
}

/** Decides which adult content users may see. */
export default fp(async function adultAccess (app) {
  app.decorate('adultAccess', createAdultAccess({ database: app.database, gate: app.config.adultContentGate }))
}, { name: 'halo:adult-access', dependencies: ['halo:config', 'halo:database'] })

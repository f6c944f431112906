import fp from 'fastify-plugin'
import { createDatabase, type Database } from '../services/database.ts'

declare module 'fastify' {
  interface FastifyInstance {
    /** What requests wait for. */
    database: Database
    /** What no request waits for. */
    backgroundDatabase: Database
  }
}

/** Statements on the pools, with a bounded queue and errors that the service knows. */
export default fp(async function database (app) {
  // Ten callers for each connection: with statements of a few milliseconds the last one waits for less
  // than the pool's own limit on waiting.
  app.decorate('database', createDatabase({ pool: app.pg.pool, maxWaiting: app.config.databasePool.max * 10 }))
  app.decorate('backgroundDatabase', createDatabase({ pool: app.backgroundPool, maxWaiting: 100 }))
}, { name: 'halo:database', dependencies: ['halo:config', 'halo:postgres'] })

import fp from 'fastify-plugin'
import { createViewerService, type ViewerService } from '../services/viewers.ts'

declare module 'fastify' {
  interface FastifyInstance {
    viewers: ViewerService
  }
}

/** Which users are shown adult content. */
export default fp(async function viewers (app) {
  app.decorate('viewers', createViewerService({ database: app.database, gate: app.config.adultContentGate }))
}, { name: 'halo:viewers', dependencies: ['halo:config', 'halo:database'] })

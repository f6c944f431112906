import fp from 'fastify-plugin'

declare module 'fastify' {
  interface FastifyInstance {
    lifecycle: { hasStarted: boolean, isDraining: boolean }
  }
}

/** Where in its life the process is; server.ts sets it, the probes of routes/health.ts tell it. */
export default fp(async function lifecycle (app) {
  app.decorate('lifecycle', { hasStarted: false, isDraining: false })
}, { name: 'halo:lifecycle' })

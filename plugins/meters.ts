import fp from 'fastify-plugin'
import { createMetrics, type Metrics } from '../services/runtime/metrics.ts'
import { addProcessMetrics } from '../services/runtime/process-metrics.ts'

declare module 'fastify' {
  interface FastifyInstance {
    /** The metrics of this process. The plugin that owns a number adds it; plugins/metrics.ts serves them. */
    meters: Metrics
  }
}

/** The metrics of the process, before everything that has something to measure. */
export default fp(async function meters (app) {
  const metrics = createMetrics()
  const stop = addProcessMetrics(metrics)
  app.decorate('meters', metrics)
  app.addHook('onClose', async () => { stop() })
}, { name: 'halo:meters', dependencies: ['halo:config'] })

import { Type } from '@sinclair/typebox'
import { responses } from '../schemas/problem.ts'
import type { Handler, Routes } from '../schemas/route.ts'

const metricsSchema = {
  operationId: 'getMetrics',
  summary: 'Metrics, in the text format of Prometheus',
  description:
    'Of all processes behind this port together. For operators: a balancer should not pass it on to the outside.',
  tags: ['operations'],
  produces: ['text/plain'],
  response: responses({ 200: Type.String({ title: 'Metrics', examples: ['halo_counters_flush_lag_seconds 0.3\n'] }) })
}

const routes: Routes = async app => {
  // plugins/metrics.ts serves them on METRICS_PORT.
  if (app.config.metricsPort !== null) return
  app.get('/metrics', { schema: metricsSchema, config: { isNeverShed: true } }, metrics)
}
export default routes

const metrics: Handler<typeof metricsSchema> = async function (request, reply) {
  return await reply.header('cache-control', 'no-store').type(this.metrics.contentType).send(await this.metrics.read())
}

import { Type } from '@sinclair/typebox'
import { Health, Liveness, Readiness } from '../schemas/health.ts'
import { responses } from '../schemas/problem.ts'
import type { Handler, Routes } from '../schemas/route.ts'

const tags = ['operations']

/** Probes accept any query (`/readyz?verbose`). */
const querystring = Type.Object({}, { additionalProperties: true })

const healthSchema = {
  operationId: 'getHealth',
  summary: 'Health of the service and its stores',
  description:
    'The answer that clients of the Go service know. 503 names the dependency that is unavailable.',
  tags,
  querystring,
  response: responses({ 200: Health, 503: Health })
}
const livenessSchema = {
  operationId: 'getLiveness',
  summary: 'Whether this process works',
  description:
    'For the liveness probe: a dependency that is unavailable does not make it fail, because a restart would not help.',
  tags,
  querystring,
  response: responses({ 200: Liveness })
}
const readinessSchema = {
  operationId: 'getReadiness',
  summary: 'Whether this process should get requests',
  description:
    'Redis unavailable does not make a process unready: reads go on without it, and no other process has it either.',
  tags,
  querystring,
  response: responses({ 200: Readiness, 503: Readiness })
}
const startupSchema = {
  operationId: 'getStartup',
  summary: 'Whether the boot is over',
  description:
    'For the startup probe. Once it has answered 200, it always does.',
  tags,
  querystring,
  response: responses({ 200: Readiness, 503: Readiness })
}

const config = { isProbe: true }

const routes: Routes = async app => {
  app.get('/health', { config, schema: healthSchema }, health)
  app.get('/livez', { config, schema: livenessSchema }, livez)
  app.get('/readyz', { config, schema: readinessSchema }, readyz)
  app.get('/startupz', { config, schema: startupSchema }, startupz)
}
export default routes

const seconds = () => Math.floor(Date.now() / 1000)

const health: Handler<typeof healthSchema> = async function (request, reply) {
  const { database, redis } = await this.services.healthChecks.status()
  const isHealthy = database && redis
  return await reply.code(isHealthy ? 200 : 503).send({
    status: isHealthy ? 'healthy' : 'unhealthy',
    database,
    redis,
    time: seconds()
  })
}

const livez: Handler<typeof livenessSchema> = async () => ({ status: 'alive', time: seconds() })

const readyz: Handler<typeof readinessSchema> = async function (request, reply) {
  const { isReady, body } = await this.readiness.check()
  return await reply.code(isReady ? 200 : 503).send(body)
}

const startupz: Handler<typeof startupSchema> = async function (request, reply) {
  const { hasStarted, body } = await this.readiness.checkStarted()
  return await reply.code(hasStarted ? 200 : 503).send(body)
}

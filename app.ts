import { join } from 'node:path'
import autoload from '@fastify/autoload'
import type { TypeBoxTypeProvider } from '@fastify/type-provider-typebox'
import fastify, { type FastifyBaseLogger } from 'fastify'
import { serverOptions, type Config, type ServerConnection } from './fastify.config.ts'
import adultAccess from './plugins/adult-access.ts'
import audit from './plugins/audit.ts'
import auth from './plugins/auth.ts'
import config from './plugins/config.ts'
import counters from './plugins/counters.ts'
import cors, { corsPreflight } from './plugins/cors.ts'
import database from './plugins/database.ts'
import errors, { clientErrorHandler, frameworkErrors } from './plugins/errors.ts'
import httpRules from './plugins/http-rules.ts'
import lifecycle, { drainingResponse, type Lifecycle } from './plugins/lifecycle.ts'
import loadShedding from './plugins/load-shedding.ts'
import methodNotAllowed from './plugins/method-not-allowed.ts'
import meters from './plugins/meters.ts'
import metrics from './plugins/metrics.ts'
import openapi from './plugins/openapi.ts'
import postgres from './plugins/postgres.ts'
import rateLimit from './plugins/rate-limit.ts'
import recentWriters from './plugins/recent-writers.ts'
import readiness from './plugins/readiness.ts'
import redis from './plugins/redis.ts'
import requestContext, { createRequestIds, NoRequestLog } from './plugins/request-context.ts'
import responseCache from './plugins/response-cache.ts'
import responseHeaders from './plugins/response-headers.ts'
import securityHeaders from './plugins/security-headers.ts'
import services from './plugins/services.ts'
import slowReaders from './plugins/slow-readers.ts'
import validation from './plugins/validation.ts'
import type { CounterTimes } from './services/engagement/counters/store.ts'
import { createAlone, type Workers } from './services/runtime/worker.ts'

export interface AppOptions {
  config: Readonly<Config>
  /** Address of PostgreSQL; that of the embedded one is known only once it runs. */
  connection: ServerConnection
  logger: FastifyBaseLogger
  counterTimes?: Partial<CounterTimes>
  /** The worker processes behind the same port, where there is a supervisor. */
  workers?: Workers | undefined
  /** Destination of the log, for its metrics. */
  logDestination?: { readonly dropped: number }
}

/**
 * Builds the application: everything but the process around it. It reads no environment and opens no port.
 *
 * A request passes the hooks in the order in which the plugins are registered here: request context, rate limiter,
 * rules of HTTP, load shedding; then those of its scope (authentication) and of its route; then validation, the
 * response cache, the handler.
 */
export async function buildApp (
  { config: settings, connection, logger, counterTimes, workers, logDestination = { dropped: 0 } }: AppOptions
) {
  const stage: Lifecycle = { hasStarted: false, isDraining: false }
  const options = serverOptions(settings)
  const app = fastify({
    ...options,
    http: { ...options.http, ServerResponse: drainingResponse(stage) },
    loggerInstance: withoutChildren(logger),
    logController: new NoRequestLog(),
    genReqId: createRequestIds(),
    frameworkErrors,
    clientErrorHandler
  }).withTypeProvider<TypeBoxTypeProvider>()

  await app.register(config, { config: settings })
  await app.register(lifecycle, { lifecycle: stage })
  await app.register(meters)
  await app.register(slowReaders)
  await app.register(errors)
  await app.register(validation)
  await app.register(methodNotAllowed)
  await app.register(redis)

  await app.register(requestContext)
  await app.register(securityHeaders)
  await app.register(cors)
  await app.register(rateLimit)
  await app.register(responseHeaders)
  await app.register(httpRules)
  await app.register(loadShedding)
  await app.register(corsPreflight)

  await app.register(postgres, { connection })
  await app.register(database)
  await app.register(adultAccess)
  await app.register(counters, { times: counterTimes })
  await app.register(services)
  await app.register(auth)
  await app.register(audit)
  await app.register(recentWriters)
  await app.register(responseCache)
  await app.register(readiness, { workers: workers ?? createAlone() })
  await app.register(metrics, { logDestination, isSupervised: workers !== undefined })
  await app.register(openapi)

  await app.register(autoload, { dir: join(import.meta.dirname, 'routes') })
  app.refuseOtherMethods()
  return app
}

/**
 * Returns a logger whose children are itself. A child logger for each request costs 1 µs, and few requests write a
 * line beside that of the request context: code that writes one adds the request's id (`reqId`) itself.
 */
function withoutChildren (logger: FastifyBaseLogger): FastifyBaseLogger {
  const log = Object.create(logger) as FastifyBaseLogger
  log.child = (() => log) as FastifyBaseLogger['child']
  return log
}

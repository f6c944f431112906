import cluster from 'node:cluster'
import { resolve } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import type { Config, ServerConnection } from './fastify.config.ts'
import type { OpenDatabase } from './db/open-database.ts'
import type { ToWorker } from './services/runtime/worker-messages.ts'
import type { Supervisor } from './services/runtime/supervisor.ts'
import type { Workers } from './services/runtime/worker.ts'

/**
 * Handles stop requests from the first moment of the process on. Everything else is imported after this, because PID
 * 1 of a container ignores a signal without a handler, and any other process is killed by it together with whatever
 * it has started.
 */
const stopRequest = Promise.withResolvers<string>()
let stopRequests = 0
let endAtOnce = (): void => {
  process.exit(1)
}
for (const signal of ['SIGTERM', 'SIGINT'] as const) {
  process.on(signal, () => {
    // Ctrl-C reaches the whole process group; workers wait for the supervisor's message.
    if (cluster.isWorker && signal === 'SIGINT') return
    requestStop(signal)
  })
}
if (cluster.isWorker) {
  process.on('message', (message: ToWorker) => {
    if (message.halo === 'drain') stopRequest.resolve(message.signal)
  })
  // Without a supervisor, a worker that dies is not replaced: exit.
  process.on('disconnect', () => {
    process.exit(1)
  })
}

function requestStop (signal: string): void {
  if (stopRequests++ === 0) stopRequest.resolve(signal)
  // The supervisor kills a worker that does not stop in time.
  else if (!cluster.isWorker) endAtOnce()
}

const [
  { default: pino },
  { buildApp },
  { loadConfig },
  { migrate, MigrationRefused, requireUtf8 },
  { openDatabase },
  { ConfigurationError },
  { createLogDestination },
  { createPrettyDestination },
  { developmentSecret },
  { createOperationsServer, listenForOperations },
  { createSupervisor, WorkerFailed },
  { createWorker },
  { describeRedis },
  { readCommandLine }
] = await Promise.all([
  import('pino'),
  import('./app.ts'),
  import('./fastify.config.ts'),
  import('./db/migrate.ts'),
  import('./db/open-database.ts'),
  import('./services/runtime/configuration-error.ts'),
  import('./services/runtime/log-destination.ts'),
  import('./services/runtime/pretty-destination.ts'),
  import('./services/runtime/development-secret.ts'),
  import('./services/http/operations-server.ts'),
  import('./services/runtime/supervisor.ts'),
  import('./services/runtime/worker.ts'),
  import('./services/stores/redis-connection.ts'),
  import('./services/runtime/command-line.ts')
])

type App = Awaited<ReturnType<typeof buildApp>>

/**
 * Length of the accept queue: thousands of clients reconnect at once after a restart. The kernel may lower it
 * (somaxconn).
 */
const backlog = 4096

/** Milliseconds for writing the last log lines, however slow the reader is. */
const flushMs = 500

const { values: { production } } = readCommandLine({
  usage: `Usage: npm start, or node server.ts [--production]

Runs the service. Its settings are environment variables, or lines of .env with npm start: docs/CONFIGURATION.md lists
them, and .env.example is a copy to begin with. --production sets NODE_ENV=production, whatever .env says. SIGTERM stops it.`,
  options: { production: { type: 'boolean', default: false } }
})
if (production) process.env['NODE_ENV'] = 'production'
const config = readConfigOrExit()
const isPretty = process.stdout.isTTY && config.environment === 'development'
const destination = (isPretty ? await createPrettyDestination() : undefined) ??
  createLogDestination({ isShared: config.workers > 1 })
const logger = pino({
  level: config.log.level,
  redact: ['req.headers.authorization', 'password', 'token', 'refresh_token']
}, destination)

process.on('uncaughtException', error => {
  // The state of the process is unknown from here on: exit, and let the supervisor or Kubernetes start a new one.
  logger.fatal({ err: error }, 'uncaught exception')
  exit(1)
})
endAtOnce = () => {
  logger.warn('second signal: exit at once')
  exit(1)
}

exit(
  await (cluster.isWorker ? runWorker() : run()).catch((error: unknown) => {
    if (error instanceof WorkerFailed) return error.exitCode
    logger.fatal({ err: error }, 'the start failed')
    process.stderr.write(`\nHALO API could not start: ${(error as Error).message}\n`)
    return 1
  })
)

/** The running service: its address once it listens, `drain` (resolves to the exit code), and `kill`. */
interface Serving {
  address: Promise<string>
  drain: (signal: string) => Promise<number>
  kill: () => void
}

/** Runs the service until a stop is requested. @returns the exit code */
async function run (): Promise<number> {
  const opening = openDatabase(config.database)
  const database = await Promise.race([opening, stopRequest.promise.then(() => undefined)])
  // Stopped while it was starting: what has started meanwhile is stopped.
  if (!database) return await opening.then(opened => opened.stop(), () => {}).then(() => 0)
  database.embedded?.keepRunning(logger)
  await warnOfSharedData(database)
  try {
    const serving = config.workers === 1 ? serve(database.connection) : supervise(database)
    endAtOnce = () => {
      logger.warn('second signal: exit at once')
      serving.kill()
      exit(1)
    }
    if (config.environment !== 'production') {
      serving.address.then(address => {
        printWelcome(address, database)
      }, () => {})
    }
    return await drainWhenAsked(serving)
  } finally {
    await database.stop()
  }
}

/** Counters of another service on the same data are its own, and the totals of both would be wrong in turn. */
async function warnOfSharedData ({ embedded }: OpenDatabase): Promise<void> {
  if (!embedded || config.redis !== null || await embedded.otherServices() === 0) return
  const message = `another service runs on the data in ${embedded.directory}: each has counters of its own, so that ` +
    'neither shows all of them; stop one, or set REDIS_URL for both'
  logger.warn(message)
  if (config.environment !== 'production') process.stderr.write(`\nWarning: ${message}\n`)
}

async function runWorker (): Promise<number> {
  if (config.database.kind === 'embedded') throw new Error('a worker is told its database')
  const workers = createWorker({ wanted: config.workers })
  return await drainWhenAsked(serve(config.database.connection, workers))
}

/** Waits for a stop request, also during the start. @throws the error of a failed start */
async function drainWhenAsked ({ address, drain }: Serving): Promise<number> {
  const failed = address.then(() => new Promise<never>(() => {}))
  const signal = await Promise.race([stopRequest.promise, failed])
  // A start that fails after a stop request is ignored.
  failed.catch(() => {})
  return await drain(signal)
}

/** Runs several workers under a supervisor. */
function supervise ({ connection }: OpenDatabase): Serving {
  for (const warning of config.warnings) logger.warn(warning)
  const { drainDelayMs, drainTimeoutMs } = config.server
  const supervisor = createSupervisor({
    workers: config.workers,
    // Generated secrets must be the same in all workers.
    env: {
      JWT_SECRET_KEY: config.jwt.secret,
      ...config.database.kind === 'embedded' && 'connectionString' in connection
        ? { DATABASE_URL: connection.connectionString }
        : {}
    },
    logger,
    drainMs: drainDelayMs + drainTimeoutMs + 2000
  })
  return { address: startSupervised(supervisor), drain: supervisor.stop, kill: supervisor.kill }
}

/** Starts the workers, and the port for operators (METRICS_PORT), which answers for all of them and hangs with none. */
async function startSupervised (supervisor: Supervisor): Promise<string> {
  if (config.metricsPort !== null) {
    const server = createOperationsServer({
      metrics: async () => supervisor.metrics(),
      async probe (path) {
        const { isReady, body } = supervisor.readiness()
        if (path === '/livez') return { status: 200, body: JSON.stringify({ status: 'alive', time: body['time'] }) }
        const isGood = path === '/readyz' ? isReady : supervisor.hasStarted()
        return { status: isGood ? 200 : 503, body: JSON.stringify(body) }
      }
    })
    await listenForOperations(server, config.server.host, config.metricsPort)
  }
  return await supervisor.start()
}

function serve (connection: ServerConnection, workers?: Workers): Serving {
  const building = buildApp({ config, connection, logger, workers, logDestination: destination })
  const address = building.then(app => start(app, connection))
  return {
    address,
    async drain (signal) {
      // Wait for the start to end, so that everything can be closed.
      const hasStarted = await Promise.race([
        address.then(() => true, () => false),
        sleep(config.server.drainTimeoutMs, false, { ref: false })
      ])
      return hasStarted ? await drain(await building, signal) : 0
    },
    kill () {}
  }
}

async function start (app: App, connection: ServerConnection): Promise<string> {
  // Waits at most two seconds for the schema and for the counts of the Go service, so that the first requests find
  // both.
  await Promise.race([keepSchemaCurrent(app, connection).then(() => app.counters.takenOver), sleep(2000)])
  const address = await listen(app)
  logger.info({ address, environment: config.environment }, 'listening')
  return address
}

async function listen (app: App): Promise<string> {
  try {
    return await app.listen({ host: config.server.host, port: config.server.port, backlog })
  } catch (error) {
    await app.close()
    throw (error as NodeJS.ErrnoException).code === 'EADDRINUSE'
      ? new Error(`port ${config.server.port} is taken: stop the other process, or set SERVER_PORT`)
      : error
  }
}

/** Migrates the database as soon as it answers, except in production, where `/readyz` reports a missing migration. */
async function keepSchemaCurrent (app: App, connection: ServerConnection): Promise<void> {
  if (config.environment === 'production') {
    await app.services.healthChecks.status()
    // While the database is unavailable, `/readyz` reports it, and the schema check the encoding afterwards.
    await requireUtf8(app.watchPool).catch((error: unknown) => {
      if (error instanceof MigrationRefused) throw error
    })
    return
  }
  for (let attempt = 1; ; attempt++) {
    try {
      const applied = await migrate(connection, { onNotice: message => logger.warn(message) })
      if (applied.length > 0) logger.info({ applied }, 'database migrated')
      return
    } catch (error) {
      if (error instanceof MigrationRefused) throw error
      logger.error({ err: error }, 'the database could not be migrated; trying again')
      await sleep(Math.min(500 * attempt, 5000), undefined, { ref: false })
    }
  }
}

function readConfigOrExit (): Readonly<Config> {
  try {
    const read = loadConfig(process.env)
    if (read.environment !== 'development' || process.env['JWT_SECRET_KEY'] || process.env['JWT_SECRET_KEY_FILE']) return read
    const secret = developmentSecret(resolve(process.env['DATA_DIR'] ?? '.data'))
    return secret === undefined ? read : loadConfig({ ...process.env, JWT_SECRET_KEY: secret })
  } catch (error) {
    if (!(error instanceof ConfigurationError)) throw error
    process.stderr.write(`${error.message}\n`)
    process.exit(78) // EX_CONFIG of sysexits.h
  }
}

function printWelcome (address: string, database: OpenDatabase): void {
  const base = `http://localhost:${new URL(address).port}`
  const redis = config.redis === null
    ? 'in this process (set REDIS_URL to share them)'
    : `Redis at ${describeRedis(config.redis)}`
  process.stdout.write([
    '',
    `  HALO API (${config.environment}, Node ${process.versions.node})`,
    `  database   ${database.description}`,
    `  counters   ${redis}`,
    ...config.workers > 1 ? [`  processes  ${config.workers} (WEB_CONCURRENCY)`] : [],
    `  listening  ${base}/api/v1`,
    `  try it     ${base}/`,
    ...config.hasApiDocs ? [`  API page   ${base}/docs`] : [],
    '  sample data: npm run seed, in a second terminal      stop: Ctrl-C',
    '',
    ''
  ].join('\n'))
}

/**
 * Stops in phases, each bounded: becomes not ready, waits until load balancers have noticed, closes the listening
 * socket, answers the requests in flight, and closes the stores in the reverse order of their opening.
 */
async function drain (app: App, signal: string): Promise<number> {
  app.lifecycle.isDraining = true
  logger.info({ signal, delayMs: config.server.drainDelayMs }, 'draining')
  await sleep(config.server.drainDelayMs)
  const isClosed = await Promise.race([
    app.close().then(() => true),
    sleep(config.server.drainTimeoutMs, false, { ref: false })
  ])
  if (!isClosed) logger.error('requests were still in flight after SERVER_DRAIN_TIMEOUT')
  logger.info({ isClosed }, 'stopped')
  return isClosed ? 0 : 1
}

/** Exits after the log has been written, or cannot be. */
function exit (code: number): void {
  destination.flushWithin(flushMs).finally(() => {
    process.exit(code)
  })
}

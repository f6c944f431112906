import cluster from 'node:cluster'
import { setTimeout as sleep } from 'node:timers/promises'
import pino from 'pino'
import { buildApp } from './app.ts'
import { loadConfig, type Config, type ServerConnection } from './fastify.config.ts'
import { migrate } from './db/migrate.ts'
import { openDatabase, type OpenDatabase } from './db/open-database.ts'
import { ConfigurationError } from './services/configuration-error.ts'
import { createIdleCollector } from './services/idle-collector.ts'
import { createLogDestination } from './services/log-destination.ts'
import { createSupervisor, WorkerFailed } from './services/supervisor.ts'
import { alone, createWorker, type Workers } from './services/worker.ts'

type App = Awaited<ReturnType<typeof buildApp>>

/** Connections that may wait to be accepted: thousands of clients come back at once after a restart. The kernel has a say (somaxconn). */
const backlog = 4096

const config = readConfigOrExit()
const destination = createLogDestination({ isShared: config.workers > 1 })
const logger = pino({
  level: config.log.level,
  redact: ['req.headers.authorization', 'password', 'token', 'refresh_token']
}, destination)

await main().catch((error: unknown) => {
  if (!(error instanceof WorkerFailed)) {
    logger.fatal({ err: error }, 'the boot failed')
    process.stderr.write(`\nHALO API could not start: ${(error as Error).message}\n`)
  }
  destination.flushSync()
  process.exit(error instanceof WorkerFailed ? error.exitCode : 1)
})

async function main (): Promise<void> {
  if (cluster.isWorker) return await serveAsWorker()
  const database = await openDatabase(config.database)
  try {
    const serving = config.workers === 1 ? await serve(database.connection, alone) : await supervise(database)
    stopOnSignal(serving, database)
    if (config.environment !== 'production') printWelcome(serving.address, database)
  } catch (error) {
    await database.stop()
    throw error
  }
}

/** What serves: its address, how it ends in peace (with which exit code), and how it ends at once. */
interface Serving {
  address: string
  drain: (signal: string) => Promise<number>
  kill: () => void
}

/** Several processes, each of which serves as one that is alone does. */
async function supervise ({ connection }: OpenDatabase): Promise<Serving> {
  for (const warning of config.warnings) logger.warn(warning)
  const { drainDelayMs, drainTimeoutMs } = config.server
  const supervisor = createSupervisor({
    workers: config.workers,
    // What this process has made up must be the same in all of them.
    env: {
      JWT_SECRET_KEY: config.jwt.secret,
      ...config.database.kind === 'embedded' && 'connectionString' in connection ? { DATABASE_URL: connection.connectionString } : {}
    },
    logger,
    drainMs: drainDelayMs + drainTimeoutMs + 2000
  })
  return { address: await supervisor.start(), drain: supervisor.stop, kill: supervisor.kill }
}

async function serveAsWorker (): Promise<void> {
  if (config.database.kind === 'embedded') throw new Error('a worker is told its database')
  const workers = createWorker({ wanted: config.workers, onDrain: end })
  const { drain } = await serve(config.database.connection, workers)
  let isEnding = false
  function end (signal: string): void {
    if (isEnding) return
    isEnding = true
    drain(signal).then(exit, () => { exit(1) })
  }
  process.on('SIGTERM', end)
  // Ctrl-C reaches the whole group: the supervisor says when to stop.
  process.on('SIGINT', () => {})
  // A supervisor that is gone replaces nobody.
  process.on('disconnect', () => { exit(1) })
}

async function serve (connection: ServerConnection, workers: Workers): Promise<Serving> {
  const app = await buildApp({ config, connection, logger, workers })
  // The boot waits a moment for the schema, so that the first request finds it, and for no longer.
  // And for what the Go service had counted, so that nobody sees a count begin again at zero.
  await Promise.race([keepSchemaCurrent(app, connection).then(() => app.counters.takenOver), sleep(2000)])
  const address = await listen(app)
  createIdleCollector().start()
  logger.info({ address, environment: config.environment }, 'listening')
  return { address, drain: signal => drain(app, signal), kill () {} }
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

/** Development migrates by itself, as soon as the database answers; production only says what is missing. */
async function keepSchemaCurrent (app: App, connection: ServerConnection): Promise<void> {
  if (config.environment === 'production') {
    await app.services.dependencies.status()
    return
  }
  for (let attempt = 1; ; attempt++) {
    try {
      const applied = await migrate(connection)
      if (applied.length > 0) logger.info({ applied }, 'database migrated')
      return
    } catch (error) {
      logger.error({ err: error }, 'the database could not be migrated; trying again')
      await sleep(Math.min(500 * attempt, 5000))
    }
  }
}

function readConfigOrExit (): Readonly<Config> {
  try {
    return loadConfig(process.env)
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
    : `Redis at ${'url' in config.redis ? new URL(config.redis.url).host : `${config.redis.host}:${config.redis.port}`}`
  process.stdout.write([
    '',
    `  HALO API (${config.environment}, Node ${process.versions.node})`,
    `  database   ${database.description}`,
    `  counters   ${redis}`,
    ...config.workers > 1 ? [`  processes  ${config.workers} (WEB_CONCURRENCY)`] : [],
    `  listening  ${base}/api/v1`,
    `  API page   ${base}/docs`,
    '  sample data: npm run seed      stop: Ctrl-C',
    '', ''
  ].join('\n'))
}

/**
 * Not ready, then (after the delay in which balancers notice) no new connections, then what is in flight is answered,
 * then the stores close in the reverse order of their opening. Each phase is bounded.
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

/** SIGTERM and Ctrl-C: drains, then exits 0. A second signal ends all at once. */
function stopOnSignal ({ drain, kill }: Serving, database: OpenDatabase): void {
  let isStopping = false
  async function end (signal: string): Promise<void> {
    if (isStopping) {
      logger.warn({ signal }, 'second signal: exit at once')
      kill()
      exit(1)
    }
    isStopping = true
    const code = await drain(signal)
    await database.stop()
    exit(code)
  }
  for (const signal of ['SIGTERM', 'SIGINT'] as const) {
    process.on(signal, () => { end(signal).catch((error: unknown) => { logger.fatal({ err: error }, 'the stop failed'); exit(1) }) })
  }
}

function exit (code: number): never {
  destination.flushSync()
  process.exit(code)
}

process.on('uncaughtException', error => {
  // The state of the process is unknown from here on; whoever runs it starts a new one.
  logger.fatal({ err: error }, 'uncaught exception')
  destination.flushSync()
  process.exit(1)
})

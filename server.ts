import { setTimeout as sleep } from 'node:timers/promises'
import pino from 'pino'
import { buildApp } from './app.ts'
import { loadConfig, type Config, type ServerConnection } from './fastify.config.ts'
import { migrate } from './db/migrate.ts'
import { openDatabase, type OpenDatabase } from './db/open-database.ts'
import { ConfigurationError } from './services/configuration-error.ts'

type App = Awaited<ReturnType<typeof buildApp>>

const config = readConfigOrExit()
// Lines leave in batches, at the latest each second: one write for each request costs more than its routing.
const destination = pino.destination({ fd: 1, sync: false, minLength: 4096, periodicFlush: 1000 })
const logger = pino({
  level: config.log.level,
  redact: ['req.headers.authorization', 'password', 'token', 'refresh_token']
}, destination)

await main().catch((error: unknown) => {
  logger.fatal({ err: error }, 'the boot failed')
  destination.flushSync()
  process.stderr.write(`\nHALO API could not start: ${(error as Error).message}\n`)
  process.exit(1)
})

async function main (): Promise<void> {
  const database = await openDatabase(config.database)
  try {
    await serve(database)
  } catch (error) {
    await database.stop()
    throw error
  }
}

async function serve (database: OpenDatabase): Promise<void> {
  const app = await buildApp({ config, connection: database.connection, logger })
  // The boot waits a moment for the schema, so that the first request finds it, and for no longer.
  // And for what the Go service had counted, so that nobody sees a count begin again at zero.
  await Promise.race([keepSchemaCurrent(app, database.connection).then(() => app.counters.takenOver), sleep(2000)])
  const address = await listen(app)
  drainOnSignal(app, database)
  logger.info({ address, environment: config.environment }, 'listening')
  if (config.environment !== 'production') printWelcome(address, database)
}

async function listen (app: App): Promise<string> {
  try {
    return await app.listen({ host: config.server.host, port: config.server.port })
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
    `  listening  ${base}/api/v1`,
    `  API page   ${base}/docs`,
    '  sample data: npm run seed      stop: Ctrl-C',
    '', ''
  ].join('\n'))
}

/**
 * SIGTERM: not ready, then (after the delay in which balancers notice) no new connections, then what is in
 * flight is answered, then the stores close in the reverse order of their opening, then exit 0. Each phase is
 * bounded. A second signal ends the process at once.
 */
function drainOnSignal (app: App, database: OpenDatabase): void {
  let isDraining = false
  async function drain (signal: string): Promise<void> {
    if (isDraining) {
      logger.warn({ signal }, 'second signal: exit at once')
      destination.flushSync()
      process.exit(1)
    }
    isDraining = true
    app.lifecycle.isDraining = true
    logger.info({ signal, delayMs: config.server.drainDelayMs }, 'draining')
    await sleep(config.server.drainDelayMs)
    const isClosed = await Promise.race([
      app.close().then(() => true),
      sleep(config.server.drainTimeoutMs, false, { ref: false })
    ])
    if (!isClosed) logger.error('requests were still in flight after SERVER_DRAIN_TIMEOUT')
    await database.stop()
    logger.info({ isClosed }, 'stopped')
    destination.flushSync()
    process.exit(isClosed ? 0 : 1)
  }
  for (const signal of ['SIGTERM', 'SIGINT'] as const) process.on(signal, () => { drain(signal) })
}

process.on('uncaughtException', error => {
  // The state of the process is unknown from here on; whoever runs it starts a new one.
  logger.fatal({ err: error }, 'uncaught exception')
  destination.flushSync()
  process.exit(1)
})

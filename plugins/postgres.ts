import postgres from '@fastify/postgres'
import type { FastifyInstance } from 'fastify'
import fp from 'fastify-plugin'
import pg from 'pg'
import type { ServerConnection } from '../fastify.config.ts'
import { integersAsNumbers } from '../db/integers.ts'
import { requiredSchemaVersion, requireUtf8, schemaVersion } from '../db/migrate.ts'
import type { Dependency } from '../services/stores/health-checks.ts'

declare module 'fastify' {
  interface FastifyInstance {
    postgresChecks: Dependency[]
    /** Connections for background work, which may take longer and must not delay requests. */
    backgroundPool: pg.Pool
    /** One connection for reads that must not be delayed by others. */
    watchPool: pg.Pool
    /** Connections to a streaming replica, where one is configured. */
    replicaPool: pg.Pool | undefined
    /** One connection to it, for cancelling statements. */
    replicaControlPool: pg.Pool | undefined
  }
}

export interface PostgresOptions {
  connection: ServerConnection
}

/**
 * Timeouts in milliseconds. A request waits for a connection and then for its statement, and must be answered within
 * a second even if the server accepts connections and does not answer.
 */
const connectMs = 400
const statementMs = 450
const backgroundStatementMs = 10_000
const watchStatementMs = 2000

/** The connection pools, and the health checks of PostgreSQL and its schema. */
export default fp<PostgresOptions>(async function haloPostgres (app, { connection }) {
  const { databasePool, databaseReplica } = app.config
  // A time limit on the server, so that an abandoned statement ends. PgBouncer refuses it as a startup parameter.
  const stoppedAfter = (ms: number) => databasePool.isPrepared ? { statement_timeout: ms } : {}
  const ofRequests = {
    application_name: 'halo-api',
    max: databasePool.max,
    min: databasePool.min,
    maxLifetimeSeconds: databasePool.maxLifetimeSeconds,
    connectionTimeoutMillis: connectMs,
    ...stoppedAfter(statementMs),
    // For a silent server.
    query_timeout: statementMs,
    keepAlive: true,
    types: integersAsNumbers
  }
  await app.register(postgres, { ...connection, ...ofRequests })
  // Without an error listener a broken connection would end the process. The pool listens to idle connections only;
  // errors of busy ones are reported by their statement.
  app.pg.pool.on('error', error => app.log.warn({ cause: error.message }, 'an idle PostgreSQL connection broke'))
  app.pg.pool.on('connect', client => {
    client.on('error', () => {})
  })

  const background = openPool(app, {
    ...connection,
    application_name: 'halo-api-background',
    max: 2,
    connectionTimeoutMillis: 1000,
    ...stoppedAfter(backgroundStatementMs),
    query_timeout: backgroundStatementMs + 1000,
    keepAlive: true,
    types: integersAsNumbers
  })
  app.decorate('backgroundPool', background)

  app.decorate(
    'watchPool',
    openPool(app, {
      ...connection,
      application_name: 'halo-api-watch',
      max: 1,
      connectionTimeoutMillis: connectMs,
      ...stoppedAfter(watchStatementMs),
      query_timeout: watchStatementMs,
      keepAlive: true,
      types: integersAsNumbers
    })
  )

  app.decorate(
    'replicaPool',
    databaseReplica === null ? undefined : openPool(app, { ...databaseReplica, ...ofRequests })
  )
  app.decorate(
    'replicaControlPool',
    databaseReplica === null
      ? undefined
      : openPool(app, { ...databaseReplica, ...ofRequests, application_name: 'halo-api-control', max: 1, min: 0 })
  )

  // Probes have a connection of their own, because a busy pool does not mean that the database is unavailable; with
  // the settings of requests, because a database that refuses those is unavailable to them.
  const probe = openPool(app, { ...connection, ...ofRequests, application_name: 'halo-api-probe', max: 1, min: 0 })
  const prepared = (name: string, text: string) => databasePool.isPrepared ? { name, text } : { text }

  app.addHook('onReady', async () => {
    await Promise.all([app.pg.pool, app.replicaPool].map(async pool => {
      if (pool) await openConnections(pool, databasePool.min)
    }))
  })

  const required = await requiredSchemaVersion()
  app.decorate('postgresChecks', [
    {
      name: 'database',
      async check () {
        await probe.query(prepared('probe', 'select 1')).catch(explain)
      }
    },
    {
      name: 'schema',
      async check () {
        await requireUtf8(probe)
        const version = await schemaVersion(probe)
        if (version < required) {
          throw new Error(
            `The database has schema version ${version} and this service needs ${required}: run "npm run migrate"`
          )
        }
        const { rows: [rights] } = await probe.query<{ missing: string | null }>(
          prepared('missing_rights', missingRights)
        )
        if (rights?.missing) throw new Error(`The user of the database has no right to: ${rights.missing}; grant them`)
      }
    }
  ])
}, { name: 'halo:postgres', dependencies: ['halo:config', 'halo:errors'] })

/**
 * Opens a further pool. It ignores connection errors, which its statements report, and is closed with the
 * application.
 */
function openPool (app: FastifyInstance, config: pg.PoolConfig): pg.Pool {
  const pool = new pg.Pool(config)
  pool.on('error', () => {})
  pool.on('connect', client => {
    client.on('error', () => {})
  })
  app.addHook('onClose', () => pool.end())
  return pool
}

/**
 * Opens connections, so that the first requests need not. If the database is unavailable, `/readyz` reports it, and
 * connections are opened when they are needed.
 */
async function openConnections (pool: pg.Pool, count: number): Promise<void> {
  const opened = await Promise.allSettled(Array.from({ length: count }, () => pool.connect()))
  for (const outcome of opened) if (outcome.status === 'fulfilled') outcome.value.release()
}

/** The rights that requests need on each table. The health check reports missing ones, before a request fails. */
const rights = {
  users: 'select, insert, update, delete',
  videos: 'select, insert, update, delete',
  video_counters: 'select, insert, update',
  video_likes: 'select, insert, update, delete',
  comment_receipts: 'select, insert, delete',
  counter_tombstones: 'select, insert, delete',
  counter_fences: 'select, insert, update',
  sessions: 'select, insert, update, delete',
  revocations: 'select, insert, delete',
  login_attempts: 'select, insert, update, delete',
  known_addresses: 'select, insert, update, delete',
  deleted_users: 'select, insert, delete',
  creation_receipts: 'select, insert, delete'
}

const missingRights = `
  select string_agg(format('%s on %s', privilege, name), ', ') as missing
  from (values ${
  Object.entries(rights).flatMap(([table, list]) => list.split(', ').map(right => `('${table}', '${right}')`)).join(
    ', '
  )
}) as needed (name, privilege)
  where not has_table_privilege(name, privilege)`

/** Adds the remedy to an error that does not contain it. */
function explain (error: Error): never {
  if (/unsupported startup parameter/i.test(error.message)) {
    error.message += ': this is PgBouncer; set DB_PREPARED_STATEMENTS=false'
  }
  throw error
}

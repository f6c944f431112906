import postgres from '@fastify/postgres'
import type { FastifyInstance } from 'fastify'
import fp from 'fastify-plugin'
import pg from 'pg'
import type { ServerConnection } from '../fastify.config.ts'
import { integersAsNumbers } from '../db/integers.ts'
import { requiredSchemaVersion, schemaVersion } from '../db/migrate.ts'
import type { Dependency } from '../services/stores/health-checks.ts'

declare module 'fastify' {
  interface FastifyInstance {
    postgresChecks: Dependency[]
    /** Connections for work that no request waits for: it may take longer, and must not stand in a request's way. */
    backgroundPool: pg.Pool
    /** One connection for what must be learnt in time, whatever else goes on. */
    watchPool: pg.Pool
    /** Connections to a streaming replica, where one is configured. */
    replicaPool: pg.Pool | undefined
    /** One connection to it, for stopping what nobody waits for. */
    replicaControlPool: pg.Pool | undefined
  }
}

export interface PostgresOptions {
  connection: ServerConnection
}

/**
 * Milliseconds. A request may wait for a connection and then for its statement and must still be answered
 * within a second, also by a server that accepts connections and says nothing.
 */
const connectMs = 400
const statementMs = 450
const backgroundStatementMs = 10_000
const watchStatementMs = 2000

/** The connection pool, and the questions whether PostgreSQL answers and has the right schema. */
export default fp<PostgresOptions>(async function haloPostgres (app, { connection }) {
  const { databasePool, databaseReplica } = app.config
  // On the server, so that a statement nobody waits for stops working. PgBouncer refuses it as a startup parameter.
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
  // Without a listener a connection that breaks would end the process: the pool hears its idle ones, and
  // nobody those that a statement is running on (the statement itself reports the error).
  app.pg.pool.on('error', error => app.log.warn({ cause: error.message }, 'an idle PostgreSQL connection broke'))
  app.pg.pool.on('connect', client => { client.on('error', () => {}) })

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

  app.decorate('watchPool', openPool(app, {
    ...connection,
    application_name: 'halo-api-watch',
    max: 1,
    connectionTimeoutMillis: connectMs,
    ...stoppedAfter(watchStatementMs),
    query_timeout: watchStatementMs,
    keepAlive: true,
    types: integersAsNumbers
  }))

  app.decorate('replicaPool', databaseReplica === null ? undefined : openPool(app, { ...databaseReplica, ...ofRequests }))
  app.decorate('replicaControlPool', databaseReplica === null
    ? undefined
    : openPool(app, { ...databaseReplica, ...ofRequests, application_name: 'halo-api-control', max: 1, min: 0 }))

  // Probes have a connection of their own, because a pool that is busy is not a database that is unavailable; and the same
  // settings, because a database that refuses those of requests is unavailable to them.
  const probe = openPool(app, { ...connection, ...ofRequests, application_name: 'halo-api-probe', max: 1, min: 0 })
  const prepared = (name: string, text: string) => databasePool.isPrepared ? { name, text } : { text }

  app.addHook('onReady', async () => {
    await Promise.all([app.pg.pool, app.replicaPool].map(async pool => { if (pool) await openConnections(pool, databasePool.min) }))
  })

  const required = await requiredSchemaVersion()
  app.decorate('postgresChecks', [
    {
      name: 'database',
      async check () { await probe.query(prepared('probe', 'select 1')).catch(explain) }
    },
    {
      name: 'schema',
      async check () {
        const version = await schemaVersion(probe)
        if (version < required) {
          throw new Error(`The database has schema version ${version} and this service needs ${required}: run "npm run migrate"`)
        }
        const { rows: [rights] } = await probe.query<{ missing: string | null }>(prepared('missing_rights', missingRights))
        if (rights?.missing) throw new Error(`The user of the database has no right to: ${rights.missing}; grant them`)
      }
    }
  ])
}, { name: 'halo:postgres', dependencies: ['halo:config', 'halo:errors'] })

/** A pool beside the main one: it hears its errors, which its statements report, and ends with the application. */
function openPool (app: FastifyInstance, config: pg.PoolConfig): pg.Pool {
  const pool = new pg.Pool(config)
  pool.on('error', () => {})
  pool.on('connect', client => { client.on('error', () => {}) })
  app.addHook('onClose', () => pool.end())
  return pool
}

/**
 * Opens connections, so that the first requests do not all open one at once. A database that is unavailable is no error: `/readyz` tells
 * of it, and the connections are opened when they are needed.
 */
async function openConnections (pool: pg.Pool, count: number): Promise<void> {
  const opened = await Promise.allSettled(Array.from({ length: count }, () => pool.connect()))
  for (const outcome of opened) if (outcome.status === 'fulfilled') outcome.value.release()
}

/** What a request needs to do with each table; checked by the probe, so that a missing grant is named before a user meets it. */
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
  deleted_users: 'select, insert, delete'
}

const missingRights = `
  select string_agg(format('%s on %s', privilege, name), ', ') as missing
  from (values ${Object.entries(rights).flatMap(([table, list]) => list.split(', ').map(right => `('${table}', '${right}')`)).join(', ')}) as needed (name, privilege)
  where not has_table_privilege(name, privilege)`

/** Adds what to do where the error alone does not say it. */
function explain (error: Error): never {
  if (/unsupported startup parameter/i.test(error.message)) error.message += ': this is PgBouncer; set DB_PREPARED_STATEMENTS=false'
  throw error
}

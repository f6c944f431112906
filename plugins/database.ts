import fp from 'fastify-plugin'
import { createDatabase, type Database } from '../services/stores/database.ts'
import { createBoundedQueue, type BoundedQueue } from '../services/traffic/bounded-queue.ts'
import { labelsOf } from '../services/runtime/metrics.ts'
import { createReplicaRouter, type ReadDatabase, type ReplicaRouter } from '../services/stores/replica-router.ts'

declare module 'fastify' {
  interface FastifyInstance {
    /** For statements of requests. */
    database: Database
    /** The queue in front of it. */
    databaseQueue: BoundedQueue
    /** For background work. */
    backgroundDatabase: Database
    /** For reads that must not be delayed by others (revocations). */
    watchDatabase: Database
    /** For reads that may be slightly stale: the replica while its lag is small, otherwise the primary. */
    readDatabase: ReadDatabase
    /** Undefined without a replica. */
    replicaRouter: ReplicaRouter | undefined
  }
}

/**
 * Concurrency limit of the statements of requests. Many more than the database has CPUs only make each other slower,
 * until all of them exceed their time limit.
 */
const maxConcurrent = 20

/** Databases on top of the connection pools: with a bounded queue, and errors of the catalogue. */
export default fp(async function database (app) {
  const { max, isPrepared } = app.config.databasePool
  const { meters } = app
  const duration = meters.histogramBy(
    'halo_database_statement_duration_seconds',
    'Duration of SQL statements, by name',
    'statement'
  )
  const waiting = meters.histogram(
    'halo_database_connection_wait_seconds',
    'Time that a statement waited for a connection of the pool, or until there was none'
  )('')
  const onStatement = (name: string, waited: number, took: number): void => {
    waiting(waited)
    if (name !== '') duration(name, took)
  }
  const { backgroundPool, watchPool, replicaPool } = app
  const pools = { requests: app.pg.pool, background: backgroundPool, watch: watchPool, replica: replicaPool }
  meters.gauge('halo_database_connections', 'Connections of the pools, by pool and state', 'sum', () =>
    Object.entries(pools).flatMap(([pool, connections]) =>
      connections
        ? [
            [labelsOf({ pool, state: 'idle' }), connections.idleCount],
            [labelsOf({ pool, state: 'busy' }), connections.totalCount - connections.idleCount]
          ] as const
        : []
    ))
  meters.gauge('halo_database_connection_waiting', 'Callers that wait for a connection, by pool', 'sum', () =>
    Object.entries(pools).flatMap(([pool, connections]) =>
      connections ? [[labelsOf({ pool }), connections.waitingCount] as const] : []
    ))
  meters.gauge('halo_database_connections_max', 'Size of the pool of requests', 'sum', () => max)
  const createQueue = () =>
    createBoundedQueue({ concurrency: Math.min(max, maxConcurrent), maxWaiting: max * 10, maxWaitMs: 400, usualMs: 5 })
  const queue = createQueue()
  const primary = createDatabase({
    pool: app.pg.pool,
    queue,
    control: isPrepared ? app.backgroundPool : undefined,
    onStatement,
    isPrepared
  })
  // Background statements may take long.
  const background = (concurrency: number, maxWaiting: number) =>
    createBoundedQueue({ concurrency, maxWaiting, maxWaitMs: 1000, usualMs: 0 })
  app.decorate('databaseQueue', queue)
  app.decorate('database', primary)
  app.decorate(
    'backgroundDatabase',
    createDatabase({ pool: app.backgroundPool, queue: background(2, 100), onStatement, isPrepared })
  )
  app.decorate('watchDatabase', createDatabase({ pool: app.watchPool, queue: background(1, 2), onStatement, isPrepared }))

  const replica = app.replicaPool && createReplicaRouter({
    primary,
    replica: createDatabase({
      pool: app.replicaPool,
      queue: createQueue(),
      control: isPrepared ? app.replicaControlPool : undefined,
      onStatement,
      isPrepared
    }),
    onChange (isUsed, lagMs) {
      if (isUsed) app.log.info({ lagMs: Math.round(lagMs) }, 'reads go to the replica')
      else app.log.warn('the replica lags behind or is unavailable: reads go to the primary')
    }
  })
  app.decorate('replicaRouter', replica)
  // Not a copy of `database.query`: a test that replaces it replaces these reads as well.
  app.decorate<ReadDatabase>(
    'readDatabase',
    replica ?? { maxAgeMs: 0, query: (statement, values, signal) => app.database.query(statement, values, signal) }
  )
  if (replica) {
    app.addHook('onReady', async () => {
      replica.start()
    })
    app.addHook('onClose', async () => {
      replica.close()
    })
  }
}, { name: 'halo:database', dependencies: ['halo:config', 'halo:meters', 'halo:postgres'] })

import fp from 'fastify-plugin'
import { createDatabase, type Database } from '../services/stores/database.ts'
import { createBoundedQueue, type BoundedQueue } from '../services/traffic/bounded-queue.ts'
import { createReplicaRouter, type ReadDatabase, type ReplicaRouter } from '../services/stores/replica-router.ts'

declare module 'fastify' {
  interface FastifyInstance {
    /** What requests wait for. */
    database: Database
    /** The queue of the statements that requests wait for. */
    databaseQueue: BoundedQueue
    /** What no request waits for. */
    backgroundDatabase: Database
    /** What must be learnt in time. */
    watchDatabase: Database
    /** For reads that may be a moment old: a replica close behind, or the primary. */
    readDatabase: ReadDatabase
    /** Undefined without a replica. */
    replicaRouter: ReplicaRouter | undefined
  }
}

/**
 * Statements of requests that run at once, at the most. More than a database has processors for make each other slower, until
 * all of them meet their time limit.
 */
const maxConcurrent = 20

/** Statements on the pools, with a bounded queue and errors that the service knows. */
export default fp(async function database (app) {
  const { max, isPrepared } = app.config.databasePool
  const createQueue = () => createBoundedQueue({ concurrency: Math.min(max, maxConcurrent), maxWaiting: max * 10, maxWaitMs: 400, usualMs: 5 })
  const queue = createQueue()
  const primary = createDatabase({ pool: app.pg.pool, queue, control: isPrepared ? app.backgroundPool : undefined, isPrepared })
  // No request waits for these, and they may take long.
  const background = (concurrency: number, maxWaiting: number) => createBoundedQueue({ concurrency, maxWaiting, maxWaitMs: 1000, usualMs: 0 })
  app.decorate('databaseQueue', queue)
  app.decorate('database', primary)
  app.decorate('backgroundDatabase', createDatabase({ pool: app.backgroundPool, queue: background(2, 100), isPrepared }))
  app.decorate('watchDatabase', createDatabase({ pool: app.watchPool, queue: background(1, 2), isPrepared }))

  const replica = app.replicaPool && createReplicaRouter({
    primary,
    replica: createDatabase({ pool: app.replicaPool, queue: createQueue(), control: isPrepared ? app.replicaControlPool : undefined, isPrepared }),
    onChange (isUsed, lagMs) {
      if (isUsed) app.log.info({ lagMs: Math.round(lagMs) }, 'reads go to the replica')
      else app.log.warn('the replica lags or is unavailable: reads go to the primary')
    }
  })
  app.decorate('replicaRouter', replica)
  // Not the statements of the primary themselves: whoever replaces `database.query` replaces these reads too.
  app.decorate<ReadDatabase>('readDatabase', replica ?? { maxAgeMs: 0, query: (statement, values, signal) => app.database.query(statement, values, signal) })
  if (replica) {
    app.addHook('onReady', async () => { replica.start() })
    app.addHook('onClose', async () => { replica.close() })
  }
}, { name: 'halo:database', dependencies: ['halo:config', 'halo:postgres'] })

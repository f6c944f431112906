import fp from 'fastify-plugin'
import { createDatabase, type Database } from '../services/database.ts'
import { createStatementSlots, type StatementSlots } from '../services/statement-slots.ts'
import { createReplicaReads, type ReadDatabase, type ReplicaReads } from '../services/replica-reads.ts'

declare module 'fastify' {
  interface FastifyInstance {
    /** What requests wait for. */
    database: Database
    /** Those of the statements that requests wait for. */
    statementSlots: StatementSlots
    /** What no request waits for. */
    backgroundDatabase: Database
    /** What must be learnt in time. */
    watchDatabase: Database
    /** For reads that may be a moment old: a replica close behind, or the primary. */
    readDatabase: ReadDatabase
    /** Undefined without a replica. */
    replicaReads: ReplicaReads | undefined
  }
}

/** Statements on the pools, with a bounded queue and errors that the service knows. */
export default fp(async function database (app) {
  const { max, isPrepared } = app.config.databasePool
  // Ten callers for each connection: with statements of a few milliseconds the last one waits for less than its patience.
  const createSlots = () => createStatementSlots({ max, maxWaiting: max * 10 })
  const slots = createSlots()
  const primary = createDatabase({ pool: app.pg.pool, slots, control: isPrepared ? app.backgroundPool : undefined, isPrepared })
  // Nobody waits for these, and they may take long.
  const ofBackground = { maxWaitMs: 1000, patienceMs: 1000, slowMs: Infinity }
  const background = createDatabase({ pool: app.backgroundPool, slots: createStatementSlots({ ...ofBackground, max: 2, maxWaiting: 100 }), isPrepared })
  app.decorate('statementSlots', slots)
  app.decorate('database', primary)
  app.decorate('backgroundDatabase', background)
  app.decorate('watchDatabase', createDatabase({ pool: app.watchPool, slots: createStatementSlots({ ...ofBackground, max: 1, maxWaiting: 2 }), isPrepared }))

  const replica = app.replicaPool && createReplicaReads({
    primary,
    replica: createDatabase({ pool: app.replicaPool, slots: createSlots(), control: isPrepared ? app.replicaControlPool : undefined, isPrepared }),
    onChange (isUsed, lagMs) {
      if (isUsed) app.log.info({ lagMs: Math.round(lagMs) }, 'reads go to the replica')
      else app.log.warn('the replica lags or is away: reads go to the primary')
    }
  })
  app.decorate('replicaReads', replica)
  // Not the statements of the primary themselves: whoever replaces `database.query` replaces these reads too.
  app.decorate<ReadDatabase>('readDatabase', replica ?? { maxAgeMs: 0, query: (statement, values, interest) => app.database.query(statement, values, interest) })
  if (replica) {
    app.addHook('onReady', async () => { replica.start() })
    app.addHook('onClose', async () => { replica.close() })
  }
}, { name: 'halo:database', dependencies: ['halo:config', 'halo:postgres'] })

import pg from 'pg'
import { loadConfig } from '../fastify.config.ts'
import { connectRedis } from '../services/stores/redis-connection.ts'
import { readCommandLine, refuse } from '../services/runtime/command-line.ts'
import { ConfigurationError } from '../services/runtime/configuration-error.ts'
import { createLedger } from '../services/engagement/counters/ledger.ts'
import { takeOver } from '../services/engagement/counters/takeover.ts'
import { describe, repairCounters, verifyCounters } from '../services/engagement/counters/verify.ts'
import { createDatabase } from '../services/stores/database.ts'
import { integersAsNumbers } from './integers.ts'
import { openDatabase } from './open-database.ts'

const usage = `Usage: npm run counters:verify [-- --repair]
       npm run counters:takeover

verify recounts the likes from their rows and compares Redis with PostgreSQL, while the service goes on; --repair
mends what differs. It exits 1 when something differs. takeover imports the counts of the Go service again.
`

/**
 * `npm run counters:verify` and `counters:takeover`, for operators. Exits with 1 when there is drift, or the check
 * failed.
 */
const { command, isRepair } = readArguments()
try {
  const config = loadConfig({
    ...process.env,
    JWT_SECRET_KEY: process.env['JWT_SECRET_KEY'] ?? 'not needed for counters, which sign nothing'
  })
  const opened = await openDatabase(config.database)
  const pool = new pg.Pool({
    ...opened.connection,
    application_name: 'halo-counters',
    max: 2,
    connectionTimeoutMillis: 5000,
    types: integersAsNumbers
  })
  const redis = config.redis === null ? undefined : connectRedis(config.redis)
  try {
    await redis?.connect()
    const database = createDatabase({ pool })
    if (command === 'takeover') {
      if (!redis) {
        throw new ConfigurationError([
          'REDIS_URL (or REDIS_HOST) is missing: name the Redis in which the Go service had counted'
        ])
      }
      const { videos, skipped } = (await takeOver(redis, createLedger(database, database), { force: true }))!
      process.stdout.write(
        `Imported the counts of ${videos} videos; ${skipped} keys were not a count of an existing video.\n`
      )
    } else {
      await verify({ database, redis }, isRepair)
    }
  } finally {
    redis?.disconnect()
    await pool.end()
    await opened.stop()
  }
} catch (error) {
  process.stderr.write(
    `${error instanceof ConfigurationError ? error.message : `The check failed: ${(error as Error).message}`}\n`
  )
  process.exitCode = 1
}

async function verify (stores: Parameters<typeof verifyCounters>[0], isRepair: boolean): Promise<void> {
  const { videos, drifts } = await verifyCounters(stores)
  for (const drift of drifts.slice(0, 100)) process.stdout.write(`${describe(drift)}\n`)
  if (drifts.length > 100) process.stdout.write(`and ${drifts.length - 100} more\n`)
  process.stdout.write(
    `Recounted ${videos} videos${stores.redis ? ' in PostgreSQL and Redis' : ' in PostgreSQL'}: ${
      drifts.length === 0 ? 'no drift' : `${drifts.length} drifts`
    }.\n`
  )
  if (drifts.length > 0 && isRepair) {
    await repairCounters(stores, drifts)
    const left = await verifyCounters(stores)
    process.stdout.write(
      left.drifts.length === 0 ? 'All repaired.\n' : `${left.drifts.length} could not be repaired yet: run it again.\n`
    )
    process.exitCode = left.drifts.length === 0 ? 0 : 1
  } else if (drifts.length > 0) {
    process.stdout.write('Repair them with: npm run counters:verify -- --repair\n')
    process.exitCode = 1
  }
}

function readArguments (): { command: 'verify' | 'takeover', isRepair: boolean } {
  const { values, positionals: [command, ...rest] } = readCommandLine({
    usage,
    allowPositionals: true,
    options: { repair: { type: 'boolean', default: false } }
  })
  if (rest.length > 0 || (command !== 'verify' && command !== 'takeover')) {
    refuse(`the command is ${JSON.stringify([command, ...rest].join(' '))}: use verify or takeover`)
  }
  if (command === 'takeover' && values.repair) refuse('--repair belongs to verify')
  return { command, isRepair: values.repair }
}

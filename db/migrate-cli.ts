import { loadConfig } from '../fastify.config.ts'
import { readCommandLine, refuse } from '../services/runtime/command-line.ts'
import { ConfigurationError } from '../services/runtime/configuration-error.ts'
import { migrate, MigrationRefused } from './migrate.ts'
import { openDatabase } from './open-database.ts'

const usage = `Usage: npm run migrate [-- VERSION] [-- VERSION --allow-data-loss]

Brings the database to the newest schema, or to the given version. Going down drops tables and columns with all that is in
them: without --allow-data-loss it says which, and changes nothing. --production sets NODE_ENV=production.
`

const { target, allowsDataLoss } = readArguments()
try {
  const database = await openDatabase(loadConfig(migrationEnvironment()).database)
  try {
    const messages = new Set<string>()
    const applied = await migrate(database.connection, {
      target,
      allowsDataLoss,
      connectPatienceMs: 30_000,
      onWait (message) {
        if (!messages.has(message)) process.stderr.write(`${message}\n`)
        messages.add(message)
      },
      onNotice (message) {
        process.stderr.write(`${message}\n`)
      }
    })
    process.stdout.write(
      applied.length > 0
        ? applied.map(name => `applied ${name}\n`).join('')
        : 'The schema is current; nothing to do.\n'
    )
  } finally {
    await database.stop()
  }
} catch (error) {
  const isOurs = error instanceof ConfigurationError || error instanceof MigrationRefused
  process.stderr.write(
    `${
      isOurs
        ? (error as Error).message
        : `The migration failed and was rolled back; earlier migrations stay: ${(error as Error).message}`
    }\n`
  )
  process.exitCode = 1
}

function readArguments (): { target: number | undefined, allowsDataLoss: boolean } {
  const { values, positionals: [wanted, ...more] } = readCommandLine({
    usage,
    allowPositionals: true,
    options: {
      'allow-data-loss': { type: 'boolean', default: false },
      production: { type: 'boolean', default: false }
    }
  })
  if (values.production) process.env['NODE_ENV'] = 'production'
  if (more.length > 0 || (wanted !== undefined && !/^\d{1,6}$/.test(wanted))) {
    refuse(
      `the schema version is ${JSON.stringify([wanted, ...more].join(' '))}: use a whole number, or none for the newest`
    )
  }
  return { target: wanted === undefined ? undefined : Number(wanted), allowsDataLoss: values['allow-data-loss'] }
}

/** A migration needs the database and no other setting that production requires. */
function migrationEnvironment (): Record<string, string | undefined> {
  const { NODE_ENV, ...rest } = process.env
  if (NODE_ENV === 'production' && !rest['DATABASE_URL'] && !rest['DB_HOST']) {
    throw new ConfigurationError(['DATABASE_URL (or DB_HOST) is missing: name the PostgreSQL server to migrate'])
  }
  return Object.fromEntries(Object.entries(rest).filter(([name]) => name.startsWith('D')))
}

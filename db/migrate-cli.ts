import { loadConfig } from '../fastify.config.ts'
import { ConfigurationError } from '../services/configuration-error.ts'
import { migrate } from './migrate.ts'
import { openDatabase } from './open-database.ts'

/** `npm run migrate [version]`: brings the database to the newest schema, or to the given one. */
try {
  const wanted = process.argv[2]
  const target = wanted === undefined ? undefined : Number(wanted)
  if (target !== undefined && !Number.isInteger(target)) {
    throw new ConfigurationError([`the schema version is ${JSON.stringify(wanted)}: use a whole number, or none for the newest`])
  }
  const database = await openDatabase(loadConfig(migrationEnvironment()).database)
  try {
    const applied = await migrate(database.connection, target)
    process.stdout.write(applied.length > 0
      ? applied.map(name => `applied ${name}\n`).join('')
      : 'The schema is current; nothing to do.\n')
  } finally {
    await database.stop()
  }
} catch (error) {
  process.stderr.write(`${error instanceof ConfigurationError ? error.message : `The migration failed and changed nothing: ${(error as Error).message}`}\n`)
  process.exitCode = 1
}

/** A migration needs the database and nothing else of what production insists on. */
function migrationEnvironment (): Record<string, string | undefined> {
  const { NODE_ENV, ...rest } = process.env
  if (NODE_ENV === 'production' && !rest['DATABASE_URL'] && !rest['DB_HOST']) {
    throw new ConfigurationError(['DATABASE_URL (or DB_HOST) is missing: name the PostgreSQL server to migrate'])
  }
  return Object.fromEntries(Object.entries(rest).filter(([name]) => name.startsWith('D')))
}

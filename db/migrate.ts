import { readdir } from 'node:fs/promises'
import { join } from 'node:path'
import pg from 'pg'
import type Postgrator from 'postgrator'
import type { ServerConnection } from '../fastify.config.ts'

const directory = join(import.meta.dirname, 'migrations')

/** Any number will do, as long as every HALO process takes the same: 'HALO' in ASCII. */
const lockKey = 0x48414c4f

interface Runner {
  query (text: string): Promise<{ rows: unknown[] }>
}

/** Loaded where something is migrated: who serves needs none of it. */
async function postgrator (client: Runner): Promise<Postgrator> {
  const { default: Postgrator } = await import('postgrator')
  return new Postgrator({
    driver: 'pg',
    migrationPattern: join(directory, '*.sql').replaceAll('\\', '/'),
    // A name of its own: other tools' tables are called schemaversion too.
    schemaTable: 'halo_schema_version',
    newline: 'LF',
    execQuery: query => client.query(query)
  })
}

/**
 * Brings the database to the newest schema, or to `target`. All migrations run in one transaction that
 * holds an advisory lock: of many processes at once one applies and the others wait and find nothing to
 * do, and a migration that fails leaves the schema as it was.
 *
 * @returns the names of the migrations that this call applied
 * @throws the database's error; nothing was applied then
 */
export async function migrate (connection: ServerConnection, target?: number): Promise<string[]> {
  const client = new pg.Client({ ...connection, connectionTimeoutMillis: 5000 })
  // An error on an idle client would end the process; the query under way reports it.
  client.on('error', () => {})
  await client.connect()
  try {
    await client.query('begin')
    await client.query(`select pg_advisory_xact_lock(${lockKey})`)
    const applied = await (await postgrator(client)).migrate(target === undefined ? '' : String(target))
    await client.query('commit')
    return applied.map(migration => `${String(migration.version).padStart(3, '0')}.${migration.action}.${migration.name}`)
  } catch (error) {
    await client.query('rollback').catch(() => {})
    throw error
  } finally {
    await client.end().catch(() => {})
  }
}

/** The schema version that this build of the service was written for. */
export async function requiredSchemaVersion (): Promise<number> {
  return Math.max(...(await readdir(directory)).map(name => Number.parseInt(name)))
}

/** The schema version that the database has; 0 for one that was never migrated. */
export async function schemaVersion (client: { query (text: string): Promise<{ rows: { version?: unknown }[] }> }): Promise<number> {
  const { rows: [table] } = await client.query('select to_regclass(\'halo_schema_version\')::text as version')
  if (table?.version == null) return 0
  const { rows: [row] } = await client.query('select max(version)::int as version from halo_schema_version')
  return Number(row?.version ?? 0)
}

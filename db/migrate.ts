import { readdir, readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import pg from 'pg'
import type Postgrator from 'postgrator'
import type { ServerConnection } from '../fastify.config.ts'

const ownDirectory = join(import.meta.dirname, 'migrations')

/** Key of the advisory lock, the same in every HALO process: 'HALO' in ASCII. */
const lockKey = 0x48414c4f

/** First line of a migration whose statements run one by one, outside a transaction (`create index concurrently`). */
const noTransaction = '-- no transaction'

/**
 * Milliseconds that a migration waits for a lock on a table of a running service: requests queue behind it meanwhile.
 */
const lockTimeoutMs = 2000

/** Attempts of a migration that does not get its lock, and milliseconds between two of them. */
const maxTries = 30
const retryMs = 1000

/**
 * Triggers of other services on `users` and `videos` are off while a migration updates rows: the Go service's tables
 * may have one that sets updated_at. The statements that switch them on again are kept in a setting of the transaction.
 */
const disableForeignTriggers = `
  do $do$
  declare
    found record;
    enable text := '';
  begin
    for found in
      select format('%I.%I', current_schema(), c.relname) as table_name, t.tgname
      from pg_trigger t join pg_class c on c.oid = t.tgrelid join pg_proc p on p.oid = t.tgfoid
        join pg_namespace n on n.oid = c.relnamespace
      where n.nspname = current_schema() and c.relname in ('users', 'videos') and not t.tgisinternal and t.tgenabled = 'O'
        and t.tgtype & 16 = 16 and p.proname not in ('users_fill_keys', 'keep_updated_at')
    loop
      execute format('alter table %s disable trigger %I', found.table_name, found.tgname);
      enable := enable || format('alter table %s enable trigger %I;', found.table_name, found.tgname);
    end loop;
    perform set_config('halo.enable_triggers', enable, true);
  end
  $do$`
const enableForeignTriggers = `
  do $do$
  begin
    if current_setting('halo.enable_triggers') <> '' then execute current_setting('halo.enable_triggers'); end if;
  end
  $do$`

/** Beginning of notices of migrations that operators should read. */
const noticePrefix = 'HALO: '

export interface MigrateOptions {
  /** Schema version to reach; the newest when left out. */
  target?: number | undefined
  /** Whether migrations may be undone, which destroys data. */
  allowsDataLoss?: boolean
  /** Folder of the migrations; that of the service by default. */
  directory?: string
  /** Milliseconds to wait for another migrator. */
  patienceMs?: number
  /** Milliseconds to wait for a server that cannot be reached yet; by default the first failure is the last. */
  connectPatienceMs?: number
  onWait?: (message: string) => void
  /** Called with what a migration has to say, such as rows that it repaired. */
  onNotice?: (message: string) => void
}

/** A migration that was not started, for a reason that the operator can remove. */
export class MigrationRefused extends Error {
  override name = 'MigrationRefused'
}

/**
 * Migrates the database to the newest schema version, or to `target`. Each migration is one transaction together with
 * its row in the version table, unless it begins with `-- no transaction`: a failed one leaves the schema of the one
 * before.
 *
 * An advisory lock excludes other migrators. It is polled outside of any transaction, because the open transaction of
 * a waiting migrator would block a `create index concurrently` of the one that has the lock. It belongs to the
 * connection, so that it does not work through PgBouncer's transaction mode.
 *
 * @returns the names of the migrations that this call applied
 * @throws MigrationRefused for a version that does not exist, and for a lower one without `allowsDataLoss`; the
 *   database's error otherwise
 */
export async function migrate (
  connection: ServerConnection,
  options: MigrateOptions = {}
): Promise<string[]> {
  const { target, allowsDataLoss = false, directory = ownDirectory, patienceMs = 300_000 } = options
  const { onWait = () => {}, onNotice = () => {} } = options
  const newest = await newestVersion(directory)
  if (target !== undefined && (target < 0 || target > newest)) {
    throw new MigrationRefused(`There is no schema version ${target}: versions go from 0 to ${newest}`)
  }
  const client = await connect(connection, options)
  client.on('notice', ({ message = '' }) => {
    if (message.startsWith(noticePrefix)) onNotice(message.slice(noticePrefix.length))
  })
  try {
    await requireUtf8(client)
    await requireSchema(client)
    await lock(client, patienceMs, onWait)
    const current = await schemaVersion(client)
    const wanted = target ?? newest
    if (wanted < current && target === undefined) return []
    if (wanted < current && !allowsDataLoss) {
      throw new MigrationRefused(await describeLoss(client, directory, current, wanted))
    }
    return await applyAll(client, directory, wanted, onWait)
  } finally {
    await client.end().catch(() => {})
  }
}

/** @throws MigrationRefused for a database that cannot store every text */
export async function requireUtf8 (
  client: { query(text: string): Promise<{ rows: { encoding?: unknown }[] }> }
): Promise<void> {
  const { rows: [row] } = await client.query(
    'select pg_encoding_to_char(encoding) as encoding from pg_database where datname = current_database()'
  )
  if (row?.encoding !== 'UTF8') {
    throw new MigrationRefused(
      `The encoding of the database is ${String(row?.encoding)}, which cannot store every text: create one with UTF8`
    )
  }
}

/** Connects to the server; while it starts, or is not found yet, again each half second. */
async function connect (
  connection: ServerConnection,
  { connectPatienceMs = 0, onWait = () => {} }: MigrateOptions
): Promise<pg.Client> {
  for (const startedAt = performance.now(); ;) {
    const client = new pg.Client({ ...connection, connectionTimeoutMillis: 5000 })
    // An error on an idle client would end the process; the query under way reports it.
    client.on('error', () => {})
    try {
      await client.connect()
      return client
    } catch (error) {
      await client.end().catch(() => {})
      const { code = '' } = error as { code?: string }
      const isTemporary = ['ECONNREFUSED', 'ENOTFOUND', 'EAI_AGAIN', 'ETIMEDOUT', '57P03'].includes(code)
      if (!isTemporary || performance.now() - startedAt > connectPatienceMs) throw error
      onWait('the database cannot be reached yet; waiting for it')
      await sleep(500)
    }
  }
}

async function requireSchema (client: pg.Client): Promise<void> {
  const { rows: [row] } = await client.query<{ name: string | null, path: string }>(
    "select current_schema() as name, current_setting('search_path') as path"
  )
  if (row!.name === null) {
    throw new MigrationRefused(`The search_path (${row!.path}) names no schema that exists: create one first`)
  }
}

async function lock (client: pg.Client, patienceMs: number, onWait: (message: string) => void): Promise<void> {
  for (const startedAt = performance.now(); ;) {
    const { rows: [row] } = await client.query<{ is_mine: boolean }>(
      `select pg_try_advisory_lock(${lockKey}) as is_mine`
    )
    if (row!.is_mine) return
    if (performance.now() - startedAt > patienceMs) {
      throw new MigrationRefused(
        `Another migrator has held the lock for ${
          Math.round(patienceMs / 1000)
        } s: look for it in pg_locks (locktype advisory)`
      )
    }
    onWait('another migrator is at work; waiting for it')
    await sleep(250)
  }
}

async function applyAll (
  client: pg.Client,
  directory: string,
  wanted: number,
  onWait: (message: string) => void
): Promise<string[]> {
  const applied: string[] = []
  for (let tries = 1; ; tries++) {
    try {
      await (await postgrator(client, directory, name => {
        applied.push(name)
      })).migrate(String(wanted))
      return applied
    } catch (error) {
      await client.query('rollback').catch(() => {})
      if ((error as { code?: string }).code !== '55P03' || tries >= maxTries) throw error
      onWait(`a table is in use; trying again (${tries} of ${maxTries})`)
      await sleep(retryMs)
    }
  }
}

/** Imported only where migrations run: the service itself does not need it. */
async function postgrator (
  client: pg.Client,
  directory: string,
  onApplied: (name: string) => void
): Promise<Postgrator> {
  const { default: Postgrator } = await import('postgrator')
  const { rows } = await client.query<{ name: string }>('select current_schema() as name')
  let isOpen = false
  const runner = new Postgrator({
    driver: 'pg',
    migrationPattern: join(directory, '*.sql').replaceAll('\\', '/'),
    // A name of its own: other tools' tables are called schemaversion too.
    schemaTable: 'halo_schema_version',
    // Another schema of the same database may have a table of that name.
    currentSchema: rows[0]!.name.replaceAll("'", "''"),
    newline: 'LF',
    async execQuery (query) {
      // Postgrator would replace the search path by that schema alone, unquoted.
      if (/^set search_path/i.test(query)) return { rows: [] }
      const result = await client.query(query)
      // Postgrator's version row is part of the migration.
      if (isOpen && /^\s*(?:insert into|delete from)\s+"?halo_schema_version/i.test(query)) {
        isOpen = false
        await client.query('commit')
      }
      return result
    },
    async execSqlScript (script) {
      if (script.startsWith(noTransaction)) {
        for (const statement of statementsOf(script)) await client.query(statement)
        return
      }
      await client.query(`begin; set local lock_timeout = ${lockTimeoutMs}`)
      isOpen = true
      await client.query(disableForeignTriggers)
      await client.query(script)
      await client.query(enableForeignTriggers)
    }
  })
  runner.on('migration-finished', ({ version, action, name }) => {
    onApplied(`${String(version).padStart(3, '0')}.${action}.${name}`)
  })
  return runner
}

/** Splits a script into statements: each ends with a semicolon at the end of a line. */
function statementsOf (script: string): string[] {
  return script.split(/;[ \t]*(?:\n|$)/).map(text => text.replaceAll(/^--.*$/gm, '').trim()).filter(text => text !== '')
}

/** Describes what a migration to a lower version destroys: tables and columns, with their present rows. */
async function describeLoss (client: pg.Client, directory: string, current: number, wanted: number): Promise<string> {
  const names = await readdir(directory)
  const losses: string[] = []
  for (const name of names.filter(name => name.includes('.undo.')).sort().reverse()) {
    const version = Number.parseInt(name)
    if (version <= wanted || version > current) continue
    const script = await readFile(join(directory, name), 'utf8')
    for (const [, tables] of script.matchAll(/^drop table (?:if exists )?([^;]+?)(?: cascade)?;/gim)) {
      for (const table of tables!.split(',').map(one => one.trim())) {
        const { rows: [found] } = await client.query<{ name: string | null }>('select to_regclass($1)::text as name', [
          table
        ])
        if (!found?.name) continue
        const { rows: [row] } = await client.query<{ count: string }>(`select count(*) from ${found.name}`)
        losses.push(`${name}: table ${table} with ${Number(row!.count).toLocaleString('en')} rows`)
      }
    }
    for (const [, table, columns] of script.matchAll(/^alter table (\w+) ([^;]*drop column[^;]*);/gim)) {
      losses.push(
        `${name}: ${
          [...columns!.matchAll(/drop column (?:if exists )?(\w+)/gi)].map(([, column]) => `column ${table}.${column}`)
            .join(', ')
        }`
      )
    }
  }
  return [
    `Going down from version ${current} to ${wanted} destroys data, and needs --allow-data-loss. It would drop:`,
    ...losses.length > 0 ? losses.map(loss => `  ${loss}`) : ['  indexes and functions only']
  ].join('\n')
}

async function newestVersion (directory: string): Promise<number> {
  return Math.max(0, ...(await readdir(directory)).map(name => Number.parseInt(name)))
}

/** The schema version that this build of the service needs. */
export const requiredSchemaVersion = (): Promise<number> => newestVersion(ownDirectory)

/** Reads the schema version of a database; 0 if it was never migrated. */
export async function schemaVersion (
  client: { query(text: string): Promise<{ rows: { version?: unknown }[] }> }
): Promise<number> {
  const { rows: [table] } = await client.query(
    "select to_regclass(quote_ident(current_schema()) || '.halo_schema_version')::text as version"
  )
  if (table?.version == null) return 0
  const { rows: [row] } = await client.query('select max(version)::int as version from halo_schema_version')
  return Number(row?.version ?? 0)
}

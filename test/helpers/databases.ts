import { randomBytes } from 'node:crypto'
import pg from 'pg'
import type { Test } from 'tap'
import { migrate } from '../../db/migrate.ts'
import type { Stores } from './stores.ts'

/** Migrated databases of tests that have ended, by server, ready for the next test. */
const free = new Map<string, string[]>()

/** What a test could have changed of the schema; a database in which it is another than before is dropped. */
const fingerprint = `
  select md5(string_agg(line, e'\\n' order by line)) as schema from (
    select concat_ws(' ', 'column', c.relname, c.relkind, a.attname, a.atttypid, a.attnotnull, c.relacl) as line
      from pg_class c join pg_attribute a on a.attrelid = c.oid where c.relnamespace = 'public'::regnamespace
    union all select concat_ws(' ', 'trigger', t.tgrelid, t.tgname, t.tgenabled) from pg_trigger t where not t.tgisinternal
    union all select concat_ws(' ', 'constraint', c.conrelid, c.conname) from pg_constraint c
    union all select concat_ws(' ', 'function', p.oid, md5(p.prosrc), p.proacl) from pg_proc p where p.pronamespace = 'public'::regnamespace
    union all select concat_ws(' ', 'setting', s.setdatabase, s.setconfig) from pg_db_role_setting s join pg_database d on d.oid = s.setdatabase where d.datname = current_database()
    union all select concat_ws(' ', 'version', max(version)) from halo_schema_version
  ) as lines`

const clean = `
  do $$
  declare tables text;
  begin
    select string_agg(format('%I', relname), ', ') into tables from pg_class
      where relnamespace = 'public'::regnamespace and relkind = 'r' and relname <> 'halo_schema_version';
    execute 'truncate ' || tables || ' restart identity cascade';
    perform setval('counter_generations', 1, false);
  end $$`

const fingerprints = new Map<string, string>()

/** A database of the test's own, migrated unless told otherwise. It serves another test when this one has ended. */
export async function createDatabase (t: Test, { adminUrl }: Stores, { isMigrated = true } = {}): Promise<string> {
  if (isMigrated) {
    const url = free.get(adminUrl)?.pop() ?? await create(adminUrl, process.env['HALO_TEST_TEMPLATE'])
    if (!fingerprints.has(url)) fingerprints.set(url, await schemaOf(url))
    t.teardown(() => giveBack(adminUrl, url))
    return url
  }
  const url = await create(adminUrl, 'template1')
  t.teardown(() => drop(adminUrl, url))
  return url
}

/** @param template name of a database to copy; undefined for a new one that is migrated here */
async function create (adminUrl: string, template: string | undefined): Promise<string> {
  const name = `halo_test_${randomBytes(6).toString('hex')}`
  await runSql(adminUrl, `create database ${name}${template === undefined ? '' : ` template ${template}`}`)
  const url = new URL(adminUrl)
  url.pathname = `/${name}`
  if (template === undefined) await migrate({ connectionString: url.href })
  return url.href
}

async function drop (adminUrl: string, url: string): Promise<void> {
  await runSql(adminUrl, `drop database if exists ${new URL(url).pathname.slice(1)} with (force)`)
}

async function schemaOf (url: string): Promise<string> {
  const [row] = await runSql(url, fingerprint)
  return String(row!['schema'])
}

/** Ends what a test has left running in its database, empties it and keeps it for the next test. */
async function giveBack (adminUrl: string, url: string): Promise<void> {
  try {
    const others = 'select pid from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid()'
    await runSql(url, `select pg_terminate_backend(pid, 5000) from (${others}) as others`)
    if (await schemaOf(url) === fingerprints.get(url)) {
      await runSql(url, clean)
      free.set(adminUrl, [...free.get(adminUrl) ?? [], url])
      return
    }
  } catch {
    // The test has locked or removed what this needs.
  }
  await drop(adminUrl, url)
}

export async function runSql (url: string, text: string, values: unknown[] = []): Promise<Record<string, unknown>[]> {
  const client = new pg.Client({ connectionString: url })
  client.on('error', () => {})
  await client.connect()
  try {
    return (await client.query(text, values)).rows as Record<string, unknown>[]
  } finally {
    await client.end()
  }
}

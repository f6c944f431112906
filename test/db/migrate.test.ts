import { mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { join } from 'node:path'
import t from 'tap'
import { migrate, requiredSchemaVersion } from '../../db/migrate.ts'
import { createApp, createDatabase, runSql, signUp } from '../helpers/app.ts'
import { createFaultyProxy } from '../helpers/faulty-proxy.ts'
import { startService } from '../helpers/service.ts'
import { anyStores, onEachStore } from '../helpers/stores.ts'
import { until } from '../helpers/until.ts'

const root = join(import.meta.dirname, '..', '..')
const all = readdirSync(join(root, 'db', 'migrations')).filter(name => name.includes('.do.')).map(name =>
  name.replace('.sql', '')
).sort()

/** The tables as the Go service made them, with what such tables have in them after some years. */
const goTables = `
  create table users (
    id bigserial primary key, email varchar(255) unique not null, username varchar(30) not null,
    password_hash varchar(255) not null, display_name varchar(50) not null, bio text, avatar_url varchar(500),
    is_adult boolean default false, adult_mode boolean default false,
    created_at timestamp default current_timestamp, updated_at timestamp default current_timestamp);
  create unique index idx_users_username on users (username);
  create table videos (
    id bigserial primary key, user_id bigint not null references users (id) on delete cascade, title varchar(255) not null,
    description text, thumbnail_url varchar(500), stream_url varchar(500), is_live boolean default false,
    is_adult_content boolean default false, view_count integer default 0,
    created_at timestamp default current_timestamp, updated_at timestamp default current_timestamp);
  create index idx_videos_user_id on videos (user_id);
  insert into users (email, username, password_hash, display_name, created_at, updated_at) values
    ('Twin@Example.com', 'Twin', 'hash 1', 'First', '2025-03-01 12:00:00', null),
    ('twin@example.com', 'twin', 'hash 2', 'Second', '2025-03-02 12:00:00', '2025-03-02 12:00:00'),
    ('ÄÖ@example.com', 'ÄÖ', 'hash 3', 'Third', null, null);
  insert into videos (user_id, title, view_count, created_at, is_live) values
    (1, 'kept', 5, '2025-06-01 10:00:00.123', null), (2, 'kept too', null, null, true);`

onEachStore(t, 'migrations, on an empty database, are applied once', async (t, stores) => {
  const url = await createDatabase(t, stores, { isMigrated: false })
  t.strictSame(await migrate({ connectionString: url }), all)
  t.strictSame(await migrate({ connectionString: url }), [])
  t.strictSame(
    await migrate({ connectionString: url }, { target: 0, allowsDataLoss: true }),
    all.map(name => name.replace('.do.', '.undo.')).reverse(),
    'and undone'
  )
  const left = await runSql(url, "select table_name from information_schema.tables where table_schema = 'public'")
  t.strictSame(left, [{ table_name: 'halo_schema_version' }])
  t.strictSame(await migrate({ connectionString: url }), all, 'and applied again')
})

onEachStore(t, "migrations, on the Go service's tables with rows, keep every row", async (t, stores) => {
  const url = await createDatabase(t, stores, { isMigrated: false })
  await runSql(url, goTables)
  t.strictSame(await migrate({ connectionString: url }), all)

  const users = await runSql(
    url,
    'select email, username, password_hash, display_name, bio, avatar_url, is_adult, created_at from users order by id'
  )
  t.match(users, [
    {
      email: 'Twin@Example.com',
      username: 'Twin',
      password_hash: 'hash 1',
      display_name: 'First',
      bio: '',
      avatar_url: '',
      is_adult: false,
      created_at: new Date('2025-03-01T12:00:00Z')
    },
    {
      email: 'twin@example.com',
      username: 'twin',
      password_hash: 'hash 2',
      display_name: 'Second',
      created_at: new Date('2025-03-02T12:00:00Z')
    },
    { email: 'ÄÖ@example.com', username: 'ÄÖ', password_hash: 'hash 3' }
  ])
  t.match(
    await runSql(url, 'select title, description, view_count::int, is_live, created_at from videos order by id'),
    [
      {
        title: 'kept',
        description: '',
        view_count: 5,
        is_live: false,
        created_at: new Date('2025-06-01T10:00:00.123Z')
      },
      { title: 'kept too', description: '', view_count: 0, is_live: true }
    ]
  )
  await t.rejects(
    runSql(url, "insert into users (email, username, password_hash) values ('TWIN@example.com', 'new', 'x')"),
    { code: '23505' }
  )

  const app = await createApp(t, { stores, databaseUrl: url })
  t.match((await app.inject('/api/v1/videos/1')).json(), {
    title: 'kept',
    description: '',
    created_at: '2025-06-01T10:00:00.123Z',
    thumbnail_url: ''
  })
  t.equal(
    (await app.inject({
      method: 'POST',
      url: '/api/v1/auth/register',
      payload: { email: 'new@example.com', username: 'TWIN', password: 'password123', display_name: 'x' }
    })).statusCode,
    409
  )
})

t.test('a login, of users whose emails differ in letter case alone, finds the one that was meant', async t => {
  const url = await createDatabase(t, anyStores(), { isMigrated: false })
  await runSql(url, goTables)
  await migrate({ connectionString: url })
  const app = await createApp(t, { stores: anyStores(), databaseUrl: url })
  app.services.passwords.verify = async (password, hash) => password === hash
  for (
    const [email, hash, name] of [['Twin@Example.com', 'hash 1', 'First'], ['twin@example.com', 'hash 2', 'Second'], [
      'TWIN@EXAMPLE.COM',
      'hash 1',
      'First'
    ], ['ÄÖ@example.com', 'hash 3', 'Third']] as const
  ) {
    const answer = await app.inject({ method: 'POST', url: '/api/v1/auth/login', payload: { email, password: hash } })
    t.equal(answer.json().user?.display_name, name, email)
  }
})

t.test('five migrators at once, on an empty database: one applies, four do nothing, all exit 0', async t => {
  const url = await createDatabase(t, anyStores(), { isMigrated: false })
  const outcomes = await Promise.all(Array.from({ length: 5 }, async () => {
    const child = spawn(process.execPath, [join(root, 'db', 'migrate-cli.ts')], {
      env: { ...process.env, DATABASE_URL: url }
    })
    let output = ''
    child.stdout.on('data', data => {
      output += String(data)
    })
    child.stderr.on('data', data => {
      output += String(data)
    })
    const [code] = await once(child, 'close') as [number]
    return { code, output }
  }))
  t.strictSame(outcomes.map(outcome => outcome.code), [0, 0, 0, 0, 0])
  t.equal(outcomes.filter(({ output }) => output.endsWith(all.map(name => `applied ${name}\n`).join(''))).length, 1)
  t.equal(
    outcomes.filter(({ output }) =>
      /^(?:another migrator is at work; waiting for it\n)?The schema is current; nothing to do\.\n$/.test(output)
    ).length,
    4
  )
})

t.test('a migration that fails leaves the schema as it was, and the command exits 1', async t => {
  const url = await createDatabase(t, anyStores(), { isMigrated: false })
  await runSql(url, 'create view videos as select 1 as id')
  await t.rejects(migrate({ connectionString: url }))
  t.strictSame(
    await runSql(url, "select table_name from information_schema.tables where table_schema = 'public' order by 1"),
    [{ table_name: 'halo_schema_version' }, { table_name: 'videos' }]
  )
  const child = spawn(process.execPath, [join(root, 'db', 'migrate-cli.ts')], {
    env: { ...process.env, DATABASE_URL: url }
  })
  let complaint = ''
  child.stderr.on('data', data => {
    complaint += String(data)
  })
  const [code] = await once(child, 'close') as [number]
  t.equal(code, 1)
  t.match(complaint, /The migration failed and was rolled back; earlier migrations stay: /)
})

t.test('a service, on a database without its schema, says so and is not ready until it is there', async t => {
  const stores = anyStores()
  const url = await createDatabase(t, stores, { isMigrated: false })
  const app = await createApp(t, { stores, databaseUrl: url })
  const before = await app.inject('/readyz')
  t.equal(before.statusCode, 503)
  t.match(before.json(), { status: 'not_ready', database: true, schema: false })
  t.equal((await app.inject('/api/v1/videos')).statusCode, 503)
  await migrate({ connectionString: url })
  await until('readiness', async () => (await app.inject('/readyz')).statusCode === 200)
  t.match((await app.inject('/readyz')).json(), { status: 'ready', schema: true, revocations: true })
  t.equal((await app.inject('/api/v1/videos')).statusCode, 200)
  t.equal(await requiredSchemaVersion(), all.length)
})

/** Runs the command. */
async function runCli (url: string, ...args: string[]): Promise<{ code: number, output: string }> {
  const child = spawn(process.execPath, [join(root, 'db', 'migrate-cli.ts'), ...args], {
    env: { ...process.env, NODE_ENV: 'production', DATABASE_URL: url }
  })
  let output = ''
  child.stdout.on('data', data => {
    output += String(data)
  })
  child.stderr.on('data', data => {
    output += String(data)
  })
  const [code] = await once(child, 'close') as [number]
  return { code, output }
}

t.test('going down, without --allow-data-loss, says what it would destroy and changes nothing', async t => {
  const stores = anyStores()
  const url = await createDatabase(t, stores)
  await runSql(
    url,
    "insert into users (email, username, password_hash, display_name) values ('a@example.com', 'a', 'x', 'a')"
  )
  await runSql(url, "insert into videos (user_id, title) select 1, 'x' from generate_series(1, 1234)")
  const refused = await runCli(url, '0')
  t.equal(refused.code, 1)
  t.match(
    refused.output,
    new RegExp(
      `^Going down from version ${all.length} to 0 destroys data, and needs --allow-data-loss\\. It would drop:\n`
    )
  )
  for (
    const loss of [
      'table users with 1 rows',
      'table videos with 1,234 rows',
      'table sessions with 0 rows',
      'column users.email_key'
    ]
  ) t.ok(refused.output.includes(loss), loss)
  t.match(await runCli(url, '2'), { code: 1, output: /needs --allow-data-loss/ })
  t.strictSame(await runSql(url, 'select count(*)::int as count from videos'), [{ count: 1234 }])
  for (const version of ['99', '999999']) {
    t.match(await runCli(url, version), {
      code: 1,
      output: new RegExp(`^There is no schema version ${version}: versions go from 0 to ${all.length}\n$`)
    })
  }
  for (const args of [['-1'], ['x'], ['1', '2'], ['--force']]) {
    t.match(await runCli(url, ...args), { code: 2, output: /^[^\n]+; see --help\n$/ }, args.join(' '))
  }
  t.match(await runCli(url, '--help'), { code: 0, output: /^Usage: npm run migrate/ })
  t.match(await runCli(url, '2', '--allow-data-loss'), { code: 0, output: /applied 003\.undo/ })
})

t.test('a migration may create an index concurrently, and two migrators do not wait for each other for ever', async t => {
  const url = await createDatabase(t, anyStores(), { isMigrated: false })
  const directory = mkdtempSync(join(tmpdir(), 'halo-migrations-'))
  t.teardown(() => {
    rmSync(directory, { recursive: true })
  })
  writeFileSync(
    join(directory, '001.do.table.sql'),
    'create table things (id bigint);\ninsert into things select generate_series(1, 1000);'
  )
  writeFileSync(join(directory, '001.undo.table.sql'), 'drop table things;')
  writeFileSync(
    join(directory, '002.do.index.sql'),
    '-- no transaction\n-- Serves nothing.\ndrop index concurrently if exists things_idx;\ncreate index concurrently things_idx on things (id);\n'
  )
  writeFileSync(join(directory, '002.undo.index.sql'), 'drop index if exists things_idx;')
  const applied = await Promise.all([1, 2, 3].map(() => migrate({ connectionString: url }, { directory })))
  t.strictSame(applied.map(names => names.length).sort(), [0, 0, 2])
  t.strictSame(await runSql(url, "select indisvalid from pg_index where indexrelid = 'things_idx'::regclass"), [{
    indisvalid: true
  }])

  writeFileSync(join(directory, '003.do.bad.sql'), 'create table more (id bigint);\nselect 1 / 0;')
  await t.rejects(migrate({ connectionString: url }, { directory }), /division by zero/)
  t.strictSame(
    await runSql(
      url,
      "select to_regclass('more')::text as name, (select max(version)::int from halo_schema_version) as version"
    ),
    [{ name: null, version: 2 }],
    'it is undone, and those before it stay'
  )

  // A running service holds the table for a while: the migration gives way and tries again.
  writeFileSync(join(directory, '003.do.bad.sql'), 'alter table things add column name text;')
  const messages: string[] = []
  const holder = runSql(url, 'begin; select from things limit 1; select pg_sleep(3); commit')
  await until(
    'the holder',
    async () => (await runSql(url, "select 1 from pg_locks where relation = 'things'::regclass and granted")).length > 0
  )
  t.strictSame(
    await migrate({ connectionString: url }, {
      directory,
      onWait: message => {
        messages.push(message)
      }
    }),
    ['003.do.bad']
  )
  t.ok(messages.some(message => message.startsWith('a table is in use')), messages.join())
  await holder
})

onEachStore(t, 'migrations keep the times of rows that a trigger of the Go service sets, and so do later flushes', async (t, stores) => {
  const url = await createDatabase(t, stores, { isMigrated: false })
  await runSql(url, goTables)
  await runSql(
    url,
    `update users set updated_at = '2025-03-02 12:00:00'; update videos set updated_at = '2025-06-01 10:00:00';
    create function set_updated_at() returns trigger language plpgsql as $$ begin new.updated_at := now(); return new; end $$;
    create trigger set_updated_at before update on users for each row execute function set_updated_at();
    create trigger set_updated_at before update on videos for each row execute function set_updated_at();`
  )
  await migrate({ connectionString: url })
  const times = async (table: string) =>
    (await runSql(url, `select distinct updated_at as at from ${table} order by 1`)).map(row =>
      (row as { at: Date }).at.toISOString()
    )
  t.strictSame(await times('users'), ['2025-03-02T12:00:00.000Z'])
  t.strictSame(await times('videos'), ['2025-06-01T10:00:00.000Z'])
  await runSql(url, 'update videos set view_count = view_count + 1')
  t.strictSame(await times('videos'), ['2025-06-01T10:00:00.000Z'], 'counted views change no content')
  await runSql(url, "update videos set title = 'another'")
  t.strictNotSame(await times('videos'), ['2025-06-01T10:00:00.000Z'], 'a trigger of another service works')
})

onEachStore(t, 'times that JSON cannot express are repaired by the migration, which says so, and refused later', async (t, stores) => {
  const url = await createDatabase(t, stores, { isMigrated: false })
  await runSql(url, goTables)
  await runSql(
    url,
    `update videos set created_at = 'infinity' where id = 1; update videos set created_at = '12345-01-01' where id = 2;
    update users set updated_at = '-infinity' where id = 1`
  )
  const notices: string[] = []
  await migrate({ connectionString: url }, { onNotice: message => notices.push(message) })
  t.strictSame(notices.map(notice => notice.split(' had ')[0]), ['1 rows of users.updated_at', '2 rows of videos.created_at'])
  const app = await createApp(t, { stores, databaseUrl: url, redisUrl: stores.redisUrl })
  const list = (await app.inject('/api/v1/videos')).json<{ id: number, created_at: string }[]>()
  t.match(list, [{ id: 2, created_at: '9999-12-31T23:59:59.999Z' }, { id: 1, created_at: /^20/ }])
  for (const time of ['infinity', '-infinity', '10000-01-01', '0001-01-01 BC']) {
    await t.rejects(runSql(url, `update videos set created_at = '${time}'`), /videos_created_at_range/)
  }
})

onEachStore(t, 'two schemas of one database are two services', async (t, stores) => {
  const url = await createDatabase(t, stores)
  const app = await createApp(t, { stores, databaseUrl: url, redisUrl: stores.redisUrl })
  const { user } = await signUp(app)
  await runSql(
    url,
    `create schema "Second"; create function foreign_trigger() returns trigger language plpgsql as $$ begin return new; end $$;
    create trigger foreign_trigger before update on users for each row execute function foreign_trigger()`
  )
  const missing = `${url}?options=${encodeURIComponent('-c search_path=none')}`
  await t.rejects(migrate({ connectionString: missing }), { name: 'MigrationRefused', message: /names no schema that exists/ })
  // Also with the first schema further down the path.
  await runSql(url, 'create schema "Third"')
  t.strictSame(
    await migrate({ connectionString: `${url}?options=${encodeURIComponent('-c search_path="Third",public')}` }),
    all,
    'the version of another schema is not its own'
  )
  for (const path of ['"Second",public', '"Second"']) {
    const second = `${url}?options=${encodeURIComponent(`-c search_path=${path}`)}`
    t.strictSame(await migrate({ connectionString: second }), path.includes(',') ? all : [])
    const other = await createApp(t, { stores, databaseUrl: second, redisUrl: null })
    t.equal((await other.inject('/readyz')).statusCode, 200)
    t.equal((await other.inject(`/api/v1/users/${user.id}`)).statusCode, 404, 'of the first one')
  }
  t.equal((await app.inject(`/api/v1/users/${user.id}`)).statusCode, 200)
})

onEachStore(t, 'a database that cannot store every text is refused, with the reason', async (t, stores) => {
  const url = new URL(await createDatabase(t, stores, { isMigrated: false }))
  const name = `${url.pathname.slice(1)}_latin`
  await runSql(url.href, `create database ${name} encoding 'LATIN1' template template0 locale 'C'`)
  t.teardown(() => runSql(url.href, `drop database if exists ${name} with (force)`))
  const latin = new URL(url)
  latin.pathname = `/${name}`
  await t.rejects(migrate({ connectionString: latin.href }), {
    name: 'MigrationRefused',
    message: /encoding of the database is LATIN1.*create one with UTF8/
  })
  const service = await startService(t, { DATABASE_URL: latin.href })
  t.match(await service.exit, { code: 1 })
  t.match(service.output(), /could not start: The encoding of the database is LATIN1/)
  const production = await startService(t, {
    NODE_ENV: 'production',
    DATABASE_URL: latin.href,
    REDIS_URL: 'redis://127.0.0.1:1',
    JWT_SECRET_KEY: 'x'.repeat(32)
  })
  t.match(await production.exit, { code: 1 })
  t.match(production.output(), /could not start: The encoding of the database is LATIN1/)
  const app = await createApp(t, { stores, databaseUrl: latin.href, redisUrl: null })
  const schema = app.postgresChecks.find(({ name: check }) => check === 'schema')!
  await t.rejects(schema.check(), /encoding of the database is LATIN1/, 'and a running process is not ready')
})

t.test('a migration waits for a server that cannot be reached yet, when it is told to', async t => {
  const url = await createDatabase(t, anyStores(), { isMigrated: false })
  const proxy = await createFaultyProxy(t, url, 5432)
  await proxy.refuse()
  await t.rejects(migrate({ connectionString: proxy.url }), { code: 'ECONNREFUSED' })
  const messages: string[] = []
  const migrating = migrate({ connectionString: proxy.url }, {
    connectPatienceMs: 30_000,
    onWait: message => messages.push(message)
  })
  await until('it waits', () => messages.length > 0)
  await proxy.forward()
  t.strictSame(await migrating, all)
})

t.test('the command waits for a server that cannot be reached yet', async t => {
  const proxy = await createFaultyProxy(t, await createDatabase(t, anyStores(), { isMigrated: false }), 5432)
  await proxy.refuse()
  const running = runCli(proxy.url)
  await new Promise(resolve => setTimeout(resolve, 1500))
  await proxy.forward()
  t.match(await running, { code: 0, output: /the database cannot be reached yet; waiting for it\n(?:applied .*\n)+/ })
})

import { readdirSync } from 'node:fs'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { join } from 'node:path'
import t from 'tap'
import { migrate, requiredSchemaVersion } from '../../db/migrate.ts'
import { createApp, createDatabase, runSql } from '../helpers/app.ts'
import { anyStores, onEachStore } from '../helpers/stores.ts'

const root = join(import.meta.dirname, '..', '..')
const all = readdirSync(join(root, 'db', 'migrations')).filter(name => name.includes('.do.')).map(name => name.replace('.sql', '')).sort()

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
  t.strictSame(await migrate({ connectionString: url }, 0), all.map(name => name.replace('.do.', '.undo.')).reverse(), 'and undone')
  const left = await runSql(url, "select table_name from information_schema.tables where table_schema = 'public'")
  t.strictSame(left, [{ table_name: 'halo_schema_version' }])
  t.strictSame(await migrate({ connectionString: url }), all, 'and applied again')
})

onEachStore(t, "migrations, on the Go service's tables with rows, keep every row", async (t, stores) => {
  const url = await createDatabase(t, stores, { isMigrated: false })
  await runSql(url, goTables)
  t.strictSame(await migrate({ connectionString: url }), all)

  const users = await runSql(url, 'select email, username, password_hash, display_name, bio, avatar_url, is_adult, created_at from users order by id')
  t.match(users, [
    { email: 'Twin@Example.com', username: 'Twin', password_hash: 'hash 1', display_name: 'First', bio: '', avatar_url: '', is_adult: false, created_at: new Date('2025-03-01T12:00:00Z') },
    { email: 'twin@example.com', username: 'twin', password_hash: 'hash 2', display_name: 'Second', created_at: new Date('2025-03-02T12:00:00Z') },
    { email: 'ÄÖ@example.com', username: 'ÄÖ', password_hash: 'hash 3' }
  ])
  t.match(await runSql(url, 'select title, description, view_count::int, is_live, created_at from videos order by id'), [
    { title: 'kept', description: '', view_count: 5, is_live: false, created_at: new Date('2025-06-01T10:00:00.123Z') },
    { title: 'kept too', description: '', view_count: 0, is_live: true }
  ])
  await t.rejects(runSql(url, "insert into users (email, username, password_hash) values ('TWIN@example.com', 'new', 'x')"), { code: '23505' })

  const app = await createApp(t, { stores, databaseUrl: url })
  t.match((await app.inject('/api/v1/videos/1')).json(), { title: 'kept', description: '', created_at: '2025-06-01T10:00:00.123Z', thumbnail_url: '' })
  t.equal((await app.inject({ method: 'POST', url: '/api/v1/auth/register', payload: { email: 'new@example.com', username: 'TWIN', password: 'password123', display_name: 'x' } })).statusCode, 409)
})

t.test('a login, of users whose emails differ in letter case alone, finds the one that was meant', async t => {
  const url = await createDatabase(t, anyStores(), { isMigrated: false })
  await runSql(url, goTables)
  await migrate({ connectionString: url })
  const app = await createApp(t, { stores: anyStores(), databaseUrl: url })
  app.services.passwords.verify = async (password, hash) => password === hash
  for (const [email, hash, name] of [['Twin@Example.com', 'hash 1', 'First'], ['twin@example.com', 'hash 2', 'Second'], ['TWIN@EXAMPLE.COM', 'hash 1', 'First'], ['ÄÖ@example.com', 'hash 3', 'Third']] as const) {
    const answer = await app.inject({ method: 'POST', url: '/api/v1/auth/login', payload: { email, password: hash } })
    t.equal(answer.json().user?.display_name, name, email)
  }
})

t.test('five migrators at once, on an empty database: one applies, four do nothing, all exit 0', async t => {
  const url = await createDatabase(t, anyStores(), { isMigrated: false })
  const outcomes = await Promise.all(Array.from({ length: 5 }, async () => {
    const child = spawn(process.execPath, [join(root, 'db', 'migrate-cli.ts')], { env: { ...process.env, DATABASE_URL: url } })
    let output = ''
    child.stdout.on('data', data => { output += String(data) })
    child.stderr.on('data', data => { output += String(data) })
    const [code] = await once(child, 'close') as [number]
    return { code, output }
  }))
  t.strictSame(outcomes.map(outcome => outcome.code), [0, 0, 0, 0, 0])
  t.equal(outcomes.filter(({ output }) => output === all.map(name => `applied ${name}\n`).join('')).length, 1)
  t.equal(outcomes.filter(({ output }) => output === 'The schema is current; nothing to do.\n').length, 4)
})

t.test('a migration that fails leaves the schema as it was, and the command exits 1', async t => {
  const url = await createDatabase(t, anyStores(), { isMigrated: false })
  await runSql(url, 'create view videos as select 1 as id')
  await t.rejects(migrate({ connectionString: url }))
  t.strictSame(await runSql(url, "select table_name from information_schema.tables where table_schema = 'public'"), [{ table_name: 'videos' }])
  const child = spawn(process.execPath, [join(root, 'db', 'migrate-cli.ts')], { env: { ...process.env, DATABASE_URL: url } })
  let complaint = ''
  child.stderr.on('data', data => { complaint += String(data) })
  const [code] = await once(child, 'close') as [number]
  t.equal(code, 1)
  t.match(complaint, /The migration failed and changed nothing: /)
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
  await new Promise(resolve => setTimeout(resolve, 600))
  t.match((await app.inject('/readyz')).json(), { status: 'ready', schema: true })
  t.equal((await app.inject('/api/v1/videos')).statusCode, 200)
  t.equal(await requiredSchemaVersion(), all.length)
})

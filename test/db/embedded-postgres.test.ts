import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { chmod, mkdtemp, readFile, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import { startEmbeddedPostgres } from '../../db/embedded-postgres.ts'
import { runSql } from '../helpers/app.ts'
import { startService } from '../helpers/service.ts'
import { until } from '../helpers/until.ts'

async function folder (t: Test): Promise<string> {
  const path = await mkdtemp(join(tmpdir(), 'halo-embedded-'))
  // The user that stands in for root must be able to pass.
  await chmod(path, 0o755)
  t.teardown(() => rm(path, { recursive: true, force: true }))
  return join(path, 'data')
}

t.test('an embedded PostgreSQL keeps its data between starts', async t => {
  const directory = await folder(t)
  const first = await startEmbeddedPostgres(directory)
  t.match(first, { origin: 'created', version: /^\d+\.\d+/ })
  await runSql(first.url, "create table kept as select 'é' as word")
  await first.stop()
  await t.rejects(runSql(first.url, 'select 1'), { code: 'ECONNREFUSED' }, 'stopped means gone')
  const second = await startEmbeddedPostgres(directory)
  t.teardown(() => second.stop())
  t.equal(second.origin, 'started')
  t.strictSame(await runSql(second.url, 'select word from kept'), [{ word: 'é' }])
})

t.test('an embedded PostgreSQL, whose parent was killed with -9, is taken up with its data', async t => {
  const directory = await folder(t)
  const program = `
    import { startEmbeddedPostgres } from ${
    JSON.stringify(join(import.meta.dirname, '..', '..', 'db', 'embedded-postgres.ts'))
  }
    const database = await startEmbeddedPostgres(${JSON.stringify(directory)})
    process.stdout.write(database.url)
    setInterval(() => {}, 1000)`
  const child = spawn(process.execPath, ['--input-type=module', '--eval', program], {
    stdio: ['ignore', 'pipe', 'inherit']
  })
  const [output] = await once(child.stdout, 'data') as [Buffer]
  await runSql(String(output), 'create table kept as select 1 as n')
  child.kill('SIGKILL')
  await once(child, 'exit')
  const next = await startEmbeddedPostgres(directory)
  t.equal(next.origin, 'reused')
  t.strictSame(await runSql(next.url, 'select n from kept'), [{ n: 1 }])
  await next.stop()
})

t.test('two processes on one folder share the server, and the last one out stops it', async t => {
  const directory = await folder(t)
  const [one, two] = await Promise.all([startEmbeddedPostgres(directory), startEmbeddedPostgres(directory)])
  t.equal(one.url, two.url)
  const held = runSql(one.url, 'select pg_sleep(3)')
  await until(
    'somebody uses it',
    async () => (await runSql(one.url, "select 1 from pg_stat_activity where query = 'select pg_sleep(3)'")).length > 0
  )
  await one.stop()
  await t.resolves(held, 'a stop leaves a server that somebody uses')
  t.strictSame(await runSql(two.url, 'select 1 as n'), [{ n: 1 }])
  await two.stop()
  await t.rejects(runSql(two.url, 'select 1'))
})

t.test('a second service on the same data warns of separate counters; a server that was killed is started again', async t => {
  const directory = await folder(t)
  const first = await startService(t, { DATA_DIR: directory })
  await first.printed(/listening {2}http/)
  t.notMatch(first.output(), /another service runs/)
  const second = await startService(t, { DATA_DIR: directory })
  await second.printed(/Warning: another service runs on the data in .*set REDIS_URL for both/)
  second.child.kill('SIGTERM')
  await second.exit

  const pid = Number.parseInt(await readFile(join(directory, 'postgres', 'postmaster.pid'), 'utf8'))
  process.kill(pid, 'SIGKILL')
  await first.printed(/the embedded PostgreSQL has ended; starting it again/)
  await until('the service is ready again', async () => (await fetch(`${first.url}/readyz`)).status === 200)
  t.equal((await fetch(`${first.url}/api/v1/videos`)).status, 200)
  first.child.kill('SIGTERM')
  t.match(await first.exit, { code: 0 })
})

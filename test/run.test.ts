import { execFile } from 'node:child_process'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import t from 'tap'
import { startRedis } from './helpers/redis-server.ts'
import { availableStores, didNotRun, needsRedis } from './helpers/stores.ts'
import { copyTree } from './helpers/tree-copy.ts'

/** The test command, tested: it must not touch what is not its own, and must not pass what fails. */

/** The runs within this one have a tree of their own: tap clears its folder when a run begins. */
const root = copyTree()
t.teardown(() => rm(root, { recursive: true, force: true }))
const stores = availableStores().find(({ redisUrl }) => redisUrl !== null)

function runTests (args: string[], env: Record<string, string>): Promise<{ code: number, output: string }> {
  const { TAP_JOB_ID: _, TAP_CHILD_ID: __, NODE_OPTIONS: ___, NODE_V8_COVERAGE: ____, ...inherited } = process.env
  const own = Object.fromEntries(Object.entries(inherited).filter(([name]) => !/^(TAP|HALO_TEST|_TAPJS)/.test(name)))
  return new Promise(resolve => {
    execFile(process.execPath, [join(root, 'test', 'run.ts'), '--stores', 'servers', '--jobs', '1', ...args], {
      cwd: root,
      env: { ...own, ...env }
    }, (error, stdout, stderr) => {
      resolve({ code: error === null ? 0 : Number(error.code), output: stdout + stderr })
    })
  })
}

t.test('a Redis database that is named and holds data of somebody is left alone, and the run exits 2', async t => {
  if (!stores) return didNotRun(t, needsRedis)
  const redis = await startRedis(['--databases', '2'])
  t.teardown(() => redis.stop())
  await redis.client.set('a key of a developer', 'kept')
  const named = { TEST_DATABASE_URL: stores.adminUrl, TEST_REDIS_URL: redis.url }
  const refused = await runTests(['test/planted/flaky.ts'], named)
  t.match(refused, {
    code: 2,
    output: /^TEST_REDIS_URL: database 0 of the Redis at 127\.0\.0\.1:\d+ holds keys that are not of a test [^\n]*\n$/
  })
  t.strictSame(await redis.client.keys('*'), ['a key of a developer'])
  t.match(await runTests(['--jobs', '3', 'test/contract.test.ts'], { ...named, TEST_REDIS_URL: `${redis.url}/1` }), {
    code: 2,
    output: /^TEST_REDIS_URL: [^\n]*out of range[^\n]*\n$/
  }, 'more jobs than databases')
  await redis.kill()
  t.match(await runTests(['test/contract.test.ts'], named), {
    code: 2,
    output: /^TEST_REDIS_URL: the Redis at 127\.0\.0\.1:\d+ cannot be used: [^\n]*\n$/
  }, 'refused')
})

t.test('a PostgreSQL that is named and refuses is told in one line, and the run exits 2', async t => {
  for (
    const url of [
      'postgres://nobody:wrong@127.0.0.1:1/none',
      ...stores ? [`${stores.adminUrl.replace(/\/[^/]*$/, '')}/there_is_none`] : []
    ]
  ) {
    t.match(await runTests(['test/contract.test.ts'], { TEST_DATABASE_URL: url }), {
      code: 2,
      output: /^TEST_DATABASE_URL: PostgreSQL at 127\.0\.0\.1:\d+\/\w+ refuses the connection: [^\n]*\n$/
    })
  }
})

t.test('unknown options are refused with one line, and the run exits 2', async t => {
  for (const args of [['--stores', 'none'], ['--jobs', '0'], ['--frobnicate']]) {
    t.match(await runTests(args, {}), { code: 2, output: /^[^\n]+; see --help\n$/ })
  }
  t.match(await runTests(['--help'], {}), { code: 0, output: /^Usage: npm test/ })
})

t.test('a test that fails every second time turns the run red, by its name, and is not tried again', async t => {
  if (!stores) return didNotRun(t, needsRedis)
  const folder = await mkdtemp(join(tmpdir(), 'halo-planted-'))
  t.teardown(() => rm(folder, { recursive: true }))
  const redis = await startRedis()
  t.teardown(() => redis.stop())
  const env = { TEST_DATABASE_URL: stores.adminUrl, TEST_REDIS_URL: redis.url, HALO_PLANTED_FILE: join(folder, 'runs') }
  const red = await runTests(['test/planted/flaky.ts'], env)
  t.equal(red.code, 1)
  t.match(red.output, /^FAILED +[\d.]+ s +1 {2}test\/planted\/flaky\.ts$/m)
  t.match(red.output, /^FAILED test\/planted\/flaky\.ts\n +not ok 1 - an even run\n[^]*\+1\n/m, 'with its diff')
  t.match(red.output, /^tests: 0 passed, 1 failed in /m)
  const green = await runTests(['test/planted/flaky.ts'], env)
  t.match(green, { code: 0, output: /^tests: 1 passed, 0 failed in /m }, 'the control')
})

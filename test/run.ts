import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, mkdtempSync, readFileSync, readdirSync, rmSync } from 'node:fs'
import { createConnection } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import { startEmbeddedPostgres } from '../db/embedded-postgres.ts'

/**
 * `npm test`: runs the suite on the embedded PostgreSQL and, where they answer, on a real PostgreSQL and a
 * real Redis as well; then holds the coverage to its floor and closes with a plain count.
 *
 *   npm test                          all of test/
 *   npm test -- test/db/seed.test.ts  some files, without the coverage floor
 *   npm run test:embedded, test:servers
 */

/** Least share of lines that the suite must run, in percent. It was set from what the suite reaches. */
const lineFloor = 96

/** More files than these that fail are no matter of a busy machine. */
const mostAgain = 3

const root = join(import.meta.dirname, '..')
const { values: options, positionals: files } = parseArgs({
  allowPositionals: true,
  options: { stores: { type: 'string', default: 'all' } }
})

const databaseUrl = process.env['TEST_DATABASE_URL'] ?? 'postgres://postgres@127.0.0.1:5432/postgres'
const redisUrl = process.env['TEST_REDIS_URL'] ?? 'redis://127.0.0.1:6379'

const logs = mkdtempSync(join(tmpdir(), 'halo-test-logs-'))
const env: Record<string, string | undefined> = { ...process.env, TAP_JOBS: '2', HALO_TEST_LOGS: logs }
const hasServers = options.stores !== 'embedded' && await answers(databaseUrl, 5432) && await answers(redisUrl, 6379)
if (hasServers) {
  env['HALO_TEST_DATABASE_URL'] = databaseUrl
  env['HALO_TEST_REDIS_URL'] = redisUrl
} else if (options.stores === 'servers' || (options.stores === 'all' && process.env['CI'])) {
  process.stderr.write(`No PostgreSQL at ${databaseUrl} or no Redis at ${redisUrl}: start them, or set TEST_DATABASE_URL and TEST_REDIS_URL\n`)
  process.exit(1)
}
const embedded = options.stores === 'servers' ? undefined : await startEmbeddedPostgres(join(root, '.data', 'test'))
if (embedded) env['HALO_TEST_EMBEDDED_URL'] = embedded.url

const where = [embedded && `embedded PostgreSQL ${embedded.version}`, hasServers && 'a real PostgreSQL and Redis'].filter(Boolean)
process.stdout.write(`Testing on ${where.join(' and on ')}${hasServers || options.stores === 'embedded' ? '' : ' only: no PostgreSQL and Redis answer on this machine'}\n`)

const isWhole = files.length === 0
const report = join(root, '.tap', 'output.tap')
// tap's own plugins are compiled into it before the first run.
if (!existsSync(join(root, '.tap', 'plugins'))) await run('tap', ['build'])
let exitCode = await tap(isWhole
  ? ['--jobs=2', '--allow-incomplete-coverage', '--coverage-report=json-summary', '--coverage-report=text']
  : ['--jobs=2', '--disable-coverage', ...files])
const summary = readFileSync(report, 'utf8')
let { passed, failed } = count(summary)
const failing = failures(summary)
for (const { file, text } of failing) process.stdout.write(`FAILED ${file}\n${text}\n`)
// What needs a time of its own is told apart from what is wrong: once more, with nothing beside it.
const filesAgain = [...new Set(failing.map(({ file }) => file))]
if (isWhole && filesAgain.length > 0 && filesAgain.length <= mostAgain) {
  exitCode = await tap(['--jobs=1', '--disable-coverage', ...filesAgain])
  const again = readFileSync(report, 'utf8')
  for (const { file, text } of failures(again)) process.stdout.write(`FAILED ALONE ${file}\n${text}\n`)
  process.stdout.write(`Run once more alone because they failed beside others: ${filesAgain.join(', ')}\n`)
  const alone = count(again)
  // Where nothing passed, nothing was run.
  if (alone.passed > 0) {
    passed += failed - alone.failed
    failed = alone.failed
  }
}
await embedded?.stop()

const hasSecrets = findSecrets()
const holds = !isWhole || !hasServers || !embedded || holdsFloor()
process.stdout.write(`tests: ${passed} passed, ${failed} failed\n`)
process.exitCode = exitCode === 0 && passed > 0 && failed === 0 && holds && !hasSecrets ? 0 : 1

function tap (args: string[]): Promise<number> {
  return run('tap', [`--reporter=${process.stdout.isTTY ? 'base' : 'terse'}`, `--output-file=${report}`, '--timeout=180', ...args])
}

/** The assertions that failed, each with its file and with what tap says of it. */
function failures (output: string): { file: string, text: string }[] {
  const found: { file: string, text: string }[] = []
  let file = ''
  const lines = output.split('\n')
  for (const [index, line] of lines.entries()) {
    file = /^# Subtest: (.*)/.exec(line)?.[1] ?? file
    const indent = /^( *)not ok /.exec(line)?.[1]
    if (indent === undefined) continue
    const end = lines.findIndex((other, at) => at > index && other === `${indent}  ...`)
    found.push({ file, text: lines.slice(index, end < 0 ? index + 1 : Math.min(end, index + 60)).join('\n') })
  }
  return found
}

/**
 * Looks for passwords, tokens and hashes in everything that the tests have made the service log, of which there is
 * enough in a whole run for the search to mean something.
 */
function findSecrets (): boolean {
  const lines = readdirSync(logs).flatMap(file => readFileSync(join(logs, file), 'utf8').split('\n'))
  rmSync(logs, { recursive: true })
  const secrets = /eyJ[\w-]{6,}\.|halo_refresh_[\w-]|\$2[aby]\$\d\d|halo1\$|correct horse|password123|a secret of the tests/
  const found = lines.filter(line => secrets.test(line))
  for (const line of found.slice(0, 5)) process.stdout.write(`A secret stands in the log: ${line.slice(0, 500)}\n`)
  const audits = lines.filter(line => line.includes('"audit":')).length
  process.stdout.write(`Log of the run: ${lines.length} lines, ${audits} of them audit, ${found.length} with a secret\n`)
  return found.length > 0 || (isWhole && audits < 100)
}

/** What tap says in its closing line, such as "# { total: 7, pass: 4, fail: 1 }". */
function count (output: string): { passed: number, failed: number } {
  const line = output.split('\n').findLast(line => line.startsWith('# { total:')) ?? ''
  const numberOf = (name: string) => Number(new RegExp(`${name}: (\\d+)`).exec(line)?.[1] ?? 0)
  return { passed: numberOf('pass'), failed: numberOf('fail') }
}

async function run (command: string, args: string[]): Promise<number> {
  const child = spawn(command, args, { cwd: root, env, stdio: 'inherit', shell: process.platform === 'win32' })
  const [code] = await once(child, 'exit') as [number | null]
  return code ?? 1
}

function holdsFloor (): boolean {
  const summary = JSON.parse(readFileSync(join(root, '.tap', 'report', 'coverage-summary.json'), 'utf8')) as { total: { lines: { pct: number } } }
  const { pct } = summary.total.lines
  process.stdout.write(`Coverage: ${pct} % of lines (floor ${lineFloor} %)\n`)
  return pct >= lineFloor
}

async function answers (url: string, defaultPort: number): Promise<boolean> {
  const { hostname, port } = new URL(url)
  const socket = createConnection({ host: hostname, port: Number(port) || defaultPort, timeout: 1000 })
  try {
    await Promise.race([once(socket, 'connect'), once(socket, 'timeout').then(() => { throw new Error('silent') })])
    return true
  } catch {
    return false
  } finally {
    socket.destroy()
  }
}

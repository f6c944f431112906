import { spawnSync } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'

const root = join(import.meta.dirname, '..')
const { scripts } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8')) as { scripts: Record<string, string> }

/**
 * Runs a command with no setting in its environment, and nothing of the test runner, whose report of coverage would
 * count the bench, which runs elsewhere. `env -i` removes what the runner adds to every child.
 */
function run (file: string, args: string[], settings: string[] = []) {
  const { status, stdout, stderr } = spawnSync(
    'env',
    ['-i', `PATH=${process.env['PATH'] ?? ''}`, ...settings, process.execPath, file, ...args],
    { cwd: root, encoding: 'utf8', timeout: 30_000 }
  )
  return { status, stdout, stderr }
}

/** Every file that an npm script runs with Node. */
const commands = [
  ...new Set(
    Object.values(scripts).flatMap(script => [...script.matchAll(/\bnode(?:\s+--\S+)*\s+([\w/-]+\.ts)\b/g)].map(([, file]) => file!))
  )
]

t.test('every command explains itself, and refuses unknown options with one line, before any work', async t => {
  t.ok(commands.length >= 15, commands.join(', '))
  for (const file of commands) {
    const help = run(file, ['--help'])
    t.equal(help.status, 0, file)
    t.match(help.stdout, /^Usage: /, file)
    t.equal(help.stderr, '', file)
    const refused = run(file, ['--nope'])
    t.strictSame([refused.status, refused.stdout], [2, ''], file)
    t.match(refused.stderr, /^[^\n]*--nope[^\n]*; see --help\n$/, file)
  }
})

t.test('wrong values are refused with one line that names them', async t => {
  const wrong: [file: string, args: string[]][] = [
    ['db/seed-cli.ts', ['--users', '0']],
    ['db/migrate-cli.ts', ['x']],
    ['db/counters-cli.ts', ['count']],
    ['db/counters-cli.ts', ['takeover', '--repair']],
    ['bench/run.ts', ['--scenario', 'none']],
    ['bench/run.ts', ['--compare', 'none.json']],
    ['bench/run.ts', ['--against', 'none']],
    ['bench/traffic.ts', ['--part', 'none']],
    ['bench/counters.ts', ['--part', 'none']],
    ['test/run.ts', ['test/none.test.ts']],
    ['test/run.ts', ['test']],
    ['test/run.ts', ['--jobs', '0']],
    ['test/run.ts', ['--stores', 'none']],
    ['test/chaos/run.ts', ['--seconds', '1']],
    ['test/chaos/run.ts', ['--scenario', 'none']],
    ['test/chaos/run.ts', ['--durability', 'none']],
    ['test/rolling/run.ts', ['--rate', 'x']],
    ['test/mutations/run.ts', ['--sample', '0']]
  ]
  for (const [file, args] of wrong) {
    const { status, stdout, stderr } = run(file, args)
    t.strictSame([status, stdout], [2, ''], `${file} ${args.join(' ')}`)
    t.match(stderr, /^[^\n]+; see --help\n$/, `${file} ${args.join(' ')}`)
  }
})

t.test('--production is production, whatever the environment says', async t => {
  for (const file of ['server.ts', 'db/migrate-cli.ts']) {
    const { status, stderr } = run(file, ['--production'], ['NODE_ENV=development'])
    t.not(status, 0, file)
    t.match(stderr, /DATABASE_URL \(or DB_HOST\) is missing/, file)
  }
})

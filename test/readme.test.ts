import { execFile } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { promisify } from 'node:util'
import t from 'tap'
import { seed } from '../db/seed.ts'
import { createApp, createDatabase } from './helpers/app.ts'
import { anyStores } from './helpers/stores.ts'

const run = promisify(execFile)
const root = join(import.meta.dirname, '..')
const readme = readFileSync(join(root, 'README.md'), 'utf8')
const { scripts } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8')) as { scripts: Record<string, string> }

/** The names in a value, at every depth: what an example may show with other values. */
function shape (value: unknown): unknown {
  if (Array.isArray(value)) return value.slice(0, 1).map(shape)
  if (value !== null && typeof value === 'object') {
    return Object.fromEntries(Object.entries(value).map(([name, member]) => [name, shape(member)]))
  }
  return typeof value
}

t.test('the first session of the README answers as it is printed there', async t => {
  const stores = anyStores()
  const databaseUrl = await createDatabase(t, stores)
  await seed({ connectionString: databaseUrl }, { users: 10, videos: 100 })
  const app = await createApp(t, { stores, databaseUrl })
  const address = await app.listen({ host: '127.0.0.1', port: 0 })
  const session = /```console\n([\s\S]*?)```/.exec(readme)![1]!
  const steps = session.split(/^\$ /m).filter(Boolean).map(step => {
    const [command, ...printed] = step.trim().split('\n')
    return { command: command!, printed: printed.join('\n') }
  })
  t.ok(steps.length >= 6)
  // One shell for all of it, as a reader has one; each answer is on a line of its own.
  const script = steps.map(({ command }) =>
    `${command.replaceAll('http://localhost:8080', address).replaceAll(/^curl/g, 'curl -s')}; echo`
  ).join('\n')
  const { stdout } = await run('bash', ['-c', script])
  const answers = stdout.split('\n')
  for (const [index, { command, printed }] of steps.entries()) {
    if (printed === '') continue
    t.strictSame(shape(JSON.parse(answers[index]!)), shape(JSON.parse(printed)), command.slice(0, 80))
  }
})

t.test('every npm command that the README names exists', async t => {
  const named = new Set([...readme.matchAll(/npm run ([\w:]+)/g)].map(([, name]) => name!))
  t.ok(named.size > 5)
  for (const name of named) t.ok(scripts[name], name)
})

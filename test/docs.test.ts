import { execFile, spawn } from 'node:child_process'
import { existsSync, mkdirSync, readFileSync, readdirSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { promisify } from 'node:util'
import t, { type Test } from 'tap'
import { catalogue } from '../schemas/error-catalogue.ts'
import { loadConfig } from '../fastify.config.ts'
import { seed } from '../db/seed.ts'
import { createApp, createDatabase } from './helpers/app.ts'
import { freePort } from './helpers/free-port.ts'
import { anyStores, availableStores, didNotRun, needsRedis } from './helpers/stores.ts'
import { until } from './helpers/until.ts'

const run = promisify(execFile)
const root = join(import.meta.dirname, '..')
const read = (name: string): string => readFileSync(join(root, name), 'utf8')
const pages = [
  'README.md',
  'CONTRIBUTING.md',
  'CHANGELOG.md',
  'client/README.md',
  ...readdirSync(join(root, 'docs')).filter(name => name.endsWith('.md')).map(name => `docs/${name}`)
]
/** Words before a command that give it a reader's environment: tap makes each Node that it knows of load its hooks. */
const asReader = ['-i', `PATH=${process.env['PATH']}`, `HOME=${process.env['HOME']}`]
const { scripts } = JSON.parse(read('package.json')) as { scripts: Record<string, string> }

/** A block of code of a page, and the comment before it, which says what runs it or what its output is. */
interface Block {
  language: string
  code: string
  comment: string | undefined
}

const blocksOf = (page: string): Block[] =>
  [...read(page).matchAll(/(?:<!-- (.+) -->\n+)?^```(\w*)\n([\s\S]*?)^```$/gm)].map(([, comment, language, code]) => ({
    language: language!,
    code: code!,
    comment
  }))

/** A service with sample data. */
async function startSeeded (t: Test): Promise<string> {
  const stores = anyStores()
  const databaseUrl = await createDatabase(t, stores)
  await seed({ connectionString: databaseUrl }, { users: 30, videos: 400 })
  const app = await createApp(t, { stores, databaseUrl })
  return await app.listen({ host: '127.0.0.1', port: 0 })
}

/** The names in a value, at every depth: what an example may show with other values. */
function shape (value: unknown): unknown {
  if (Array.isArray(value)) return value.slice(0, 1).map(shape)
  if (value !== null && typeof value === 'object') {
    return Object.fromEntries(Object.entries(value).map(([name, member]) => [name, shape(member)]))
  }
  return typeof value
}

t.test('every block of code is run by a test, or is the output of a command', async t => {
  t.ok(pages.length >= 10)
  for (const page of pages) {
    for (const { language, code, comment = '' } of blocksOf(page)) {
      const name = `${page}: ${code.slice(0, 40)}`
      const [, kind, what] = /^(run by|output of|the file|not run)(?::)? (.+)$/.exec(comment) ?? []
      if (kind === 'the file') t.equal(code, read(what!), `${name} is ${what!}`)
      else if (kind === undefined) {
        t.ok(
          ['console', 'ts', 'mermaid'].includes(language) || comment === 'the folders of this repository' ||
            comment === 'npm run bench -- --publish',
          `${name} says what runs it`
        )
      } else if (kind === 'not run') t.match(what, /^it needs a cluster$/, name)
      else {
        for (const one of what!.split(', ')) {
          const script = /^npm run ([\w:]+)/.exec(one)?.[1]
          t.ok(script === undefined ? existsSync(join(root, one)) : scripts[script], `${name}: ${one}`)
        }
      }
    }
  }
})

t.test('every link leads to a file, every command that is named exists, and the README has one screen', async t => {
  const anchorsOf = (text: string): string[] =>
    [...text.matchAll(/^#+ (.+)$/gm)].map(([, heading]) =>
      heading!.toLowerCase().replaceAll(/[^\w -]/g, '').replaceAll(' ', '-')
    )
  for (const page of pages) {
    const text = read(page)
    for (const [, link] of text.matchAll(/\]\((?!https?:)([^)\s]+)\)/g)) {
      const [path, anchor] = link!.split('#')
      const target = path === '' ? page : join(dirname(page), path!)
      t.ok(existsSync(join(root, target)), `${page}: ${link}`)
      if (anchor !== undefined) t.ok(anchorsOf(read(target)).includes(anchor), `${page}: ${link}`)
    }
    for (const [, name] of text.matchAll(/npm run ([\w:]+)\b(?! --prefix)/g)) {
      if (page !== 'client/README.md') t.ok(scripts[name!], `${page}: npm run ${name}`)
    }
  }
  t.ok(read('README.md').split('\n').length <= 150)
})

t.test('the sessions of the pages answer as they are printed', async t => {
  for (const page of pages) {
    const sessions = blocksOf(page).filter(({ language }) => language === 'console')
    if (sessions.length === 0) continue
    const address = await startSeeded(t)
    const steps = sessions.flatMap(({ code }) => code.split(/^\$ /m)).filter(Boolean).map(step => {
      const [command, ...printed] = step.trim().split('\n')
      return { command: command!, printed: printed.join('\n') }
    })
    t.ok(steps.length >= 4)
    // One shell for all of it, as a reader has one; each answer is on a line of its own.
    const script = steps.map(({ command }) =>
      `${command.replaceAll('http://localhost:8080', address).replaceAll(/^curl/g, 'curl -s')}; echo`
    ).join('\n')
    const answers = (await run('bash', ['-c', script])).stdout.split('\n')
    for (const [index, { command, printed }] of steps.entries()) {
      if (printed === '') continue
      t.strictSame(shape(JSON.parse(answers[index]!)), shape(JSON.parse(printed)), `${page}: ${command.slice(0, 80)}`)
    }
  }
})

t.test('the TypeScript of a page is one program, which compiles under strict and runs to its end', async t => {
  const folder = join(root, '.tap', 'docs')
  mkdirSync(folder, { recursive: true })
  const address = await startSeeded(t)
  for (const page of pages) {
    const blocks = blocksOf(page).filter(({ language, comment }) => language === 'ts' && comment === undefined)
    if (blocks.length === 0) continue
    const code = blocks.map(block => block.code).join('\n').replaceAll('http://localhost:8080', address)
    const names = [...code.matchAll(/^import \{ (.+) \} from '@halo\/client'$/gm)].flatMap(([, list]) => list!.split(', '))
    const program = [
      `import { ${[...new Set(names)].join(', ')} } from '../../client/index.ts'`,
      'const items = new Map<string, string>()',
      'const localStorage = {',
      '  getItem: (key: string) => items.get(key) ?? null,',
      '  setItem (key: string, value: string) { items.set(key, value) },',
      '  removeItem (key: string) { items.delete(key) }',
      '}',
      code.replaceAll(/^import .+$/gm, '')
    ].join('\n')
    const file = join(folder, `${page.replaceAll('/', '-')}.ts`)
    writeFileSync(file, program)
    writeFileSync(join(folder, 'tsconfig.json'), JSON.stringify({
      extends: '../../tsconfig.json',
      compilerOptions: { typeRoots: ['../../node_modules/@types'] },
      include: [],
      files: [file]
    }))
    await t.resolves(run('env', [...asReader, join(root, 'node_modules', '.bin', 'tsc'), '-p', folder]), `${page} compiles`)
    await t.resolves(run('env', [...asReader, process.execPath, file], { timeout: 30_000 }), `${page} runs`)
  }
})

t.test('docs/INTEGRATION.md has a remedy for every error code', async t => {
  const rows = new Map(
    [...read('docs/INTEGRATION.md').matchAll(/^\| `(\w+)` \| (\d+) \| .{10,} \|$/gm)].map(([, code, status]) => [code, status])
  )
  for (const [code, { status }] of Object.entries(catalogue)) t.equal(rows.get(code), String(status), code)
})

t.test('the start in production works as docs/OPERATIONS.md says', async t => {
  const stores = availableStores().find(({ redisUrl }) => redisUrl !== null)
  if (!stores) return didNotRun(t, needsRedis)
  const [block] = blocksOf('docs/OPERATIONS.md').filter(({ code }) => code.includes('start:production'))
  const port = await freePort()
  const databaseUrl = await createDatabase(t, stores, { isMigrated: false })
  const code = block!.code
    .replace(/DATABASE_URL=\S+/, `DATABASE_URL=${databaseUrl}`)
    .replace(/REDIS_URL=\S+/, `REDIS_URL=${stores.redisUrl}`)
  const settings = [`SERVER_PORT=${port}`, 'WEB_CONCURRENCY=1', 'CORS_ALLOWED_ORIGINS=https://halo.example']
  const child = spawn('env', [...asReader, ...settings, 'bash', '-ec', code], { cwd: root, detached: true })
  let output = ''
  child.stdout.on('data', data => { output += String(data) })
  child.stderr.on('data', data => { output += String(data) })
  t.teardown(() => { process.kill(-child.pid!, 'SIGTERM') })
  await until('the service is ready', async () => {
    if (child.exitCode !== null) throw new Error(output)
    return await fetch(`http://127.0.0.1:${port}/readyz`).then(({ status }) => status === 200, () => false)
  })
  await until('its log', () => output.includes('"environment":"production"'))
})

t.test('the secrets of docs/QUICKSTART.md are good for production', async t => {
  const [block] = blocksOf('docs/QUICKSTART.md').filter(({ code }) => code.includes('docker compose up'))
  const folder = t.testdir()
  await run('bash', ['-ec', block!.code.replace('docker compose up', '')], { cwd: folder })
  const settings = Object.fromEntries(
    readFileSync(join(folder, '.env'), 'utf8').trim().split('\n').map(line => [line.split('=', 1)[0], line.slice(line.indexOf('=') + 1)])
  )
  t.strictSame(Object.keys(settings), ['DB_PASSWORD', 'JWT_SECRET_KEY', 'PASSWORD_PEPPER'])
  t.doesNotThrow(() => loadConfig({
    ...settings,
    NODE_ENV: 'production',
    DB_HOST: 'postgres',
    REDIS_HOST: 'redis',
    CORS_ALLOWED_ORIGINS: 'https://halo.example'
  }))
})

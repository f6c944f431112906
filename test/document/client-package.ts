import { execFile } from 'node:child_process'
import { mkdirSync, readFileSync, readdirSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { gzipSync } from 'node:zlib'
import t from 'tap'
import { client, requireTools, tool } from './tools.ts'

const run = promisify(execFile)

/** Bytes of the whole client, minified and compressed. */
const maxSize = 6000

t.test('the page that the service shows in development compiles under strict', async t => {
  await requireTools()
  await t.resolves(tool('tsc', ['-p', join(client, 'page')]))
})

t.test('npm pack makes a package that compiles under strict and runs, in less than 6 KB', async t => {
  await requireTools()
  const folder = t.testdir()
  // As docs/INTEGRATION.md says, from the folder of the service; nothing of an earlier build is left.
  const service = join(client, '..')
  rmSync(join(client, 'dist'), { recursive: true, force: true })
  await run('npm', ['run', 'build', '--prefix', 'client'], { cwd: service })
  await run('npm', ['pack', './client', '--pack-destination', folder], { cwd: service })
  const [tarball] = readdirSync(folder)
  const app = join(folder, 'app')
  const installed = join(app, 'node_modules', '@halo', 'client')
  mkdirSync(installed, { recursive: true })
  await run('tar', ['-xzf', join(folder, tarball!), '-C', installed, '--strip-components=1'])
  t.strictSame(
    Object.keys(JSON.parse(readFileSync(join(installed, 'package.json'), 'utf8')).dependencies ?? {}),
    [],
    'it has no dependency'
  )

  writeFileSync(join(app, 'package.json'), '{"type":"module"}')
  writeFileSync(join(app, 'app.ts'), `
    import { createClient, HaloError, type Video } from '@halo/client'
    const client = createClient({ baseUrl: 'http://127.0.0.1:1', retryForMs: 0 })
    const titleOf = (video: Video): string => video.title
    try {
      const { videos } = await client.videos.list({ live: true })
      console.log(videos.map(titleOf))
    } catch (error) {
      if (!(error instanceof HaloError)) throw error
      const isOffline: boolean = error.code === 'network_error'
      console.log(isOffline)
    }
    export {}
  `)
  for (const resolution of [['nodenext', 'nodenext'], ['esnext', 'bundler']]) {
    const [module, moduleResolution] = resolution
    writeFileSync(join(app, 'tsconfig.json'), JSON.stringify({
      compilerOptions: {
        ...{ strict: true, target: 'es2022', lib: ['es2022', 'dom'], types: [], module, moduleResolution },
        outDir: 'out'
      }
    }))
    await t.resolves(tool('tsc', ['-p', app]), resolution.join())
  }
  writeFileSync(join(app, 'out', 'package.json'), '{"type":"module"}')
  t.equal((await run(process.execPath, [join(app, 'out', 'app.js')])).stdout, 'true\n')

  const bundle = join(folder, 'bundle.js')
  await tool('esbuild', [
    join(installed, 'dist', 'index.js'), '--bundle', '--minify', '--format=esm', '--target=es2020', `--outfile=${bundle}`
  ])
  const size = gzipSync(readFileSync(bundle), { level: 9 }).length
  t.comment(`${size} bytes minified and compressed`)
  t.ok(size < maxSize && size > 1000, `${size} bytes`)
})

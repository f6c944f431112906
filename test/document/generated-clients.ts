import { execFile } from 'node:child_process'
import { rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { promisify } from 'node:util'
import t from 'tap'
import { createApp } from '../helpers/app.ts'
import { anyStores } from '../helpers/stores.ts'
import { breakingChanges, undeclared } from './breaking-changes.ts'
import { currentDocument } from './document.ts'
import { client, requireTools, tool } from './tools.ts'

const run = promisify(execFile)
const folder = join(client, 'generated-clients')
const generated = join(folder, 'generated')

t.test('the clients that two generators make of the document compile, and make every operation work', async t => {
  await requireTools()
  const app = await createApp(t, { stores: anyStores() })
  const missing = new Set<string>()
  app.addHook('onRequest', async ({ routeOptions }, { raw }) => {
    raw.on('finish', () => {
      const { operationId } = routeOptions.schema as { operationId?: string }
      if (raw.statusCode < 300 && operationId !== undefined) missing.delete(operationId)
    })
  })
  const address = await app.listen({ host: '127.0.0.1', port: 0 })
  const { paths } = app.swagger() as unknown as { paths: Record<string, Record<string, { operationId: string }>> }

  rmSync(generated, { recursive: true, force: true })
  await tool('openapi-typescript', [`${address}/openapi.json`, '-o', join(generated, 'openapi-fetch.ts')])
  await tool('openapi-ts', ['-i', `${address}/openapi.json`, '-o', join(generated, 'hey-api'), '-c', '@hey-api/client-fetch'])
  await t.resolves(tool('tsc', ['-p', folder]), 'they compile under strict')

  for (const name of ['openapi-fetch', 'hey-api']) {
    for (const one of Object.values(paths).flatMap(methods => Object.values(methods))) missing.add(one.operationId)
    t.ok(missing.size > 30)
    const bundle = join(generated, `${name}.mjs`)
    await tool('esbuild', [join(folder, `${name}.ts`), '--bundle', '--format=esm', `--outfile=${bundle}`])
    const script = `import(${JSON.stringify(bundle)}).then(one => one.callEveryOperation(${JSON.stringify(address)}))`
    await t.resolves(run(process.execPath, ['-e', script]), name)
    t.strictSame([...missing], [], `${name}: every operation has answered 2xx`)
  }
})

t.test('a removed member and a new obligation are breaking changes until the changelog declares them', async t => {
  const folder = t.testdir()
  const base = join(folder, 'base.json')
  const revision = join(folder, 'revision.json')
  const text = await currentDocument()
  writeFileSync(base, text)
  const document = JSON.parse(text) as { components: { schemas: Record<string, Schema> } }
  delete document.components.schemas['Video']!.properties['title']
  document.components.schemas['NewVideo']!.required.push('description')
  writeFileSync(revision, JSON.stringify(document))

  t.strictSame(await breakingChanges(base, base), [])
  const changes = await breakingChanges(base, revision)
  t.ok(changes.some(({ operation, path }) => operation === 'GET' && path === '/api/v1/videos'))
  t.ok(changes.some(({ operation, path }) => operation === 'POST' && path === '/api/v1/videos'))
  t.strictSame(undeclared(changes, '# Changelog\n\n## [Unreleased]\n\n- Something else\n'), changes)
  const lines = changes.map(({ id, operation, path }) => `- **Breaking** \`${id}\` of \`${operation} ${path}\`: why`)
  t.strictSame(undeclared(changes, `# Changelog\n\n## [Unreleased]\n\n${lines.join('\n')}\n\n## [1.0.0]\n`), [])
  t.strictSame(
    undeclared(changes, `# Changelog\n\n## [Unreleased]\n\n## [1.0.0]\n\n${lines.join('\n')}\n`),
    changes,
    'an old release declares nothing for the next one'
  )
})

interface Schema {
  properties: Record<string, unknown>
  required: string[]
}

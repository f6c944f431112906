import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { loadConfig } from '../../fastify.config.ts'
import { Environment } from '../../schemas/environment.ts'
import { render, validate, type Json } from './render.ts'

const root = join(import.meta.dirname, '..', '..')

/** Fields with keys of our own choice, such as labels: any name is valid there. */
const maps = new Set(['labels', 'matchLabels', 'annotations', 'data', 'requests', 'limits', 'selector', 'stringData'])

/** The paths of all keys of a document that Kubernetes defines. */
function keysOf (value: unknown, path: (string | number)[] = []): (string | number)[][] {
  if (Array.isArray(value)) return value.flatMap((item, index) => keysOf(item, [...path, index]))
  if (typeof value !== 'object' || value === null) return []
  return Object.entries(value).flatMap(([key, member]) => {
    const own = [...path, key]
    // The selector of a Service is a map; that of a Deployment is not.
    const isMap = maps.has(key) && Object.values(member as object).every(one => typeof one !== 'object')
    return [own, ...isMap ? [] : keysOf(member, own)]
  })
}

/** A copy of a document in which the key at a path is misspelt. */
function misspell (document: Json, path: (string | number)[]): Json {
  const copy = structuredClone(document)
  const parent = path.slice(0, -1).reduce<Json>((value, key) => value[key] as Json, copy)
  const key = path.at(-1)!
  parent[`${key}x`] = parent[key]
  Reflect.deleteProperty(parent, key)
  return copy
}

for (const overlay of ['development', 'production'] as const) {
  t.test(`the documents of ${overlay} are valid, and each key, misspelt, is found`, async t => {
    const documents = await render(overlay)
    t.ok(documents.length >= 9)
    t.strictSame((await validate(documents)).filter(Boolean), [])
    const variants = documents.flatMap(document =>
      keysOf(document).map(path => ({ name: `${document['kind']}: ${path.join('.')}`, document: misspell(document, path) })))
    t.ok(variants.length > 200, `${variants.length} keys`)
    const errors = await validate(variants.map(({ document }) => document))
    t.strictSame(variants.filter((_, index) => errors[index] === '').map(({ name }) => name), [])
  })
}

t.test('the settings of the ConfigMap and the secrets boot the service in production', async t => {
  const documents = await render('production')
  const of = (kind: string, name = 'halo-api'): Json =>
    documents.find(one => one['kind'] === kind && one['metadata'].name === name)!
  const settings = of('ConfigMap')['data'] as Record<string, string>
  for (const name of Object.keys(settings)) t.ok(name in Environment.properties, name)
  const secrets = t.testdir({
    'db-password': 'a password\n',
    'jwt-secret-key': 'a secret of the tests, long enough to sign with\n',
    'password-pepper': 'a pepper of the tests, long enough for it\n'
  })
  const api = of('Deployment')['spec'].template.spec as Json
  const [container] = api['containers'] as Json[]
  const migration = of('Job', 'halo-api-migration')['spec'].template.spec.containers[0] as Json
  for (const { env } of [container, migration] as { env: { name: string, value: string }[] }[]) {
    const files = env.filter(({ name }) => name.endsWith('_FILE'))
    t.equal(files.length, 3)
    const config = loadConfig({
      ...settings,
      ...Object.fromEntries(files.map(({ name, value }) => [name, value.replace('/run/secrets/halo', secrets)]))
    })
    t.strictSame(config.warnings.filter(warning => !warning.startsWith('JWT_ACCEPT_LEGACY')), [])
    t.equal(config.workers, 1)
  }
  t.equal(settings['METRICS_PORT'], String((container!['ports'] as Json[]).find(({ name }) => name === 'metrics')!['containerPort']))
})

t.test('the numbers of the probes, the drain and the memory fit each other', async t => {
  const documents = await render('production')
  const { spec } = documents.find(one => one['kind'] === 'Deployment')!
  const pod = spec.template.spec as Json
  const [container] = pod['containers'] as Json[]
  const settings = documents.find(one => one['kind'] === 'ConfigMap')!['data'] as Record<string, string>
  const delay = Number(settings['SERVER_DRAIN_DELAY'])
  const drain = delay + Number(settings['SERVER_DRAIN_TIMEOUT'])
  t.ok(pod['terminationGracePeriodSeconds'] >= drain + 5, 'the grace period is longer than the drain')
  const { readinessProbe: ready, startupProbe: startup, livenessProbe: live } = container!
  t.ok(ready.periodSeconds * ready.failureThreshold <= delay, 'a pod that drains is out of the Service before its port closes')
  t.ok(startup.periodSeconds * startup.failureThreshold >= 60, 'a boot may take a minute')
  t.ok(startup.periodSeconds * startup.failureThreshold <= spec.progressDeadlineSeconds / 2)
  t.match([live, ready, startup].map(({ httpGet }) => httpGet.path), ['/livez', '/readyz', '/startupz'])
  const heap = Number(/--max-old-space-size=(\d+)/.exec((container!['env'] as Json[]).find(({ name }) => name === 'NODE_OPTIONS')!['value'])![1])
  t.ok(heap <= parseInt(container!['resources'].limits.memory) / 2, 'half of the memory is left for what is no heap')
  t.match(container!['securityContext'], { allowPrivilegeEscalation: false, readOnlyRootFilesystem: true, capabilities: { drop: ['ALL'] } })
  t.match(pod['securityContext'], { runAsNonRoot: true, seccompProfile: { type: 'RuntimeDefault' } })
  t.match(readFileSync(join(root, 'Dockerfile'), 'utf8'), /USER node|USER 1000/, 'the image has that user')
})

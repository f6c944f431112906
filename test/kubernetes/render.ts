import { execFile, spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdirSync } from 'node:fs'
import { join } from 'node:path'
import { text } from 'node:stream/consumers'
import { promisify } from 'node:util'

const run = promisify(execFile)
const root = join(import.meta.dirname, '..', '..')
const folder = join(root, '.tap', 'kubernetes')
const checker = join(folder, 'check')

/** A rendered document, or a part of it. */
export type Json = Record<string, any>

/** Builds the program that renders and validates (main.go); once for a process. */
const built = (async () => {
  mkdirSync(folder, { recursive: true })
  await run('go', ['build', '-o', checker, '.'], { cwd: import.meta.dirname })
})()

/** Returns the documents of an overlay, as kustomize renders them. @throws Error for one that is not valid */
export async function render (overlay: 'development' | 'production'): Promise<Json[]> {
  await built
  const { stdout } = await run(checker, [join(root, 'deploy', 'kubernetes', 'overlays', overlay)])
  return JSON.parse(stdout) as Json[]
}

/** Returns the error of each document; "" where it is valid. */
export async function validate (documents: Json[]): Promise<string[]> {
  await built
  const child = spawn(checker, ['-'], { stdio: ['pipe', 'pipe', 'inherit'] })
  child.stdin.end(JSON.stringify(documents))
  const [output] = await Promise.all([text(child.stdout), once(child, 'exit')])
  return JSON.parse(output) as string[]
}

export interface Probe {
  path: string
  /** Name of the container's port. */
  port: string
  periodSeconds: number
  timeoutSeconds: number
  failureThreshold: number
}

/** What Kubernetes does with a pod of the Deployment. */
export async function podOf (overlay: 'development' | 'production') {
  const documents = await render(overlay)
  const find = (kind: string): Json => documents.find(one => one['kind'] === kind)!
  const pod = find('Deployment')['spec'].template.spec as Json
  const container = pod['containers'][0] as Json
  const probe = ({ httpGet: { path, port }, ...times }: Json): Probe => ({ path, port, ...times } as Probe)
  const env = container['env'] as { name: string, value: string }[]
  return {
    settings: find('ConfigMap')['data'] as Record<string, string>,
    /** Environment that is no secret. */
    env: Object.fromEntries(env.filter(({ name }) => !name.endsWith('_FILE')).map(({ name, value }) => [name, value])),
    startup: probe(container['startupProbe']),
    readiness: probe(container['readinessProbe']),
    liveness: probe(container['livenessProbe']),
    graceSeconds: pod['terminationGracePeriodSeconds'] as number
  }
}

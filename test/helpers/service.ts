import { spawn, type ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { join } from 'node:path'
import type { Test } from 'tap'
import { Environment } from '../../schemas/environment.ts'
import { freePort } from './free-port.ts'

/** The service as a process of its own, as operators run it. */
export interface Service {
  url: string
  child: ChildProcess
  /** All that it has printed so far. */
  output: () => string
  /** Waits until it has printed something. */
  printed: (pattern: RegExp) => Promise<void>
  exit: Promise<{ code: number | null, signal: string | null }>
}

/** The environment of this process without any setting of the service: a developer may have some exported. */
export function cleanEnvironment (): Record<string, string | undefined> {
  return Object.fromEntries(
    Object.entries(process.env).filter(([name]) => !(name in Environment.properties) && !name.startsWith('HALO_TEST'))
  )
}

export async function startService (t: Test, env: Record<string, string>): Promise<Service> {
  const port = await freePort()
  const child = spawn(process.execPath, [join(import.meta.dirname, '..', '..', 'server.ts')], {
    env: { ...cleanEnvironment(), SERVER_PORT: String(port), WEB_CONCURRENCY: '1', ...env }
  })
  let output = ''
  child.stdout.on('data', data => {
    output += String(data)
  })
  child.stderr.on('data', data => {
    output += String(data)
  })
  const exit = once(child, 'close').then(([code, signal]) => ({
    code: code as number | null,
    signal: signal as string | null
  }))
  t.teardown(async () => {
    // In peace first: only so does the process hand over its coverage.
    child.kill('SIGTERM')
    const timer = setTimeout(() => child.kill('SIGKILL'), 3000)
    await exit
    clearTimeout(timer)
  })
  return {
    url: `http://127.0.0.1:${port}`,
    child,
    output: () => output,
    async printed (pattern) {
      const deadline = Date.now() + 60_000
      while (!pattern.test(output)) {
        if (Date.now() > deadline || child.exitCode !== null) {
          throw new Error(`${String(pattern)} was not printed:\n${output}`)
        }
        await new Promise(resolve => setTimeout(resolve, 20))
      }
    },
    exit
  }
}

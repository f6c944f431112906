import { execFile } from 'node:child_process'
import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { promisify } from 'node:util'

const run = promisify(execFile)

/** The folder of @halo/client, whose package.json names the tools that read the OpenAPI document. */
export const client = join(import.meta.dirname, '..', '..', 'client')

/** Runs a tool of client/package.json. @throws Error with `stdout` and `stderr` when it fails */
export const tool = (name: string, args: string[]) =>
  run(join(client, 'node_modules', '.bin', name), args, {
    cwd: client,
    maxBuffer: 1e8,
    env: { ...process.env, NO_COLOR: '1', REDOCLY_TELEMETRY: 'off', REDOCLY_SUPPRESS_UPDATE_NOTICE: 'true' }
  })

/** Installs the tools where they are missing. */
export async function requireTools (): Promise<void> {
  if (existsSync(join(client, 'node_modules', '.bin', 'esbuild'))) return
  process.stdout.write('Installing the tools of client/package.json\n')
  await run('npm', ['ci'], { cwd: client })
}

import { execFile } from 'node:child_process'
import { existsSync } from 'node:fs'
import { homedir } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'

const run = promisify(execFile)

/** What compares two documents; `go install` installs it where it is missing. */
const oasdiff = 'github.com/oasdiff/oasdiff@v1.37.0'

/** A change as `oasdiff breaking --format json` prints it. */
export interface BreakingChange {
  id: string
  text: string
  operation: string
  path: string
}

/** Returns what can break a client of the first document (path of a file) when the second one replaces it. */
export async function breakingChanges (base: string, revision: string): Promise<BreakingChange[]> {
  const { stdout } = await run(await findOasdiff(), ['breaking', base, revision, '--format', 'json'])
  return (JSON.parse(stdout || '[]') as BreakingChange[] | null) ?? []
}

/** Returns the changes that the section of the next release does not name by their id, method and path. */
export function undeclared (changes: BreakingChange[], changelog: string): BreakingChange[] {
  const unreleased = changelog.split('\n## ').find(section => section.startsWith('[Unreleased]')) ?? ''
  const lines = unreleased.split('\n')
  return changes.filter(({ id, operation, path }) =>
    !lines.some(line => line.includes(`\`${id}\``) && line.includes(`\`${operation} ${path}\``))
  )
}

async function findOasdiff (): Promise<string> {
  const folder = process.env['GOBIN'] ?? join(homedir(), 'go', 'bin')
  const path = join(folder, 'oasdiff')
  if (existsSync(path)) return path
  process.stdout.write(`Installing ${oasdiff}\n`)
  await run('go', ['install', oasdiff], { env: { ...process.env, GOBIN: folder } }).catch((error: unknown) => {
    throw new Error(`oasdiff is missing, and go install did not install it: ${(error as Error).message}`)
  })
  return path
}

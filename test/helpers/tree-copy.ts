import { spawnSync } from 'node:child_process'
import { cpSync, existsSync, mkdirSync, mkdtempSync, symlinkSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'

const root = join(import.meta.dirname, '..', '..')

/**
 * A copy of the working tree, with its packages as a link: for runs of tests within a test, which must not share tap's
 * folder with the run around them.
 */
export function copyTree (): string {
  const folder = mkdtempSync(join(tmpdir(), 'halo-tree-'))
  const { stdout } = spawnSync('git', ['ls-files', '--cached', '--others', '--exclude-standard'], {
    cwd: root,
    encoding: 'utf8'
  })
  for (const file of stdout.split('\n').filter(Boolean)) {
    if (!existsSync(join(root, file))) continue
    mkdirSync(join(folder, dirname(file)), { recursive: true })
    cpSync(join(root, file), join(folder, file))
  }
  symlinkSync(join(root, 'node_modules'), join(folder, 'node_modules'))
  // What tap has compiled of its plugins.
  if (existsSync(join(root, '.tap', 'plugins'))) {
    cpSync(join(root, '.tap', 'plugins'), join(folder, '.tap', 'plugins'), { recursive: true })
  }
  return folder
}

import { spawnSync } from 'node:child_process'
import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { readCommandLine } from '../../services/runtime/command-line.ts'

/**
 * `npm run test:bench`: that the bench finds what it is for and nothing else. A sleep of 3 ms that is planted in the
 * service fails a gate; two runs of one commit pass them all, and neither is dearer than the other; an answer that
 * was not expected fails the run.
 */

readCommandLine({
  usage: `Usage: npm run test:bench

Checks that npm run bench finds a planted sleep of 3 ms, and nothing between two runs of one commit.`
})

const folder = mkdtempSync(join(tmpdir(), 'halo-bench-'))
const bench = (...args: string[]) => {
  const { status, stdout, stderr } = spawnSync(process.execPath, [
    join(import.meta.dirname, '..', '..', 'bench', 'run.ts'),
    '--quick',
    '--scenario',
    'hot-video',
    '--results',
    folder,
    ...args
  ], { encoding: 'utf8', timeout: 300_000 })
  return { status, output: stdout + stderr }
}
let failed = 0
function check (name: string, isRight: boolean, output: string): void {
  process.stdout.write(`${isRight ? 'ok' : 'not ok'}  ${name}\n`)
  if (isRight) return
  failed++
  process.stdout.write(`${output}\n`)
}

const first = bench()
check('a run passes its gates', first.status === 0 && first.output.includes('pass  hot-video'), first.output)
const json = join(folder, readdirSync(folder).find(name => name.endsWith('.json'))!)
const html = readFileSync(json.replace(/json$/, 'html'), 'utf8')
check(
  'its page draws what was measured, and needs nothing else',
  html.includes('<polyline') && !/(?:src|href)=/.test(html),
  html.slice(0, 500)
)
const second = bench('--compare', json)
check(
  'so does another one of the same commit, which is not dearer than the first',
  second.status === 0 && second.output.includes('beside what it was'),
  second.output
)
const planted = bench('--preload', join(import.meta.dirname, 'plant-sleep.ts'))
check(
  'a planted sleep of 3 ms fails a gate',
  planted.status === 1 && planted.output.includes('FAIL  hot-video added.p50.30'),
  planted.output
)
const unknown = bench('--scenario', 'nothing')
check(
  'a scenario that is not there is said to be',
  unknown.status === 2 && unknown.output.startsWith('--scenario is "nothing"'),
  unknown.output
)
rmSync(folder, { recursive: true })
process.exitCode = failed > 0 ? 1 : 0

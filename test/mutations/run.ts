import { spawnSync } from 'node:child_process'
import { readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { readCommandLine, readCount } from '../../services/runtime/command-line.ts'
import { copyTree } from '../helpers/tree-copy.ts'
import { mutations, type Mutation } from './table.ts'

const usage = `Usage: npm run test:mutations -- [--sample 8] [--seed 1] [--only TEXT]

Plants one bug at a time in a copy of the tree. Each must pass the type check and turn its test file red by an assertion;
a control changes nothing and must stay green.

  --sample N   N of the mutations, chosen by the seed, and one control
  --seed S     a whole number; the day by default, so that CI has gone through all of them after some days
  --only TEXT  those whose file or reason contains the text
`

const root = join(import.meta.dirname, '..', '..')
const { values } = readCommandLine({
  usage,
  options: { sample: { type: 'string' }, seed: { type: 'string' }, only: { type: 'string' } }
})
const day = String(Math.floor(Date.now() / 86_400_000))
const seed = readCount('seed', values.seed ?? day, { min: 0, max: 2 ** 31 })
const count = values.sample === undefined ? Infinity : readCount('sample', values.sample, { min: 1, max: 1000 })

const folder = copyTree()
process.on('exit', () => {
  rmSync(folder, { recursive: true, force: true })
})
const chosen = choose()
process.stdout.write(`${chosen.length} of ${mutations.length} mutations, seed ${seed}\n`)
let failed = 0
for (const mutation of chosen) {
  const startedAt = performance.now()
  const problem = judge(mutation)
  if (problem !== undefined) failed++
  const seconds = ((performance.now() - startedAt) / 1000).toFixed(1).padStart(5)
  process.stdout.write(
    `${problem === undefined ? 'ok    ' : 'FAILED'} ${seconds} s  ${mutation.file}: ${mutation.why}${
      problem === undefined ? '' : `\n       ${problem}`
    }\n`
  )
}
process.stdout.write(`mutations: ${chosen.length - failed} as expected, ${failed} not\n`)
process.exitCode = failed === 0 ? 0 : 1

function choose (): Mutation[] {
  const matching = mutations.filter(({ file, why }) =>
    values.only === undefined || file.includes(values.only) || why.includes(values.only)
  )
  if (matching.length <= count) return matching
  const controls = matching.filter(({ isControl }) => isControl)
  const others = matching.filter(({ isControl }) => !isControl)
  // Days follow each other through the table.
  const start = (seed * count) % others.length
  return [...Array.from({ length: count }, (_, n) => others[(start + n) % others.length]!), ...controls.slice(0, 1)]
}

/** @returns what is wrong; undefined for a mutation that was found, and a control that was not */
function judge ({ file, from, to, test, isControl = false }: Mutation): string | undefined {
  const path = join(folder, file)
  const source = readFileSync(path, 'utf8')
  if (source.split(from).length !== 2) {
    return `the text to replace stands there ${source.split(from).length - 1} times: mend the table`
  }
  writeFileSync(path, source.replace(from, () => to))
  try {
    const types = run([join(root, 'node_modules', '.bin', 'tsc'), '--noEmit'])
    if (types.status !== 0) return `it does not pass the type check: ${types.output.slice(0, 300)}`
    const { status, output } = run([process.execPath, join(folder, 'test', 'run.ts'), '--jobs', '1', test])
    const assertions = [...output.matchAll(/^ +not ok \d+ - (.*)$/gm)].map(([, name]) => name!)
    if (isControl) {
      return status === 0
        ? undefined
        : `it changes nothing, and the tests are red: ${assertions.slice(0, 3).join('; ')}`
    }
    if (status === 0) return `no test of ${test} notices it`
    if (assertions.length === 0) return `${test} is red, and not by an assertion: ${output.slice(-300)}`
    return undefined
  } finally {
    writeFileSync(path, source)
  }
}

function run ([command, ...args]: string[]): { status: number | null, output: string } {
  const { NODE_OPTIONS: _, ...env } = process.env
  const { status, stdout, stderr } = spawnSync(command!, args, {
    cwd: folder,
    encoding: 'utf8',
    timeout: 300_000,
    env: { ...env, PATH: `${join(root, 'node_modules', '.bin')}:${process.env['PATH']}` }
  })
  return { status, output: stdout + stderr }
}

import { execFileSync } from 'node:child_process'
import { existsSync, symlinkSync } from 'node:fs'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { Generator } from './generator.ts'
import {
  defaultAddresses,
  defaultConnections,
  run,
  spreadOf,
  type Pace,
  type Row,
  type Spread
} from './measure-scenario.ts'
import type { Report } from './report.ts'
import type { Scenario } from './scenarios.ts'
import { build, type World } from './world.ts'

const root = join(import.meta.dirname, '..')

/** How a scenario stands to what it was: CPU time and rate, each as a ratio. */
export interface Comparison {
  title: string
  cpu: Spread | undefined
  rate: Spread
}

/**
 * A ratio of CPU time beyond which a scenario has become dearer, in every round: two runs of one commit differ by a
 * tenth.
 */
const maxCpuRatio = 1.25

export const hasRegressed = ({ cpu }: Comparison): boolean => cpu !== undefined && cpu.min > maxCpuRatio

export function textOfComparison (comparison: Comparison): string {
  const text = (spread: Spread | undefined): string =>
    spread ? `${spread.median.toFixed(2)} (${spread.min.toFixed(2)}–${spread.max.toFixed(2)})` : '–'
  return `${comparison.title.padEnd(53)} CPU ${text(comparison.cpu).padEnd(22)} rate ${text(comparison.rate)}${
    hasRegressed(comparison) ? '  DEARER' : ''
  }`
}

/**
 * Against an earlier report: each run is set beside its own limit, so that a machine that is slower today is not a
 * slower service.
 */
export function compareReports (base: Report, rows: Row[]): Comparison[] {
  return rows.flatMap(row => {
    const before = base.rows.find(({ name }) => name === row.name)
    if (!before) return []
    const [now, then] = [row.limit, before.limit]
    const ratio = (a: Spread, b: Spread): Spread => ({
      median: a.median / b.median,
      min: a.min / b.max,
      max: a.max / b.min
    })
    const times = now && then && now.cpuTimesLimit / then.cpuTimesLimit
    const cpu = times === undefined
      ? row.cpuMicros && before.cpuMicros && ratio(row.cpuMicros, before.cpuMicros)
      : { median: times, min: times, max: times }
    return [{
      title: row.title,
      cpu,
      rate: now && then ? ratio(now.rateOfLimit, then.rateOfLimit) : ratio(row.rate, before.rate)
    }]
  })
}

/** Against a commit: its service and this one run beside each other, and are asked in turn. */
export async function compareToRef (
  world: World,
  generator: Generator,
  scenarios: Scenario[],
  ref: string,
  pace: Pace,
  onProgress: (text: string) => void
): Promise<Comparison[]> {
  const folder = await checkOut(ref)
  try {
    const [before, now] = [await world.startService({}, folder), await world.startService()]
    const comparisons: Comparison[] = []
    for (const { title, kinds, connections = defaultConnections, addresses = defaultAddresses } of scenarios) {
      const ratios: { cpu: number, rate: number }[] = []
      for (let round = 0; round <= pace.rounds; round++) {
        onProgress(`${title}: round ${round} of ${pace.rounds}, ${ref} and this`)
        const load = () => ({ kinds: kinds(world), connections, addresses, seconds: round === 0 ? 1 : pace.seconds })
        const [a, b] = [
          await run(generator, before, `${title} at ${ref}`, load()),
          await run(generator, now, title, load())
        ]
        if (round > 0) {
          ratios.push({ cpu: b.sample.cpuMicros! / a.sample.cpuMicros!, rate: b.sample.rate / a.sample.rate })
        }
      }
      comparisons.push({
        title,
        cpu: spreadOf(ratios.map(({ cpu }) => cpu)),
        rate: spreadOf(ratios.map(({ rate }) => rate))
      })
    }
    await before.stop()
    await now.stop()
    return comparisons
  } finally {
    execFileSync('git', ['worktree', 'remove', '--force', folder], { cwd: root })
    await rm(folder, { recursive: true, force: true })
  }
}

/** A checkout of a commit, with its packages: those of this one where the lock file is the same. */
async function checkOut (ref: string): Promise<string> {
  const folder = join(await mkdtemp(join(tmpdir(), 'halo-bench-')), 'checkout')
  const git = (...args: string[]): string =>
    execFileSync('git', args, { cwd: root, encoding: 'utf8', stdio: ['ignore', 'pipe', 'pipe'] })
  git('worktree', 'add', '--detach', folder, ref)
  const isSame = git('diff', '--name-only', ref, '--', 'package-lock.json') === ''
  if (isSame && existsSync(join(root, 'node_modules'))) {
    symlinkSync(join(root, 'node_modules'), join(folder, 'node_modules'))
  } else execFileSync('npm', ['ci'], { cwd: folder, stdio: 'ignore' })
  build(folder)
  return folder
}

import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { availableParallelism, tmpdir } from 'node:os'
import { join, relative } from 'node:path'
import { readCommandLine, readWord, refuse } from '../services/runtime/command-line.ts'
import { fixturesOf } from './against.ts'
import { compareReports, compareToRef, hasRegressed, textOfComparison, type Comparison } from './compare.ts'
import { measureAmount, measureConnections, measureIdleMemory, measureStreams } from './connections.ts'
import { crossCheck } from './cross-check.ts'
import { judge, type Gate, type Results } from './gates.ts'
import { checkout } from './checkout.ts'
import { createGenerator, type Generator } from './generator.ts'
import { toHtml } from './html.ts'
import { createLimits, type Limits } from './limits.ts'
import { machine } from './measure.ts'
import { measureScenario, UnexpectedAnswers, type Pace, type Row } from './measure-scenario.ts'
import { summarizeProfiles } from './profile.ts'
import { publish } from './publish.ts'
import { gatesOf, toText, type Report } from './report.ts'
import { scenarios, type Fixtures, type Scenario } from './scenarios.ts'
import { createWorld, print, progress, type Server, type World } from './world.ts'

const help =
  `Usage: npm run bench [-- options]: what the service costs, with everything on, beside the least that it could cost

  --quick              two scenarios, in a minute
  --scenario NAME      only this one; may be repeated (${scenarios.map(({ name }) => name).join(', ')},
                       cross-check, connections, memory, amount, streams)
  --against URL        a service that runs elsewhere, as it is configured there; its TRUST_PROXY must name the address of the bench,
                       which speaks for many clients, or its limiter refuses them
  --compare BASE.json  also against an earlier result
  --compare-ref REF    a commit and this checkout, asked in turn
  --results FOLDER     where results are written instead of bench/results
  --publish            writes the results into docs/PERFORMANCE.md and README.md
  --profile            also where the service's CPU time went; --scenario names one to look at
  --preload FILE       a module that the service loads first, to plant a fault

It uses BENCH_DATABASE_URL and BENCH_REDIS_URL, or an embedded PostgreSQL and a Redis of its own (redis-server must be installed).
Results are written to bench/results. It exits 1 when a gate of bench/gates.json fails, or --compare finds a scenario dearer.`

const { values: options } = readCommandLine({
  usage: help,
  options: {
    quick: { type: 'boolean', default: false },
    scenario: { type: 'string', multiple: true },
    against: { type: 'string' },
    compare: { type: 'string' },
    'compare-ref': { type: 'string' },
    results: { type: 'string', default: join(import.meta.dirname, 'results') },
    publish: { type: 'boolean', default: false },
    profile: { type: 'boolean', default: false },
    preload: { type: 'string' }
  }
})

/** What is measured beside the scenarios, each with a service of its own. */
const specials = ['cross-check', 'amount', 'connections', 'streams', 'memory'] as const

/** Many short rounds: a machine that others use is another one some seconds later. */
const pace: Pace = options.quick
  ? { rounds: 3, seconds: 1, levels: [30], levelSeconds: 3 }
  : { rounds: 5, seconds: 1, levels: [30, 50, 70], levelSeconds: 3 }

/**
 * How often a scenario is measured whose gate fails: a machine that others use fails once, a service that is slow
 * always.
 */
const maxTries = 3

interface Bench {
  fixtures: Fixtures
  service: Server
  generator: Generator
  /** Absent for a service elsewhere. */
  local: { world: World, limits: Limits } | undefined
}

for (const name of options.scenario ?? []) {
  readWord('scenario', name, [...scenarios.map(scenario => scenario.name), ...specials])
}
if (options.against !== undefined && !URL.canParse(options.against)) refuse(`--against is ${options.against}: use a URL`)
for (const name of ['compare', 'preload'] as const) {
  const file = options[name]
  if (file !== undefined && !existsSync(file)) refuse(`--${name} is ${file}: there is no such file`)
}
process.exitCode = await main()

async function main (): Promise<number> {
  const wanted = chosen()
  const gates = JSON.parse(readFileSync(join(import.meta.dirname, 'gates.json'), 'utf8')) as Gate[]
  const generator = createGenerator()
  let world: World | undefined
  try {
    if (options.against) {
      const { service, fixtures } = await fixturesOf(options.against)
      return await measureAll(
        { fixtures, service, generator, local: undefined },
        wanted,
        gates,
        `the service at ${new URL(options.against).host}`
      )
    }
    world = await createWorld()
    if (options['compare-ref']) {
      return conclude(
        await compareToRef(
          world,
          generator,
          wanted.scenarios.filter(({ isLimit }) => !isLimit),
          options['compare-ref'],
          pace,
          progress
        )
      )
    }
    const profiles = options.profile ? mkdtempSync(join(tmpdir(), 'halo-profile-')) : undefined
    const flags = [
      ...options.preload ? [`--import=${options.preload}`] : [],
      ...profiles ? ['--cpu-prof', `--cpu-prof-dir=${profiles}`] : []
    ]
    const service = await world.startService({ NODE_OPTIONS: flags.join(' ') })
    const exitCode = await measureAll(
      { fixtures: world, service, generator, local: { world, limits: createLimits(world, service) } },
      wanted,
      gates,
      world.description
    )
    if (profiles) {
      await service.stop()
      print(`\n${summarizeProfiles(profiles, join(import.meta.dirname, '..'))}`)
      rmSync(profiles, { recursive: true })
    }
    return exitCode
  } finally {
    progress('')
    generator.stop()
    await world?.stop()
  }
}

function chosen (): { scenarios: Scenario[], specials: string[] } {
  const names = options.scenario
  const isWanted = (name: string, isQuick: boolean): boolean => names ? names.includes(name) : !options.quick || isQuick
  return {
    scenarios: scenarios.filter(({ name, isQuick = false, isLocal = false, isLimit = false }) =>
      isWanted(name, isQuick) && !(options.against && (isLocal || isLimit))
    ),
    specials: specials.filter(name => isWanted(name, false) && !options.against)
  }
}

async function measureAll (
  bench: Bench,
  wanted: ReturnType<typeof chosen>,
  gates: Gate[],
  stores: string
): Promise<number> {
  const results: Results = {}
  const judged: Report['gates'] = []
  async function measured (name: string, measure: () => Promise<unknown>): Promise<void> {
    for (let tries = 1; ; tries++) {
      try {
        results[name] = await measure()
      } catch (error) {
        if (!(error instanceof UnexpectedAnswers)) throw error
        // Numbers of a run in which something failed are none; the others are measured all the same.
        judged.push({ text: error.message, isPassed: false, isMeasured: true })
        return
      }
      const own = judge(gates.filter(({ scenario }) => scenario === name), results, availableParallelism())
      if (own.every(({ isPassed }) => isPassed) || tries === maxTries) {
        judged.push(...gatesOf(own))
        return
      }
      progress(`once more, FAIL ${own.find(({ isPassed }) => !isPassed)!.text}`)
    }
  }

  for (const scenario of wanted.scenarios) await measured(scenario.name, () => measureOne(bench, scenario))
  const { local, generator, fixtures, service } = bench
  const world = local?.world
  const ofSpecials: Record<string, () => Promise<unknown>> = world
    ? {
        'cross-check': () =>
          crossCheck(service, generator, scenarios.find(({ name }) => name === 'hot-video')!.kinds(fixtures)[0]!),
        amount: () => measureAmount(service, generator, fixtures, 50_000, 1000),
        connections: () => measureConnections(world, generator, fixtures, 10_000),
        streams: () => measureStreams(world, fixtures, 5000),
        memory: () => measureIdleMemory(world)
      }
    : {}
  for (const name of wanted.specials) {
    progress(`measuring ${name}`)
    await measured(name, ofSpecials[name]!)
  }
  progress('')

  const report: Report = {
    head: headOf(stores),
    rows: wanted.scenarios.flatMap(({ name }) => (results[name] ?? []) as Row | []),
    ...Object.fromEntries(wanted.specials.map(name => [name, results[name]])),
    gates: judged
  }
  print(toText(report))
  writeResults(report)
  if (options.publish) await publish(report)
  const failed = judged.filter(({ isPassed }) => !isPassed)
  if (failed.length > 0) print(`\n${failed.length} of ${judged.length} gates failed`)
  const compared = options.compare
    ? conclude(compareReports(JSON.parse(readFileSync(options.compare, 'utf8')) as Report, report.rows))
    : 0
  return failed.length > 0 ? 1 : compared
}

async function measureOne ({ generator, fixtures, service, local }: Bench, scenario: Scenario): Promise<Row> {
  const limit = scenario.limit && await local?.limits(scenario.limit)
  // For scale: Fastify alone stands where the service stands in the other rows.
  const fastify = scenario.isLimit ? await local!.limits('fastify') : undefined
  return await measureScenario(
    scenario,
    { generator, fixtures, service: fastify?.server ?? service },
    limit,
    pace,
    progress
  )
}

function conclude (comparisons: Comparison[]): number {
  progress('')
  print('\nbeside what it was (ratios; CPU below 1 is cheaper, rate above 1 is faster)')
  for (const comparison of comparisons) print(textOfComparison(comparison))
  return comparisons.some(hasRegressed) ? 1 : 0
}

function headOf (stores: string): Report['head'] {
  return {
    ...checkout(),
    machine: machine(),
    command: ['npm run bench', ...process.argv.length > 2 ? ['--', ...process.argv.slice(2)] : []].join(' '),
    stores,
    configuration: options.against
      ? 'as it is configured there'
      : 'production configuration, one process, everything on',
    flags: [...process.execArgv, process.env['NODE_OPTIONS'] ?? ''].filter(Boolean).join(' ')
  }
}

function writeResults (report: Report): void {
  const folder = options.results
  mkdirSync(folder, { recursive: true })
  const base = join(folder, `${report.head.date.slice(0, 10)}-${report.head.commit}`)
  writeFileSync(`${base}.json`, `${JSON.stringify(report, null, 2)}\n`)
  writeFileSync(`${base}.html`, toHtml(report))
  print(`\n${relative('.', base)}.json and .html`)
}

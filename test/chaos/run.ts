import { randomInt } from 'node:crypto'
import { setTimeout as sleep } from 'node:timers/promises'
import { readCommandLine, readCount, readWord } from '../../services/runtime/command-line.ts'
import { createDatabase } from '../../services/stores/database.ts'
import { describe, verifyCounters } from '../../services/engagement/counters/verify.ts'
import {
  beginCounting,
  commenters,
  readLedger,
  readLikes,
  readShown,
  readStored,
  startLoad,
  type Load,
  type Stored
} from './load.ts'
import { createWorld, presenceMs, type World } from './world.ts'

/**
 * `npm run test:chaos`: three processes of the service under load on a PostgreSQL and a Redis of their own, which
 * are killed, stopped, emptied and put back in time. Exit 1 when anything that was acknowledged is lost under a
 * fault of a process or of PostgreSQL, more than what was unflushed under a fault of Redis, or anything counts twice.
 * With `--durability flushed` nothing that was acknowledged may be lost under any fault.
 */

const { values: options } = readCommandLine({
  usage: `Usage: npm run test:chaos -- [--seed N] [--seconds 6] [--scenario NAME]… [--cluster] [--durability flushed] [--bug NAME]

Three processes under load on a PostgreSQL and a Redis of their own, which are killed, stopped, emptied and put back in
time. It exits 1 when something that was acknowledged is lost or counts twice. redis-server must be installed.`,
  options: {
    seed: { type: 'string' },
    scenario: { type: 'string', multiple: true },
    bug: { type: 'string' },
    cluster: { type: 'boolean', default: false },
    durability: { type: 'string', default: 'buffered' },
    seconds: { type: 'string', default: '6' }
  }
})
const seed = options.seed === undefined ? randomInt(2 ** 31) : readCount('seed', options.seed, { min: 0, max: 2 ** 31 })
// A viewer needs some of it to become a view, and a process to come up again.
const loadMs = readCount('seconds', options.seconds, { min: 3, max: 600 }) * 1000
const isFlushed = readWord('durability', options.durability, ['buffered', 'flushed']) === 'flushed'
const random = mulberry32(seed)

/** Milliseconds without an acknowledgement that the whole test may take. */
const boundMs = 5 * 60_000

/**
 * Milliseconds before a fault of Redis in which something may not have been flushed: a second, and the flush itself.
 */
const unflushedMs = 1500

interface Scenario {
  name: string
  /** Whether Redis loses memory: then what was not flushed may be lost. */
  losesMemory: boolean
  strike(world: World, load: Load): Promise<void>
  isForSingleOnly?: boolean
  /** Only with `--durability flushed`: without it there is no bound on what is lost. */
  isForFlushedOnly?: boolean
}

const someReplica = (world: World) => world.replicas[Math.floor(random() * world.replicas.length)]!

const scenarios: Scenario[] = [
  { name: 'no fault', losesMemory: false, async strike () {} },
  {
    name: 'processes killed',
    losesMemory: false,
    async strike (world, load) {
      for (let round = 0; round < 8; round++) {
        // Each round on a video of its own, which is quiet afterwards: a total that is counted on would hide a loss.
        load.focus = round
        await sleep(400)
        const resume = load.pause()
        await sleep(random() * 700)
        for (const replica of random() < 0.5 ? world.replicas : [someReplica(world)]) replica.kill()
        await world.isReady()
        resume()
      }
      load.focus = undefined
    }
  },
  {
    name: 'process stopped 10 s',
    losesMemory: false,
    async strike (world) {
      const replica = someReplica(world)
      replica.stop()
      await sleep(10_000)
      replica.resume()
      // Heartbeats to the stopped process were lost: their viewers start to watch again, and need time to be a view.
      await sleep(presenceMs)
    }
  },
  {
    name: 'PostgreSQL restarted',
    losesMemory: false,
    async strike (world) {
      await world.postgres.restart()
    }
  },
  { name: 'scripts flushed', losesMemory: false, strike: world => world.forgetScripts() },
  { name: 'Redis emptied', losesMemory: true, strike: world => world.empty() },
  {
    name: 'all restarted, empty',
    losesMemory: true,
    async strike (world) {
      for (const replica of world.replicas) replica.kill()
      await world.empty()
    }
  },
  {
    name: 'all lost after a 200',
    losesMemory: true,
    isForFlushedOnly: true,
    async strike (world, load) {
      for (let round = 0; round < 6; round++) {
        await load.nextAcknowledgement()
        for (const replica of world.replicas) replica.kill()
        await world.empty()
        const resume = load.pause()
        await world.isReady()
        resume()
      }
    }
  },
  { name: 'Redis back in time', losesMemory: true, strike: world => world.goBackInTime() },
  { name: 'replica promoted', losesMemory: true, strike: world => world.promote(), isForSingleOnly: true }
]

interface Row {
  name: string
  acknowledged: number
  stored: number
  lost: number
  double: number
  bound: number
  likes: string
  views: string
  failures: string[]
}

for (const name of options.scenario ?? []) readWord('scenario', name, scenarios.map(one => one.name))
process.stdout.write(
  `Seed ${seed} (again: npm run test:chaos -- --seed ${seed}${options.cluster ? ' --cluster' : ''}${
    isFlushed ? ' --durability flushed' : ''
  })\n`
)
const startedAt = performance.now()
const world = await createWorld({ isCluster: options.cluster, bug: options.bug, durability: options.durability })
const rows: Row[] = []
try {
  await world.isReady()
  await beginCounting(world)
  await settled()
  await sleep(presenceMs)
  await world.takeSnapshot()
  const likes: Load['likes'] = new Map()
  const chosen = scenarios.filter(({ name, isForSingleOnly, isForFlushedOnly }) =>
    (options.scenario === undefined || options.scenario.includes(name)) && (!options.cluster || !isForSingleOnly) &&
    (isFlushed || !isForFlushedOnly)
  )
  if (chosen.length === 0) {
    throw new Error(`There is no such scenario; there are: ${scenarios.map(({ name }) => name).join(', ')}`)
  }
  for (const [index, scenario] of chosen.entries()) {
    if (performance.now() - startedAt > boundMs) throw new Error('The test takes too long')
    if (process.stderr.isTTY) process.stderr.write(`\r  ${scenario.name}…`.padEnd(40))
    rows.push(await play(scenario, likes, 121 + index * 24))
  }
} finally {
  if (process.stderr.isTTY) process.stderr.write('\r'.padEnd(42) + '\r')
  await world.end()
}
report()

async function play (scenario: Scenario, likes: Load['likes'], firstViewer: number): Promise<Row> {
  const before = await readStored(world)
  const load = startLoad(world, likes, firstViewer, random)
  await sleep(loadMs / 2 + random() * 1000)
  const struckAt = performance.now()
  await scenario.strike(world, load)
  const risk = await assessRisk(load, before, struckAt)
  await sleep(loadMs / 2)
  await load.stop()
  await world.isReady()
  await settled()
  const row = await account(scenario, load, before, await readStored(world), risk)
  await world.takeSnapshot()
  return row
}

/** What a fault of Redis may cost, told at its end. */
interface Risk {
  /** Comments that were acknowledged by then and are not in PostgreSQL. */
  unflushed: number
  /** Comments that were acknowledged since a second before it. */
  ofLastSecond: number
  since: number
  until: number
}

async function assessRisk (load: Load, before: Stored, struckAt: number): Promise<Risk> {
  const stored = await readStored(world)
  const until = performance.now()
  const since = struckAt - unflushedMs
  const acknowledged = load.plain.length + load.keyed.length
  return {
    // Of those whose answer never came some may be stored as well.
    unflushed: Math.max(
      0,
      acknowledged + load.unknown + commenters - (stored.plain - before.plain) - (stored.keyed - before.keyed)
    ),
    ofLastSecond: [...load.plain, ...load.keyed].filter(time => time > since).length + load.unknown + commenters,
    since,
    until
  }
}

/** Waits until PostgreSQL has everything: its numbers stand still for longer than a flush takes. */
async function settled (): Promise<void> {
  for (let last = '', since = performance.now(); performance.now() - since < 2500; await sleep(200)) {
    const now = await readLedger(world) + JSON.stringify([await readStored(world), ...await readLikes(world)])
    if (now !== last) since = performance.now()
    last = now
  }
}

async function account (scenario: Scenario, load: Load, before: Stored, after: Stored, risk: Risk): Promise<Row> {
  const failures: string[] = []
  const plain = after.plain - before.plain
  const keyed = after.keyed - before.keyed
  const lost = Math.max(0, load.plain.length - plain) + Math.max(0, load.keyed.length - keyed)
  const double = Math.max(0, plain - load.plain.length - load.unknown) +
    Math.max(0, keyed - load.keyed.length - load.unanswered) + (after.twice - before.twice)
  const bound = scenario.losesMemory && !isFlushed ? risk.unflushed : 0
  if (lost > bound) failures.push(`${lost} acknowledged comments are lost, of at most ${bound}`)
  if (bound > risk.ofLastSecond) {
    failures.push(
      `${bound} comments were not flushed, and only ${risk.ofLastSecond} were younger than ${unflushedMs} ms`
    )
  }
  if (double > 0) failures.push(`${double} comments count twice`)
  if (load.plain.length + load.keyed.length < 100) failures.push('the load was too small to say anything')

  const inLedger = await readLikes(world)
  const sure = [...load.likes].filter(([, { isSure }]) => isSure)
  const wrong = sure.filter(([pair, { liked }]) => (inLedger.get(pair) ?? false) !== liked)
  // One that was taken before the fault may have been answered after it.
  const mayLose = scenario.losesMemory && !isFlushed
  const excusable = wrong.filter(([, { sentAt, at }]) => mayLose && at > risk.since && sentAt < risk.until)
  if (wrong.length > excusable.length) {
    failures.push(`${wrong.length - excusable.length} likes are not what was acknowledged`)
  }
  // What was lost in this scenario is not to be missed in the next.
  for (const [pair, state] of wrong) load.likes.set(pair, { ...state, isSure: false })

  const views = after.views - before.views
  if (views > load.viewers) failures.push(`${views - load.viewers} views count twice`)
  if (views < load.viewers && !scenario.losesMemory) {
    failures.push(`${load.viewers - views} of ${load.viewers} views are missing`)
  }

  const shown = await readShown(world)
  const ledger = await readLedger(world)
  if (shown.some(one => one !== ledger)) {
    failures.push(`the processes show something else than PostgreSQL has:\n${difference(ledger, shown)}`)
  }
  const { drifts } = await verifyCounters({ database: createDatabase({ pool: world.pool }), redis: world.redis })
  failures.push(...drifts.map(describe))

  return {
    name: scenario.name,
    acknowledged: load.plain.length + load.keyed.length,
    stored: plain + keyed,
    lost,
    double,
    bound,
    likes: `${sure.length - wrong.length}/${sure.length}`,
    views: `${views}/${load.viewers}`,
    failures
  }
}

function difference (ledger: string, shown: string[]): string {
  const lines = ledger.split('\n')
  return shown.flatMap((one, replica) =>
    one.split('\n').flatMap((line, index) =>
      line === lines[index] ? [] : [`    process ${replica + 1} shows ${line}, PostgreSQL has ${lines[index]}`]
    )
  ).join('\n')
}

function report (): void {
  const heads = ['fault', 'acknowledged', 'stored', 'lost', 'of at most', 'double', 'likes right', 'views']
  const cells = rows.map(row =>
    [row.name, row.acknowledged, row.stored, row.lost, row.bound, row.double, row.likes, row.views].map(String)
  )
  const widths = heads.map((head, column) => Math.max(head.length, ...cells.map(row => row[column]!.length)))
  for (const line of [heads, ...cells]) {
    process.stdout.write(
      `${
        line.map((cell, column) => column === 0 ? cell.padEnd(widths[0]!) : cell.padStart(widths[column]!)).join('  ')
      }\n`
    )
  }
  for (const { name, failures } of rows) {
    for (const failure of failures.slice(0, 6)) process.stdout.write(`FAILED ${name}: ${failure}\n`)
    if (failures.length > 6) process.stdout.write(`FAILED ${name}: and ${failures.length - 6} more\n`)
  }
  const failed = rows.some(({ failures }) => failures.length > 0)
  process.stdout.write(
    `${failed ? 'The promise is broken.' : 'The promise holds.'} ${
      Math.round((performance.now() - startedAt) / 1000)
    } s\n`
  )
  process.exitCode = failed ? 1 : 0
}

/** Numbers in [0, 1) from a seed: mulberry32 by Tommy Ettinger. */
function mulberry32 (state: number): () => number {
  return () => {
    state = (state + 0x6D2B79F5) | 0
    let t = Math.imul(state ^ (state >>> 15), state | 1)
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61)
    return ((t ^ (t >>> 14)) >>> 0) / 4_294_967_296
  }
}

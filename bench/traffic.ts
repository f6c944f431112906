import { execFile } from 'node:child_process'
import { setTimeout as sleep } from 'node:timers/promises'
import { promisify, stripVTControlCharacters } from 'node:util'
import { Redis } from 'ioredis'
import { readCommandLine, readWord } from '../services/runtime/command-line.ts'
import { createLeaseClient } from '../services/traffic/limiter/lease-client.ts'
import { createSharedBuckets } from '../services/traffic/limiter/shared-buckets.ts'
import { createFaultyProxy } from '../test/helpers/faulty-proxy.ts'
import { checkout, textOfCheckout } from './checkout.ts'
import { createGenerator, type Generator, type LoadResult } from './generator.ts'
import { createHolder } from './holder.ts'
import { createLimits } from './limits.ts'
import { machine, median, residentBytes, watchMachine } from './measure.ts'
import {
  countUnanswered,
  defaultAddresses,
  defaultConnections,
  run,
  spreadOf,
  type Sample,
  type Spread
} from './measure-scenario.ts'
import { maxOpenFiles } from './connections.ts'
import { scenarios, type Scenario } from './scenarios.ts'
import { createWorld, print, progress, type Server, type World } from './world.ts'
import { runWrk } from './wrk.ts'

/**
 * `npm run bench:traffic`: what the service does with more than one process, and with more than it can do. The parts
 * run alone with --part: workers, limiter, overload, connections, slow. PostgreSQL and Redis as for `npm run bench`.
 */

const parts: Record<string, (world: World, generator: Generator) => Promise<void>> = {
  workers: benchWorkers,
  limiter: benchLimiter,
  overload: benchOverload,
  connections: benchConnections,
  slow: benchSlowClients
}
const { values: { part } } = readCommandLine({
  usage: `Usage: npm run bench:traffic [-- --part NAME]

What the service does with several processes, and with more than it can do: ${Object.keys(parts).join(', ')}. It takes
ten minutes, and needs wrk and slowhttptest. PostgreSQL and Redis as for npm run bench.`,
  options: { part: { type: 'string' } }
})
if (part !== undefined) readWord('part', part, Object.keys(parts))

const scenario = (name: string): Scenario => scenarios.find(one => one.name === name)!
const text = ({ median, min, max }: Spread, digits: number): string =>
  `${median.toFixed(digits)} (${min.toFixed(digits)}–${max.toFixed(digits)})`

const world = await createWorld()
const generator = createGenerator()
try {
  print(textOfCheckout(checkout()))
  print(`${machine()}; ${world.description}`)
  print('production configuration, everything on; npm run bench:traffic')
  for (const [name, measure] of Object.entries(parts)) {
    if (part !== undefined && part !== name) continue
    print(`\n${name}`)
    await measure(world, generator)
  }
} finally {
  progress('')
  generator.stop()
  await world.stop()
}

/**
 * One process and two, asked in turn by wrk, which leaves them more of this machine than autocannon does: how much
 * both carry, beside what the machine leaves them (the generator and the stores need the same CPUs), and what a
 * request costs them: at that load, at one that is the same for both, where two wake up more often for fewer
 * requests, and at one that is the same for each process.
 */
async function benchWorkers (world: World, generator: Generator): Promise<void> {
  const [one, two] = [await world.startService(), await world.startService({ WEB_CONCURRENCY: '2' })]
  const rounds = 7
  let rate = 0
  for (
    const { name, why } of [{ name: 'not-found', why: ' (Fastify, and no store)' }, { name: 'hot-video', why: '' }, {
      name: 'mix',
      why: ''
    }]
  ) {
    const { title, kinds } = scenario(name)
    const ratios: number[] = []
    const busy: number[] = []
    const generators: number[] = []
    const micros: CostRounds = { one: [], two: [] }
    for (let round = 0; round <= rounds; round++) {
      progress(`workers: ${title}, round ${round} of ${rounds}`)
      const ask = async (server: Server, words: string): Promise<Sample> => {
        const sample = await runWrk(server, words, { kinds: kinds(world), connections: 64, addresses: 250, seconds: 2 })
        if (!sample) throw new Error('wrk is not installed: apt-get install wrk')
        return sample
      }
      const machineBusy = watchMachine()
      const a = await ask(one, 'one process')
      const busyWithOne = machineBusy()
      const b = await ask(two, 'two processes')
      if (round === 0) continue
      busy.push(busyWithOne)
      ratios.push(b.rate / a.rate)
      generators.push(b.generatorCpu)
      micros.one.push(a.cpuMicros!)
      micros.two.push(b.cpuMicros!)
      rate = Math.floor(a.rate * 0.3)
    }
    print(
      `${title}${why}: two processes carry ${text(spreadOf(ratios), 2)} times what one carries, which takes ${
        (median(busy) * 100).toFixed(0)
      } % of this machine: ${(1 / median(busy)).toFixed(2)} is all there is. ${timesAsDear(micros)}; wrk used ${
        (median(generators) * 100).toFixed(0)
      } % of a CPU`
    )
  }
  for (const [share, words] of [[1, 'all of them'], [2, 'each of them']] as const) {
    const costs: CostRounds = { one: [], two: [] }
    for (let round = 0; round < rounds; round++) {
      progress(`workers: cost at ${rate}/s for ${words}, round ${round + 1} of ${rounds}`)
      const cost = async (server: Server, rate: number): Promise<number> => {
        const { sample } = await run(generator, server, words, {
          kinds: scenario('mix').kinds(world),
          connections: 64,
          addresses: 250,
          seconds: 2,
          rate
        })
        if (sample.rate < rate * 0.95) {
          print(
            `only ${
              sample.rate.toFixed(0)
            } of ${rate}/s were answered in a round: the measured cost is that of a lower rate`
          )
        }
        return sample.cpuMicros!
      }
      costs.one.push(await cost(one, rate))
      costs.two.push(await cost(two, rate * share))
    }
    print(`mix at ${rate}/s for ${words}: ${timesAsDear(costs)}`)
  }
  progress('')
  await one.stop()
  await two.stop()
}

/** CPU time of a request in microseconds, by round. */
interface CostRounds {
  one: number[]
  two: number[]
}

function timesAsDear ({ one, two }: CostRounds): string {
  const [least, leastOfTwo] = [Math.min(...one), Math.min(...two)]
  return `A request costs two processes ${
    (leastOfTwo / least).toFixed(2)
  } times the CPU that it costs one (best rounds: ${leastOfTwo.toFixed(0)} and ${least.toFixed(0)} µs)`
}

async function benchLimiter (world: World, generator: Generator): Promise<void> {
  const replicas = [
    await world.startService({ WEB_CONCURRENCY: '2' }),
    await world.startService({ WEB_CONCURRENCY: '2' })
  ]
  const second = createGenerator()
  const redis = new Redis(world.redisUrl)
  const calls = async (): Promise<number> =>
    Number(/cmdstat_evalsha:calls=(\d+)/.exec(await redis.info('commandstats'))?.[1] ?? 0)
  const offer = async (
    rate: number,
    seconds: number,
    addresses: number
  ): Promise<{ granted: number, refused: number, failed: string, callsPerThousand: number, took: number }> => {
    const kinds = [{ ...scenario('hot-video').kinds(world)[0]!, expect: [200, 429] }]
    const before = await calls()
    const results = await Promise.all(
      [generator, second].map((one, index) =>
        one.run({ ...replicas[index]!, kinds, connections: 32, addresses, seconds, rate: rate / 2 })
      )
    )
    const sum = (of: (result: LoadResult) => number): number => results.reduce((total, result) => total + of(result), 0)
    return {
      granted: sum(result => result.answered),
      refused: sum(result => result.refusals.count),
      // A machine that is slow takes longer to send them, and more may come in.
      took: Math.max(...results.map(result => result.seconds)),
      failed: results.map(result => JSON.stringify(result.unexpected)).filter(found => found !== '{}').join(' '),
      callsPerThousand: (await calls() - before) / (rate * seconds) * 1000
    }
  }
  try {
    await offer(500, 2, 250)
    await sleep(2500)
    const busy = await offer(5000, 10, 1)
    const right = 2000 + 1000 * busy.took
    print(
      `one address at 5,000/s for 10 s, 2 replicas of 2 processes: ${busy.granted} of 50000 were let in within ${
        busy.took.toFixed(2)
      } s (${right.toFixed(0)} is right: ${((busy.granted / right - 1) * 100).toFixed(1)} %), ${
        busy.callsPerThousand.toFixed(0)
      } calls of Redis for 1,000 requests ${busy.failed}`
    )
    await sleep(2500)
    const fair = await offer(5400, 10, 6)
    print(
      `6 addresses at 900/s each: ${fair.granted} let in, ${fair.refused} refused, ${
        fair.callsPerThousand.toFixed(0)
      } calls of Redis for 1,000 requests ${fair.failed}`
    )
    await sleep(2500)
    const many = await offer(5000, 10, 1000)
    print(
      `1,000 addresses at 5/s each: ${many.granted} let in, ${many.refused} refused, ${
        many.callsPerThousand.toFixed(1)
      } calls of Redis for 1,000 requests (those of the counters among them) ${many.failed}`
    )
  } finally {
    second.stop()
    for (const replica of replicas) await replica.stop()
  }
  await offerInProcess(redis)
  redis.disconnect()
  await benchLimiterFaults(world, generator)
  floodOfAddresses()
}

/** What no generator of this machine can send: 64 addresses at 900 a second each, at four limiters with one Redis. */
async function offerInProcess (redis: Redis): Promise<void> {
  const limit = { rate: 1000, burst: 2000 }
  const clients = Array.from({ length: 64 }, (_, n) => `198.51.100.${n}`)
  const buckets = [0, 1, 2, 3].map(() =>
    createSharedBuckets({ ...limit, lease: createLeaseClient({ redis, policy: 'bench', ...limit }) })
  )
  let [offered, refused] = [0, 0]
  const startedAt = performance.now()
  for (let elapsed = 0; elapsed < 5; elapsed = (performance.now() - startedAt) / 1000) {
    for (const due = Math.floor(elapsed * 900); offered < due; offered++) {
      for (const client of clients) if (buckets[offered % 4]!.take(client) < 0) refused++
    }
    await sleep(1)
  }
  const calls = buckets.reduce((sum, { stats }) => sum + stats.calls, 0)
  print(
    `64 addresses at 900/s each, at four limiters without HTTP: ${offered * 64} asked, ${refused} refused, ${
      (calls / offered / 64 * 1000).toFixed(1)
    } calls of Redis for 1,000 requests`
  )
}

/** Redis goes away in the middle of a run. */
async function benchLimiterFaults (world: World, generator: Generator): Promise<void> {
  const ends: (() => unknown)[] = []
  const owner = {
    teardown: (end: () => unknown) => {
      ends.push(end)
    }
  } as Parameters<typeof createFaultyProxy>[0]
  const proxy = await createFaultyProxy(owner, world.redisUrl, 6379)
  const service = await world.startService({ REDIS_URL: proxy.url })
  const kinds = scenario('hot-video').kinds(world)
  const ask = () => generator.run({ ...service, kinds, connections: 64, addresses: 40, seconds: 4, rate: 2000 })
  const rounds = 5
  await ask()
  for (const fault of ['refuse', 'silence'] as const) {
    const before: LoadResult[] = []
    const during: LoadResult[] = []
    for (let round = 0; round < rounds; round++) {
      progress(`limiter: Redis unavailable (${fault}), round ${round + 1} of ${rounds}`)
      before.push(await ask())
      const running = ask()
      await sleep(300)
      await proxy[fault]()
      during.push(await running)
      await proxy.forward()
      await sleep(1500)
    }
    const total = (results: LoadResult[]): number => results.reduce((sum, { answered }) => sum + answered, 0)
    const others = [...before, ...during].map(({ unexpected }) => JSON.stringify(unexpected)).filter(found =>
      found !== '{}'
    ).join(' ')
    const times = (results: LoadResult[], of: 'p50' | 'p99'): number =>
      median(results.map(({ latency }) => latency[of]))
    const added = (of: 'p50' | 'p99'): string =>
      `${of} ${(times(during, of) - times(before, of)).toFixed(1)} ms (to ${times(before, of).toFixed(1)})`
    print(
      `Redis ${fault === 'refuse' ? 'refused' : 'silent'} in the middle of 2,000/s, ${rounds} times: ${
        total(during)
      } of ${total(before)} answered with 200, others: ${others || 'none'}; added by medians ${added('p50')}, ${
        added('p99')
      }`
    )
  }
  progress('')
  await service.stop()
  for (const end of ends.reverse()) await end()
}

/** Ten million addresses that each ask once, and one that never stops. */
function floodOfAddresses (): void {
  const buckets = createSharedBuckets({ rate: 1000, burst: 2000, lease: () => new Promise(() => {}) })
  for (let n = 0; n < 5000; n++) buckets.take('203.0.113.1')
  const before = residentBytes(process.pid)
  let [most, granted, asked] = [0, 0, 0]
  const startedAt = performance.now()
  for (let n = 0; n < 10_000_000; n++) {
    buckets.take(`10.${n >> 16}.${n >> 8 & 255}.${n & 255}`)
    if (n % 100 === 0) {
      asked++
      if (buckets.take('203.0.113.1') >= 0) granted++
    }
    if (n % 100_000 === 0) most = Math.max(most, residentBytes(process.pid) - before)
  }
  const seconds = (performance.now() - startedAt) / 1000
  print(
    `10,000,000 addresses in ${seconds.toFixed(1)} s: ${
      (most / 1e6).toFixed(0)
    } MB more at the most; a busy one among them got ${granted} of ${asked} (${(seconds * 1000).toFixed(0)} flowed in)`
  )
}

/**
 * Twice what it can do, then little. What a bare server takes to answer all of it, over as many connections, stands
 * beside it: a refusal cannot cost less.
 */
async function benchOverload (world: World, generator: Generator): Promise<void> {
  const service = await world.startService()
  const limit = await createLimits(world, service)('video')
  const crowd = { connections: 3000, timeoutMs: 5000 }
  for (const name of ['mix', 'cold-list', 'cold-video']) {
    const { title, kinds, connections = defaultConnections } = scenario(name)
    const load = () => ({
      kinds: kinds(world).map(kind => ({ ...kind, expect: [...kind.expect, 503] })),
      connections,
      addresses: defaultAddresses
    })
    await run(generator, service, title, { ...load(), seconds: 4 })
    const peaks: number[] = []
    const times: number[] = []
    for (let round = 0; round < 5; round++) {
      progress(`overload: ${title}, round ${round + 1} of 5`)
      const bare = await run(generator, limit.server, title, {
        ...load(),
        kinds: limit.kinds(load().kinds),
        seconds: 1
      })
      const { sample, result } = await run(generator, service, title, { ...load(), seconds: 2 })
      peaks.push(result.answered / result.seconds)
      times.push(sample.cpuMicros! / bare.sample.cpuMicros!)
    }
    const peak = median(peaks)
    const cost = median(times)
    const rate = Math.floor(peak * 2)
    progress(`overload: ${title} at ${rate}/s`)
    const { result: over, sample: busy } = await run(generator, service, title, {
      ...load(),
      ...crowd,
      seconds: 8,
      rate
    }, { allowsUnanswered: true })
    const after = (await run(generator, service, title, { ...load(), seconds: 4, rate: Math.floor(peak * 0.3) })).result
    const { result: bare, sample: busyBare } = await run(generator, limit.server, title, {
      ...load(),
      ...crowd,
      kinds: limit.kinds(load().kinds),
      seconds: 4,
      rate
    })
    const goodput = over.answered / over.seconds
    print([
      `${title}: ${peak.toFixed(0)}/s at its peak, where one costs ${cost.toFixed(1)} bare answers; at twice that ${
        goodput.toFixed(0)
      }/s (${(goodput / peak * 100).toFixed(0)} %) answered, p50 ${over.latency.p50.toFixed(0)} ms, p99 ${
        over.latency.p99.toFixed(0)
      } ms,`,
      `  ${countUnanswered(over)} without an answer within 5 s, ${over.refusals.count} refused, p50 ${
        over.refusals.p50.toFixed(1)
      } ms, p99 ${over.refusals.p99.toFixed(1)} ms (a request costs ${
        busy.cpuMicros!.toFixed(0)
      } µs, the generator has ${(over.generatorCpu * 100).toFixed(0)} % of a CPU); bare node:http at this rate: p50 ${
        bare.latency.p50.toFixed(1)
      } ms, p99 ${bare.latency.p99.toFixed(1)} ms, ${busyBare.cpuMicros!.toFixed(0)} µs;`,
      `  then at 30 %: ${after.refusals.count} refused of ${after.answered + after.refusals.count}, p99 ${
        after.latency.p99.toFixed(1)
      } ms, by second ${bySecond(after.perTenth).join(', ')}`
    ].join('\n'))
  }
  await service.stop()
}

function bySecond (perTenth: number[]): number[] {
  return Array.from(
    { length: Math.ceil(perTenth.length / 10) },
    (_, second) => perTenth.slice(second * 10, second * 10 + 10).reduce((sum, count) => sum + count, 0)
  )
}

/** Fifty thousand connections, each of which asks, waits, and asks again. */
async function benchConnections (world: World): Promise<void> {
  const wanted = 50_000
  const each = maxOpenFiles() - 2000
  // Processes that accept from one socket do not share evenly.
  const workers = Math.ceil(wanted / each * 1.5)
  const service = await world.startService({
    WEB_CONCURRENCY: String(workers),
    SERVER_IDLE_TIMEOUT: '600',
    RATE_LIMIT_RPS: '1000000',
    RATE_LIMIT_BURST: '1000000'
  })
  const memory = (): number => service.pids.reduce((sum, pid) => sum + residentBytes(pid), 0)
  const before = memory()
  const holders = Array.from({ length: Math.ceil(wanted / each) }, (_, index) => createHolder(index))
  const share = Math.ceil(wanted / holders.length)
  const startedAt = performance.now()
  const opened = await Promise.all(
    holders.map((holder, index) =>
      holder.open({ host: service.host, port: service.port, count: Math.min(share, wanted - index * share) })
    )
  )
  const seconds = (performance.now() - startedAt) / 1000
  const bytes = (memory() - before) / wanted
  const asked = await Promise.all(holders.map(holder => holder.askAll()))
  const sum = (of: { answered: number, lost: number }[], key: 'answered' | 'lost'): number =>
    of.reduce((total, one) => total + one[key], 0)
  print([
    `${wanted} connections to ${workers} processes (at most ${maxOpenFiles()} files each): ${
      sum(opened, 'answered')
    } opened and answered in ${seconds.toFixed(1)} s, ${(bytes / 1000).toFixed(1)} KB each;`,
    `  then all asked once more within ${Math.max(...asked.map(one => one.seconds)).toFixed(1)} s: ${
      sum(asked, 'answered')
    } answered, ${sum(asked, 'lost')} lost`
  ].join('\n'))
  for (const holder of holders) holder.stop()
  await service.stop()
}

/** Clients that are slow on purpose (slowhttptest of Debian), while others ask. */
async function benchSlowClients (world: World, generator: Generator): Promise<void> {
  const service = await world.startService()
  const url = `http://127.0.0.1:${service.port}/api/v1/videos?limit=100`
  const kinds = scenario('hot-video').kinds(world)
  const ways = {
    'slow headers': ['-H', '-i', '5', '-x', '24'],
    'slow bodies': ['-B', '-i', '5', '-s', '8192', '-x', '10', '-t', 'POST'],
    'slow readers': ['-X', '-k', '3', '-n', '5', '-w', '512', '-y', '1024', '-z', '32']
  }
  for (const [name, args] of Object.entries(ways)) {
    const attack = promisify(execFile)('slowhttptest', [
      '-c',
      '2000',
      '-r',
      '500',
      '-l',
      '20',
      '-p',
      '3',
      '-u',
      url,
      ...args
    ], { maxBuffer: 1e8 })
      .catch((error: NodeJS.ErrnoException) => {
        throw error.code === 'ENOENT' ? new Error('slowhttptest is not installed: apt-get install slowhttptest') : error
      })
    const others = await generator.run({ ...service, kinds, connections: 64, addresses: 250, seconds: 18, rate: 200 })
    const { stdout } = await attack
    const plain = stripVTControlCharacters(stdout)
    const available = [...plain.matchAll(/service available:\s+(\w+)/g)].map(([, word]) => word)
    print(
      `${name}, 2,000 connections: service available ${
        available.length > 0 && available.every(word => word === 'YES')
          ? 'throughout'
          : `in ${available.filter(word => word === 'YES').length} of ${available.length} looks`
      }; exit: ${
        /Exit status:\s*(.*)/.exec(plain)?.[1]?.trim() ?? '?'
      }; of 200/s others ${others.answered} answered, p99 ${others.latency.p99.toFixed(1)} ms, failed ${
        JSON.stringify(others.unexpected)
      }`
    )
  }
  await service.stop()
}

import { readCommandLine } from '../services/runtime/command-line.ts'
import { createGenerator } from './generator.ts'
import { machine, median } from './measure.ts'
import { createWorld, print, progress } from './world.ts'

/**
 * `npm run bench:durability`: comments with COUNTER_DURABILITY=buffered and =flushed, in turn: how many a second, and
 * how long one takes. Both services run on the same PostgreSQL and Redis, with everything on that production has on.
 */

readCommandLine({
  usage: `Usage: npm run bench:durability

Comments with COUNTER_DURABILITY=buffered and =flushed: rate and latency. PostgreSQL and Redis as for npm run bench.`
})

const rounds = 3
const seconds = 4
const modes = ['buffered', 'flushed'] as const
const loads = [1, 16, 64, 256]

const world = await createWorld({ users: 2000, videos: 20_000 })
const generator = createGenerator()
try {
  const limits = {
    RATE_LIMIT_RPS: '1000000',
    RATE_LIMIT_BURST: '1000000',
    ENGAGEMENT_RATE_LIMIT_RPS: '1000000',
    ENGAGEMENT_RATE_LIMIT_BURST: '1000000'
  }
  const servers = new Map(
    await Promise.all(
      modes.map(async mode => [mode, await world.startService({ ...limits, COUNTER_DURABILITY: mode })] as const)
    )
  )
  const bearers = world.bearers(500)
  print(`Comments on ${machine()}; ${world.description}; median of ${rounds} rounds of ${seconds} s`)
  print(['connections', ...modes.flatMap(mode => [`${mode}/s`, 'p50 ms', 'p99 ms'])].map(pad).join(''))
  for (const connections of loads) {
    const results = new Map(modes.map(mode => [mode, [] as { rate: number, p50: number, p99: number }[]]))
    for (let round = 0; round <= rounds; round++) {
      for (const mode of modes) {
        progress(`${connections} connections, ${mode}, round ${round}`)
        const { answered, unexpected, latency, seconds: took } = await generator.run({
          ...servers.get(mode)!,
          connections,
          seconds: round === 0 ? 1 : seconds,
          addresses: 1,
          kinds: [{
            name: 'comment',
            weight: 1,
            method: 'POST',
            paths: world.videos.slice(0, 200).map(id => `/api/v1/videos/${id}/engagement/comments`),
            bearers,
            expect: [200]
          }]
        })
        if (Object.keys(unexpected).length > 0) throw new Error(`${mode}: ${JSON.stringify(unexpected)}`)
        // The first round warms up.
        if (round > 0) results.get(mode)!.push({ rate: answered / took, p50: latency.p50, p99: latency.p99 })
      }
    }
    progress('')
    const cells = modes.flatMap(mode => {
      const list = results.get(mode)!
      return [
        median(list.map(({ rate }) => rate)).toFixed(0),
        median(list.map(({ p50 }) => p50)).toFixed(1),
        median(list.map(({ p99 }) => p99)).toFixed(1)
      ]
    })
    print([String(connections), ...cells].map(pad).join(''))
  }
} finally {
  generator.stop()
  await world.stop()
}

function pad (cell: string): string {
  return cell.padStart(13)
}

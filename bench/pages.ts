import { setTimeout as sleep } from 'node:timers/promises'
import { readCommandLine } from '../services/runtime/command-line.ts'
import { createCursors } from '../services/videos/cursors.ts'
import { machine, median } from './measure.ts'
import { createWorld, print, progress, secret } from './world.ts'

/** `npm run bench:pages`: the first page of a million videos, and one behind 100,000 others, by cursor. */

readCommandLine({
  usage: `Usage: npm run bench:pages

The first page and page 5,000 of a million videos, which it adds first. PostgreSQL and Redis as for npm run bench.`
})

const rounds = 5
const world = await createWorld({ videos: 1_000_000 })
try {
  const { port } = await world.startService()
  const base = `http://127.0.0.1:${port}/api/v1`
  const { rows: [row] } = await world.pool.query<{ id: number, micros: string }>(`
    select id, (extract(epoch from created_at) * 1000000)::bigint::text as micros from videos
    where not is_adult_content order by created_at desc, id desc limit 1 offset 99999`)
  const far = createCursors([secret]).encode(
    { createdMicros: BigInt(row!.micros), id: row!.id },
    JSON.stringify([null, null, null])
  )
  const pages = { 'page 1': '', 'page 5,000': `&cursor=${far}` }
  const times = new Map<string, number[]>(Object.keys(pages).map(name => [name, []]))
  for (let round = 0; round <= rounds; round++) {
    progress(`round ${round} of ${rounds}`)
    // Each size once, and then a pause: none comes from memory.
    for (let limit = 10; limit < 30; limit++) {
      for (const [name, rest] of Object.entries(pages)) {
        const startedAt = performance.now()
        const answer = await fetch(`${base}/videos?limit=${limit}${rest}`)
        if (answer.status !== 200) throw new Error(await answer.text())
        await answer.arrayBuffer()
        if (round > 0) times.get(name)!.push(performance.now() - startedAt)
      }
    }
    await sleep(1100)
  }
  progress('')
  print(`Pages of 10 to 29 of a million videos by cursor, cold, on ${machine()}; ${world.description}; one client`)
  for (const [name, list] of times) print(`${name.padEnd(12)} median ${median(list).toFixed(2)} ms of ${list.length}`)
} finally {
  await world.stop()
}

import { setTimeout as sleep } from 'node:timers/promises'
import pino from 'pino'
import { buildApp } from '../../app.ts'
import { loadConfig } from '../../fastify.config.ts'
import type { Batch } from '../../services/engagement/counters/store.ts'
import { presenceMs } from './world.ts'

/**
 * One process of the service, as run.ts starts it: the whole application on the stores that the environment names,
 * with half a minute of watching in two seconds, and with a bug in it if one is asked for.
 */

const config = loadConfig({ ...process.env, WEB_CONCURRENCY: '1' })
if (config.database.kind === 'embedded') throw new Error('DATABASE_URL is missing')
const app = await buildApp({
  config,
  connection: config.database.connection,
  logger: pino({ level: config.log.level }),
  counterTimes: { presenceMs, watchedMs: 1000, viewWindowMs: 600_000 }
})

const { ledger, store } = app.counters
const { merge } = ledger

const bugs: Record<string, () => void> = {
  /** What is acknowledged before it is committed is lost with the process. */
  'acknowledge-first' () {
    ledger.merge = async batches => {
      await Promise.all(batches.map(batch => store.acknowledge(batch)))
      await sleep(500)
      return await merge(batches)
    }
  },
  /** A key that Redis has lost with its memory is taken for a new one. */
  'forget-receipts' () {
    ledger.findReceipt = async () => undefined
  },
  /** What is added, and not merged by maximum, counts twice when two processes do it. */
  'add-instead-of-max' () {
    const written = new Map<number, number>()
    ledger.merge = async batches => {
      const gone = await merge(batches.map((batch): Batch => ({ ...batch, counters: [] })))
      for (const { videoId, comments } of batches.flatMap(batch => batch.counters)) {
        await app.backgroundPool.query(
          `
          insert into video_counters as c (video_id, comment_base) values ($1, $2)
          on conflict (video_id) do update set comment_base = c.comment_base + excluded.comment_base`,
          [videoId, comments - (written.get(videoId) ?? 0)]
        )
        written.set(videoId, comments)
      }
      return gone
    }
  }
}

const planted = process.env['CHAOS_BUG']
if (planted) bugs[planted]!()
await app.listen({ host: '127.0.0.1', port: config.server.port })
process.on('SIGTERM', () => {
  app.close().then(() => process.exit(0), () => process.exit(1))
})

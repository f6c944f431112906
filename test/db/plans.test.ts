import pg from 'pg'
import t from 'tap'
import { createLedger } from '../../services/engagement/counters/ledger.ts'
import { createDatabase as createPool } from '../../services/stores/database.ts'
import { createDatabase, runSql } from '../helpers/app.ts'
import { integersAsNumbers } from '../../db/integers.ts'
import { onEachStore } from '../helpers/stores.ts'

onEachStore(
  t,
  'a flush of 2,500 counters and likes takes as long after one of a single counter as without it',
  async (t, stores) => {
    const databaseUrl = await createDatabase(t, stores)
    await runSql(
      databaseUrl,
      "insert into users (email, username, password_hash, display_name) select 'u' || n, 'u' || n, 'x', 'x' from generate_series(1, 100) n"
    )
    await runSql(
      databaseUrl,
      "insert into videos (user_id, title) select 1 + n % 100, 'x' from generate_series(1, 20000) n"
    )
    await runSql(databaseUrl, 'analyze')

    /** Milliseconds of each flush, on one new connection. */
    async function flush (sizes: number[], generation: number): Promise<number[]> {
      const pool = new pg.Pool({ connectionString: databaseUrl, max: 1, types: integersAsNumbers })
      const database = createPool({ pool })
      const ledger = createLedger(database, database)
      const times: number[] = []
      for (const [round, size] of sizes.entries()) {
        const ids = Array.from({ length: size }, (_, n) => n + 1)
        const startedAt = performance.now()
        await ledger.merge([{
          shard: 0,
          generation,
          isPartial: false,
          lookedAt: 0,
          receipts: [],
          counters: ids.map(videoId => ({ videoId, views: round + 1, comments: round + 1, peak: 1 })),
          likes: ids.map(videoId => ({
            videoId,
            userId: 1 + videoId % 100,
            isLiked: round % 2 === 0,
            version: round + 1
          }))
        }])
        times.push(performance.now() - startedAt)
      }
      await pool.end()
      return times
    }

    await flush([2500, 2500], 1)
    const large = Math.min(...(await flush([2500, 2500, 2500, 2500], 2)).slice(1))
    const afterSmall = Math.min(...(await flush([1, 2500, 2500, 2500, 2500], 3)).slice(2))
    // The fault made it 13 to 25 times as long.
    t.ok(
      afterSmall < 4 * large + 50,
      `${afterSmall.toFixed(0)} ms after a small flush, ${large.toFixed(0)} ms without one`
    )
    const [row] = await runSql(databaseUrl, 'select sum(view_count)::int as views from videos')
    t.ok(Number(row!['views']) > 0)
  }
)

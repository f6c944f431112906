import t from 'tap'
import { addVideo, createApp, signUp } from '../helpers/app.ts'
import { onEachStore } from '../helpers/stores.ts'

onEachStore(t, 'metrics tell what is pending, what was flushed and how far it lags', async (t, stores) => {
  const app = await createApp(t, { stores, counterTimes: { collectGapMs: 60_000 } })
  const { user, authorization } = await signUp(app)
  const id = await addVideo(app, user.id)
  const read = async (): Promise<Record<string, number>> => {
    const answer = await app.inject('/metrics')
    t.equal(answer.statusCode, 200)
    t.match(answer.headers['content-type'], /^text\/plain; version=0\.0\.4/)
    t.match(answer.body, /^# HELP halo_counters_pending .+\n# TYPE halo_counters_pending gauge$/m)
    return Object.fromEntries(
      [...answer.body.matchAll(/^(\w+) (\S+)$/gm)].map(([, name, value]) => [name!, Number(value)])
    )
  }
  const before = await read()
  t.match(before, { halo_counters_flushed_total: 0, halo_engagement_streams: 0 })
  for (const metric of ['likes', 'comments']) {
    await app.inject({ method: 'POST', url: `/api/v1/videos/${id}/engagement/${metric}`, headers: authorization })
  }
  await app.counters.flusher.flush({ isForced: true })
  const after = await read()
  t.equal(after['halo_counters_flushed_total'], 2)
  t.ok(after['halo_counters_flush_lag_seconds']! < 2)
  t.ok(after['halo_counters_last_flush_seconds']! > 0)
  const { merge } = app.counters.ledger
  app.counters.ledger.merge = async () => {
    throw new Error('gone')
  }
  await app.inject({ method: 'POST', url: `/api/v1/videos/${id}/engagement/comments`, headers: authorization })
  await t.rejects(app.counters.flusher.flush({ isForced: true }))
  t.equal((await read())['halo_counters_pending'], 1)
  app.counters.ledger.merge = merge
})

import t from 'tap'
import { createApp } from '../helpers/app.ts'
import { onEachStore } from '../helpers/stores.ts'

onEachStore(t, 'health and the probes, with every store up, are 200', async (t, stores) => {
  const app = await createApp(t, { stores })
  const now = Math.floor(Date.now() / 1000)
  for (
    const [url, body] of [
      ['/health', { status: 'healthy', database: true, redis: true }],
      ['/livez', { status: 'alive' }],
      ['/readyz', {
        status: 'ready',
        database: true,
        redis: true,
        schema: true,
        revocations: true,
        workers: { running: 1, wanted: 1 }
      }],
      ['/startupz', {
        status: 'ready',
        database: true,
        redis: true,
        schema: true,
        revocations: true,
        workers: { running: 1, wanted: 1 }
      }]
    ] as const
  ) {
    const response = await app.inject(url)
    t.equal(response.statusCode, 200, url)
    const { time, ...rest } = response.json<{ time: number }>()
    t.strictSame(rest, body, url)
    t.ok(Number.isInteger(time) && Math.abs(time - now) <= 5, 'time is Unix time in seconds')
  }
})

onEachStore(t, 'readiness, while draining, is 503 although every store is up', async (t, stores) => {
  const app = await createApp(t, { stores })
  app.lifecycle.isDraining = true
  const response = await app.inject('/readyz')
  t.equal(response.statusCode, 503)
  t.match(response.json(), { status: 'draining', database: true, redis: true, schema: true })
  t.equal((await app.inject('/livez')).statusCode, 200, 'the process itself is alive')
})

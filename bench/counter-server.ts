import { Redis } from 'ioredis'
import pino from 'pino'
import { Type } from '@sinclair/typebox'
import { buildApp } from '../app.ts'
import { loadConfig } from '../fastify.config.ts'
import { PathId } from '../schemas/atoms.ts'
import { Engagement } from '../schemas/engagement.ts'
import { responses } from '../schemas/problem.ts'
import type { Handler } from '../schemas/route.ts'

/**
 * The service with everything on that production has on, and beside its own routes the one of the Go design: the
 * same scope, schemas and body, and a handler that only calls INCR, on a client with automatic pipelining.
 */

const config = loadConfig({ ...process.env, WEB_CONCURRENCY: '1' })
if (config.database.kind === 'embedded') throw new Error('DATABASE_URL is missing')
const app = await buildApp({
  config,
  connection: config.database.connection,
  logger: pino(
    { level: config.log.level },
    pino.destination({ fd: 1, sync: false, minLength: 4096, periodicFlush: 1000 })
  )
})

const redis = new Redis(process.env['REDIS_URL']!, { enableAutoPipelining: true })
const schema = { params: Type.Object({ id: PathId('Id of the video') }), response: responses({ 200: Engagement }) }

const increment: Handler<typeof schema> = async request => {
  const count = await redis.incr(`video:${request.params.id}:likes`)
  return {
    message: 'Engagement recorded',
    data: {
      live_viewers: 0,
      like_count: count,
      comment_count: 0,
      view_count: 0,
      liked: true,
      counters: { stale: false, as_of: new Date().toISOString() }
    }
  }
}
app.authenticated(scope => {
  scope.post('/bench/:id/incr', { schema }, increment)
})

app.addHook('onClose', async () => {
  redis.disconnect()
})
await app.listen({ host: '127.0.0.1', port: 0 })
process.send!((app.server.address() as { port: number }).port)

// An exit and not a death, so that NODE_OPTIONS=--cpu-prof has its profile.
process.on('SIGTERM', () => process.exit())

/** Asked for by the bench: one flush of what is pending, and how long the event loop was held by it. */
process.on('message', message => {
  if (message === 'flush') flush().then(result => process.send!(result), () => process.exit(1))
})

async function flush (): Promise<{ ms: number, holdMs: number, flushed: number }> {
  // Anything that holds the loop makes the next turn of it late.
  let holdMs = 0
  let last = performance.now()
  const probe = setInterval(() => {
    const now = performance.now()
    holdMs = Math.max(holdMs, now - last - 1)
    last = now
  }, 1)
  const { flushed } = app.counters.flusher.stats
  const startedAt = performance.now()
  await app.counters.flusher.flush({ isForced: true })
  const ms = performance.now() - startedAt
  await new Promise(resolve => setTimeout(resolve, 5))
  clearInterval(probe)
  return { ms, holdMs, flushed: app.counters.flusher.stats.flushed - flushed }
}

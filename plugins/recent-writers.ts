import fp from 'fastify-plugin'
import { writersChannel } from '../services/engagement/counters/redis-keys.ts'
import { connectRedis, databaseOf } from '../services/stores/redis-connection.ts'
import { createRecentWriters, type RecentWriters } from '../services/http/read-your-writes.ts'

declare module 'fastify' {
  interface FastifyInstance {
    /** Users who have written within the last second: their reads bypass the response cache. */
    recentWriters: RecentWriters
  }
  interface FastifyContextConfig {
    /** The route changes no content: its callers keep reading from the response cache. */
    isNoContentWrite?: boolean
  }
}

/**
 * Read-your-writes: for one second after a write, the author's reads bypass the response cache, on every process.
 * Processes announce writers to each other over Redis; while it is unavailable, only the process that accepted the
 * write knows, and the author sees the change elsewhere within a second, like everybody.
 */
export default fp(async function recentWriters (app) {
  const { redisClient, config: { redis } } = app
  const channel = redis === null ? '' : writersChannel(databaseOf(redis))
  const writers = createRecentWriters({
    announce: redisClient && (userIds => {
      redisClient.publish(channel, userIds.join()).catch(() => {})
    })
  })
  app.decorate('recentWriters', writers)

  app.addHook('onSend', (request, reply, payload, done) => {
    const isRead = request.method === 'GET' || request.method === 'HEAD' || request.routeOptions.config.isNoContentWrite
    if (!isRead && reply.statusCode < 300 && request.user) {
      writers.add(request.user.user_id)
    }
    done()
  })

  if (redis === null) return
  // A subscribed connection takes no other commands.
  const subscriber = connectRedis(redis)
  // plugins/redis.ts logs that Redis is unavailable.
  subscriber.on('error', () => {})
  subscriber.on('ready', () => {
    subscriber.subscribe(channel).catch(() => {})
  })
  subscriber.on('message', (channel: string, message: string) => {
    for (const userId of message.split(',')) writers.hear(Number(userId))
  })
  subscriber.connect().catch(() => {})
  app.addHook('onClose', async () => {
    subscriber.disconnect()
  })
}, { name: 'halo:recent-writers', dependencies: ['halo:auth', 'halo:config', 'halo:redis'] })

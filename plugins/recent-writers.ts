import fp from 'fastify-plugin'
import { writersChannel } from '../services/counters/redis-keys.ts'
import { connectRedis } from '../services/redis-connection.ts'
import { createRecentWriters, type RecentWriters } from '../services/recent-writers.ts'

declare module 'fastify' {
  interface FastifyInstance {
    /** Who has written a moment ago, and reads past the cache. */
    recentWriters: RecentWriters
  }
}

/**
 * Who has written reads their own write at once, whichever process answers: processes tell each other over Redis who
 * writes. Without Redis, or while it is away, only the process that took the write knows; at the others it takes as
 * long as for everybody, a second.
 */
export default fp(async function recentWriters (app) {
  const { redisClient, config: { redis } } = app
  const writers = createRecentWriters({
    announce: redisClient && (userIds => { redisClient.publish(writersChannel, userIds.join()).catch(() => {}) })
  })
  app.decorate('recentWriters', writers)

  app.addHook('onSend', (request, reply, payload, done) => {
    if (request.method !== 'GET' && request.method !== 'HEAD' && reply.statusCode < 300 && request.user) writers.add(request.user.user_id)
    done()
  })

  if (redis === null) return
  // A connection that listens can do nothing else.
  const subscriber = connectRedis(redis)
  // plugins/redis.ts says that Redis is away.
  subscriber.on('error', () => {})
  subscriber.on('ready', () => { subscriber.subscribe(writersChannel).catch(() => {}) })
  subscriber.on('message', (channel: string, message: string) => {
    for (const userId of message.split(',')) writers.hear(Number(userId))
  })
  subscriber.connect().catch(() => {})
  app.addHook('onClose', async () => { subscriber.disconnect() })
}, { name: 'halo:recent-writers', dependencies: ['halo:auth', 'halo:config', 'halo:redis'] })

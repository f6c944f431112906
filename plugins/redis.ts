import { setTimeout as sleep } from 'node:timers/promises'
import redis, { type FastifyRedis } from '@fastify/redis'
import fp from 'fastify-plugin'
import { Redis } from 'ioredis'
import type { Dependency } from '../services/dependencies.ts'

declare module 'fastify' {
  interface FastifyInstance {
    redisChecks: Dependency[]
  }
}

/**
 * The Redis client, where one is configured. ioredis's defaults hang for many seconds when Redis is away,
 * because a queue is no error; here every command is answered or refused within a quarter of a second, and
 * the client reconnects for ever in the background.
 */
export default fp(async function haloRedis (app) {
  const { redis: config } = app.config
  if (config === null) {
    app.decorate('redisChecks', [])
    return
  }
  const options = {
    lazyConnect: true,
    enableOfflineQueue: false,
    maxRetriesPerRequest: 1,
    commandTimeout: 200,
    connectTimeout: 1000,
    // A connection that swallows commands in silence is given up, and a new one tried.
    socketTimeout: 1000,
    // A command that was cut off may have been done; whoever sent it decides whether to send it again.
    autoResendUnfulfilledCommands: false,
    enableAutoPipelining: true,
    retryStrategy: (attempt: number) => Math.min(50 * attempt, 500)
  }
  const client = 'url' in config ? new Redis(config.url, options) : new Redis({ ...config, ...options })
  let lastError = ''
  client.on('error', (error: Error) => {
    // Once for each kind of trouble, not once for each of the many tries.
    if (error.message !== lastError) app.log.warn({ cause: error.message }, 'Redis is away')
    lastError = error.message
  })
  client.on('ready', () => {
    if (lastError !== '') app.log.info('Redis is back')
    lastError = ''
  })
  // Not awaited to success: the service boots without Redis, says so in /readyz, and takes it up when it comes.
  await Promise.race([client.connect().catch(() => {}), sleep(options.connectTimeout, undefined, { ref: false })])
  if (client.status === 'ready') {
    await app.register(redis, { client })
  } else {
    // @fastify/redis would hold up the boot until the client is ready, and then fail it.
    app.decorate('redis', client as unknown as FastifyRedis)
  }
  app.addHook('onClose', async () => { client.disconnect() })

  app.decorate('redisChecks', [{
    name: 'redis',
    async check () { await client.ping() }
  }])
}, { name: 'halo:redis', dependencies: ['halo:config', 'halo:errors'] })

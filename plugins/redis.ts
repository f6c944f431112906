import { setTimeout as sleep } from 'node:timers/promises'
import redis, { type FastifyRedis } from '@fastify/redis'
import fp from 'fastify-plugin'
import { Cluster, Redis, type RedisOptions } from 'ioredis'
import type { Config } from '../fastify.config.ts'
import type { Dependency } from '../services/dependencies.ts'

declare module 'fastify' {
  interface FastifyInstance {
    redisChecks: Dependency[]
    /** Redis where one is configured, alone or as a cluster. */
    redisClient: Redis | Cluster | undefined
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
    app.decorate('redisClient', undefined)
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
    // It sends one pipeline at a time: behind one that waits for a silent Redis every command would wait twice as
    // long (401 ms were measured instead of 200). services/counters/batcher.ts does its work.
    enableAutoPipelining: false,
    retryStrategy: (attempt: number) => Math.min(50 * attempt, 500),
    // A master that was made a replica: connect anew, to whoever is the master now.
    reconnectOnError: (error: Error) => error.message.startsWith('READONLY')
  }
  const client = connect(config, options)
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
    await app.register(redis, { client: client as FastifyRedis })
  } else {
    // @fastify/redis would hold up the boot until the client is ready, and then fail it.
    app.decorate('redis', client as unknown as FastifyRedis)
  }
  app.decorate('redisClient', client as Redis)
  app.addHook('onClose', async () => { client.disconnect() })

  app.decorate('redisChecks', [{
    name: 'redis',
    async check () { await client.ping() }
  }])
}, { name: 'halo:redis', dependencies: ['halo:config', 'halo:errors'] })

function connect (config: NonNullable<Config['redis']>, options: RedisOptions): Redis | Cluster {
  const { isCluster, ...address } = config
  if (!isCluster) return 'url' in address ? new Redis(address.url, options) : new Redis({ ...address, ...options })
  const seed = 'url' in address ? address.url : { host: address.host, port: address.port }
  const password = 'url' in address ? decodeURIComponent(new URL(address.url).password) : address.password
  return new Cluster([seed], {
    lazyConnect: true,
    enableOfflineQueue: false,
    clusterRetryStrategy: options.retryStrategy!,
    slotsRefreshTimeout: options.connectTimeout!,
    slotsRefreshInterval: 5000,
    redisOptions: { ...options, lazyConnect: false, ...(password ? { password } : {}) }
  })
}

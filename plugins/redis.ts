import { setTimeout as sleep } from 'node:timers/promises'
import redis, { type FastifyRedis } from '@fastify/redis'
import fp from 'fastify-plugin'
import { Cluster, type Redis } from 'ioredis'
import type { Dependency } from '../services/stores/health-checks.ts'
import { connectRedis, connectTimeoutMs } from '../services/stores/redis-connection.ts'

declare module 'fastify' {
  interface FastifyInstance {
    redisChecks: Dependency[]
    /** Redis where one is configured, alone or as a cluster. */
    redisClient: Redis | Cluster | undefined
  }
}

/** The Redis client, where one is configured. It hears its errors, and is closed with the application. */
export default fp(async function haloRedis (app) {
  const { redis: config } = app.config
  if (config === null) {
    app.decorate('redisChecks', [])
    app.decorate('redisClient', undefined)
    return
  }
  const client = connectRedis(config)
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
  await Promise.race([client.connect().catch(() => {}), sleep(connectTimeoutMs, undefined, { ref: false })])
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
    // What requests and the fence of the counters need (INFO, SCRIPT LOAD): a user without the rights answers PING all the same.
    async check () {
      const nodes = client instanceof Cluster ? client.nodes('master') : [client]
      if (nodes.length === 0) throw new Error('no node of the cluster is known')
      await Promise.all(nodes.flatMap(node => [node.info('server'), node.script('LOAD', 'return 1')]))
    }
  }])
}, { name: 'halo:redis', dependencies: ['halo:config', 'halo:errors'] })

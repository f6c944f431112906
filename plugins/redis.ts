import { setTimeout as sleep } from 'node:timers/promises'
import redis, { type FastifyRedis } from '@fastify/redis'
import fp from 'fastify-plugin'
import { Cluster, type Command, type Redis } from 'ioredis'
import type { Dependency } from '../services/stores/health-checks.ts'
import { labelsOf, type Metrics } from '../services/runtime/metrics.ts'
import { connectRedis, connectTimeoutMs } from '../services/stores/redis-connection.ts'

declare module 'fastify' {
  interface FastifyInstance {
    redisChecks: Dependency[]
    /** Redis where one is configured, alone or as a cluster. */
    redisClient: Redis | Cluster | undefined
  }
}

/** The Redis client, where one is configured. Its errors are logged, and it is closed with the application. */
export default fp(async function haloRedis (app) {
  const { redis: config } = app.config
  if (config === null) {
    app.decorate('redisChecks', [])
    app.decorate('redisClient', undefined)
    return
  }
  const client = connectRedis(config)
  measureCommands(client, app.meters)
  let lastError = ''
  client.on('error', (error: Error) => {
    // Once for each kind of error, not for each reconnection attempt.
    if (error.message !== lastError) app.log.warn({ cause: error.message }, 'Redis is unavailable')
    lastError = error.message
  })
  client.on('ready', () => {
    if (lastError !== '') app.log.info('Redis is available again')
    lastError = ''
  })
  // The service starts without Redis, reports it in /readyz, and uses it as soon as it is available.
  await Promise.race([client.connect().catch(() => {}), sleep(connectTimeoutMs, undefined, { ref: false })])
  if (client.status === 'ready') {
    await app.register(redis, { client: client as FastifyRedis })
  } else {
    // @fastify/redis would wait for a client that is ready, and then fail the start.
    app.decorate('redis', client as unknown as FastifyRedis)
  }
  app.decorate('redisClient', client as Redis)
  app.addHook('onClose', async () => {
    client.disconnect()
  })

  app.decorate('redisChecks', [{
    name: 'redis',
    // The commands that requests and the fence of the counters need (INFO, SCRIPT LOAD): PING works without any rights.
    async check () {
      const nodes = client instanceof Cluster ? client.nodes('master') : [client]
      if (nodes.length === 0) throw new Error('no node of the cluster is known')
      await Promise.all(nodes.flatMap(node => [node.info('server'), node.script('LOAD', 'return 1')]))
    }
  }])
}, { name: 'halo:redis', dependencies: ['halo:config', 'halo:errors', 'halo:meters'] })

/** Measures each command, and counts those that were not answered or answered with an error. */
function measureCommands (client: Redis | Cluster, meters: Metrics): void {
  const duration = meters.histogramBy(
    'halo_redis_command_duration_seconds',
    'Duration of commands to Redis, by command',
    'command'
  )
  const countError = meters.counts('halo_redis_errors_total', 'Commands to Redis that failed, by command')
  const { sendCommand } = client
  client.sendCommand = function (command: Command, ...rest: unknown[]) {
    const startedAt = performance.now()
    const answer = (sendCommand as (...args: unknown[]) => unknown).call(this, command, ...rest)
    const observe = (): void => { duration(command.name, (performance.now() - startedAt) / 1000) }
    command.promise.then(observe, (error: Error) => {
      observe()
      // A script that the server does not know yet is loaded, and is no fault.
      if (!error.message.startsWith('NOSCRIPT')) countError(labelsOf({ command: command.name }))
    })
    return answer
  }
}

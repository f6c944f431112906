import fp from 'fastify-plugin'
import { createAccountService } from '../services/accounts.ts'
import { createDatabase } from '../services/database.ts'
import { createDependencyService } from '../services/dependencies.ts'
import { createEngagementService } from '../services/engagement.ts'
import { createMemoryCounters } from '../services/memory-counters.ts'
import { createPasswordService } from '../services/passwords.ts'
import { createRedisCounters } from '../services/redis-counters.ts'
import { createUserService } from '../services/users.ts'
import { createVideoService } from '../services/videos.ts'
import type { Config } from '../fastify.config.ts'
import type { FastifyInstance } from 'fastify'

declare module 'fastify' {
  interface FastifyInstance {
    services: ReturnType<typeof createServices>
  }
}

/** The domain, tied to the connections that the other plugins made. Routes call nothing else. */
export default fp(async function services (app) {
  const services = createServices(app, app.config)
  app.decorate('services', services)
  app.addHook('onClose', () => services.passwords.close())
}, { name: 'halo:services', dependencies: ['halo:config', 'halo:postgres', 'halo:redis'] })

function createServices (app: FastifyInstance, config: Config) {
  // Ten callers for each connection: with statements of a few milliseconds the last one waits for less
  // than the pool's own limit on waiting.
  const database = createDatabase({ pool: app.pg.pool, maxWaiting: config.databasePool.max * 10 })
  const engagement = createEngagementService(database, app.redis ? createRedisCounters(app.redis) : createMemoryCounters())
  const passwords = createPasswordService({ cost: config.passwords.cost })
  return {
    passwords,
    engagement,
    accounts: createAccountService(createUserService(database), passwords),
    videos: createVideoService(database, engagement),
    dependencies: createDependencyService({
      dependencies: [...app.postgresChecks, ...app.redisChecks],
      onChange (name, isUp, error) {
        if (isUp) app.log.info(`${name} is back`)
        else app.log.error({ cause: (error as Error).message }, `${name} is away`)
      }
    })
  }
}

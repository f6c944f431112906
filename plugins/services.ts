import fp from 'fastify-plugin'
import { createAccountService } from '../services/accounts.ts'
import { createCachedVideos } from '../services/cached-videos.ts'
import { createCursors } from '../services/cursors.ts'
import { createDependencyService } from '../services/dependencies.ts'
import { createEngagementStreams } from '../services/engagement-streams.ts'
import { createPasswordService } from '../services/passwords.ts'
import { createUserService } from '../services/users.ts'
import { createVideoService } from '../services/videos.ts'
import { createViewerService } from '../services/viewers.ts'
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
  app.addHook('preClose', async () => { services.streams.close() })
  app.addHook('onClose', () => services.passwords.close())
}, { name: 'halo:services', dependencies: ['halo:config', 'halo:postgres', 'halo:redis', 'halo:counters'] })

function createServices (app: FastifyInstance, config: Config) {
  const { engagement } = app.counters
  const users = createUserService(app.database)
  const passwords = createPasswordService({ cost: config.passwords.cost })
  const videos = createVideoService({ database: app.database, readDatabase: app.readDatabase }, engagement, createCursors(config.jwt.secret))
  return {
    passwords,
    engagement,
    users,
    viewers: createViewerService(app.database),
    accounts: createAccountService(users, passwords),
    streams: createEngagementStreams({ read: ids => engagement.counters(ids) }),
    videos,
    cachedVideos: createCachedVideos(videos),
    dependencies: createDependencyService({
      dependencies: [...app.postgresChecks, ...app.redisChecks],
      onChange (name, isUp, error) {
        if (isUp) app.log.info(`${name} is back`)
        else app.log.error({ cause: (error as Error).message }, `${name} is away`)
      }
    })
  }
}

import { createHmac } from 'node:crypto'
import { setTimeout as sleep } from 'node:timers/promises'
import fp from 'fastify-plugin'
import { createAccountPurge } from '../services/accounts/account-purge.ts'
import { createAccountService } from '../services/accounts/accounts.ts'
import { createCursors } from '../services/videos/cursors.ts'
import { createHealthChecks } from '../services/stores/health-checks.ts'
import { createEngagementStreams } from '../services/engagement/streams.ts'
import { createExpiredRowsPurge } from '../services/accounts/expired-rows.ts'
import { createLoginThrottle } from '../services/accounts/login-throttle.ts'
import { createPasswordService } from '../services/accounts/passwords.ts'
import { createRefreshTokens } from '../services/accounts/refresh-tokens.ts'
import { createRevocations } from '../services/accounts/revocations.ts'
import { createSessionActivity } from '../services/accounts/session-activity.ts'
import { createSessionService } from '../services/accounts/sessions.ts'
import { ed25519Prefix, isWeakSecret } from '../services/accounts/token-keys.ts'
import { createUserService } from '../services/accounts/users.ts'
import { createVideoService } from '../services/videos/videos.ts'
import type { Config } from '../fastify.config.ts'
import type { FastifyInstance } from 'fastify'

declare module 'fastify' {
  interface FastifyInstance {
    services: ReturnType<typeof createServices>
  }
}

/** Creates the services of the domain with the connections of the other plugins. */
export default fp(async function services (app) {
  const services = createServices(app, app.config)
  app.decorate('services', services)
  app.addHook('onReady', async () => {
    await Promise.race([services.revocations.start(), sleep(1000, undefined, { ref: false })])
  })
  app.addHook('onReady', async () => {
    services.accountPurge.start()
    services.expiredRows.start()
  })
  app.addHook('preClose', async () => {
    services.streams.close()
  })
  app.addHook('onClose', async () => {
    services.revocations.close()
    services.expiredRows.close()
    await services.accountPurge.close()
    await services.sessionActivity.close()
  })
  app.addHook('onClose', () => services.passwords.close())
}, { name: 'halo:services', dependencies: ['halo:config', 'halo:postgres', 'halo:redis', 'halo:counters'] })

function createServices (app: FastifyInstance, config: Config) {
  const { engagement } = app.counters
  const users = createUserService(app.database)
  const accountPurge = createAccountPurge({
    database: app.backgroundDatabase,
    onError (error) {
      app.log.warn({ cause: (error as Error).message }, 'rows of deleted accounts could not be removed; retrying')
    }
  })
  const passwords = createPasswordService(config.passwords)
  const sessions = createSessionService(app.database, { ...config.sessions, tokenSeconds: config.jwt.expiresInSeconds })
  const sessionActivity = createSessionActivity(sessions)
  const previous = config.jwt.previousKeys.filter(key => !key.startsWith(ed25519Prefix) && !isWeakSecret(key))
  const secrets = [config.jwt.secret, ...previous]
  const refreshTokens = createRefreshTokens(secrets)
  const revocations = createRevocations({
    database: app.watchDatabase,
    onProgress (known) {
      app.log.info({ known }, 'loading revocations')
    },
    onChange (isCurrent, cause) {
      if (isCurrent) app.log.info('revocations are current again')
      else {
        app.log.warn(
          { cause: (cause as Error | undefined)?.message },
          'revocations cannot be read: known ones stay in force'
        )
      }
    }
  })
  const videos = createVideoService(
    { database: app.database, readDatabase: app.readDatabase },
    engagement,
    createCursors(secrets),
    { maxLive: config.quotas.liveVideos, gate: config.adultContentGate }
  )
  return {
    passwords,
    engagement,
    accountPurge,
    expiredRows: createExpiredRowsPurge({ database: app.backgroundDatabase }),
    users,
    refreshTokens,
    sessionActivity,
    revocations,
    accounts: createAccountService({
      users,
      passwords,
      sessions,
      attempts: createLoginThrottle(app.database, {
        onFallback (cause) {
          app.log.error(
            { cause: (cause as Error | undefined)?.message },
            'login attempts cannot be counted in PostgreSQL: each process counts its own'
          )
        }
      }),
      refreshTokens,
      revocations,
      auditKey: createHmac('sha256', config.jwt.secret).update('halo:audit').digest('base64url'),
      onDeleted (userId) {
        accountPurge.run().catch(() => {})
        engagement.forgetUser(userId).catch((error: unknown) => {
          app.log.warn(
            { cause: (error as Error).message },
            'a deleted account counts as a live viewer until its presence expires'
          )
        })
      },
      onError (error) {
        app.log.warn({ err: error }, 'an outdated password hash could not be replaced')
      }
    }),
    streams: createEngagementStreams({
      read: ids => engagement.counters(ids),
      maxPerClient: config.quotas.streamsPerAddress
    }),
    videos,
    healthChecks: createHealthChecks({
      dependencies: [...app.postgresChecks, ...app.redisChecks],
      onChange (name, isUp, error) {
        if (isUp) app.log.info(`${name} is available again`)
        else app.log.error({ cause: (error as Error).message }, `${name} is unavailable`)
      }
    })
  }
}

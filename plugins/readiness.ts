import fp from 'fastify-plugin'
import type { Workers } from '../services/runtime/worker.ts'
import type { Status } from '../services/stores/health-checks.ts'

/** The answer of `/readyz` and `/startupz`, as schemas/health.ts describes it. */
export interface Readiness extends Status {
  status: 'ready' | 'not_ready' | 'draining'
  revocations: boolean
  workers: { running: number, wanted: number }
  time: number
}

declare module 'fastify' {
  interface FastifyInstance {
    /** The processes behind this port. */
    workers: Workers
    readiness: {
      /** Whether this process should get requests: checks the stores, at most twice a second. */
      check (): Promise<{ isReady: boolean, body: Readiness }>
      /** The same from the last check, which it begins to renew. */
      last (): { isReady: boolean, body: Readiness }
      /** Whether the boot is over: every store has answered once. */
      checkStarted (): Promise<{ hasStarted: boolean, body: Readiness }>
    }
  }
}

/** Whether this process is ready, for the probes of both ports and for the supervisor. */
export default fp<{ workers: Workers }>(async function readiness (app, { workers }) {
  const { lifecycle } = app
  const { healthChecks, revocations } = app.services
  app.decorate('workers', workers)

  function judge (stores: Status) {
    const isReady = stores.database && stores.schema && revocations.isLoaded && !lifecycle.isDraining
    const body: Readiness = {
      status: lifecycle.isDraining ? 'draining' : isReady ? 'ready' : 'not_ready',
      ...stores,
      revocations: revocations.isLoaded,
      workers: workers.state(),
      time: Math.floor(Date.now() / 1000)
    }
    return { isReady, body }
  }

  async function checkStarted () {
    const { body } = judge(await healthChecks.status())
    if (body.database && body.schema && body.redis && body.revocations) lifecycle.hasStarted = true
    const { hasStarted } = lifecycle
    return { hasStarted, body: { ...body, status: hasStarted ? 'ready' as const : 'not_ready' as const } }
  }

  app.decorate('readiness', {
    check: async () => judge(await healthChecks.status()),

    last () {
      checkStarted().catch(() => {})
      return judge(healthChecks.last ?? { database: false, redis: false, schema: false })
    },

    checkStarted
  })
}, { name: 'halo:readiness', dependencies: ['halo:lifecycle', 'halo:services'] })

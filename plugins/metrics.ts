import { readFileSync } from 'node:fs'
import type { AddressInfo } from 'node:net'
import { join } from 'node:path'
import fp from 'fastify-plugin'
import { createOperationsServer, listenForOperations } from '../services/http/operations-server.ts'
import { labelsOf, metricsContentType, toText, type Merge } from '../services/runtime/metrics.ts'
import type { WorkerReport } from '../services/runtime/worker-messages.ts'

declare module 'fastify' {
  interface FastifyInstance {
    metrics: {
      contentType: string
      /** Reads the metrics of all workers, merged. */
      read (): Promise<string>
      /** Port of `/metrics` (METRICS_PORT); null for that of the API, or where the supervisor has it. */
      readonly port: number | null
    }
  }
}

export interface MetricsOptions {
  /** Destination of the log. */
  logDestination: { readonly dropped: number }
  /** Whether a supervisor serves METRICS_PORT for all workers. */
  isSupervised: boolean
}

type Gauge = [name: string, help: string, merge: Merge, read: () => number]

/**
 * Serves the metrics that the other plugins have added, and adds those of parts that know nothing of metrics. On
 * METRICS_PORT the probes are served as well.
 */
export default fp<MetricsOptions>(async function metrics (app, { logDestination, isSupervised }) {
  const { meters, workers, loadShedding, databaseQueue, replicaRouter } = app
  const { flusher, store } = app.counters
  const { streams, healthChecks, passwords } = app.services

  meters.gauge('halo_build_info', 'Version of the service and of Node; always 1', 'max', () => [
    [labelsOf({ version: versionOfService(), node: process.versions.node }), 1]
  ])
  const gauges: Gauge[] = [
    ['halo_workers_wanted', 'Number of workers that should run', 'max', () => workers.state().wanted],
    ['halo_workers', 'Number of running workers that have reported their metrics', 'sum', () => 1],
    ['halo_event_loop_delay_seconds', 'By how much a timer was late when it was last measured', 'max', () => loadShedding.delayMs / 1000],
    ['halo_database_statements_running', 'Statements that requests wait for, running', 'sum', () => databaseQueue.stats.running],
    ['halo_database_statements_waiting', 'Statements that wait in the queue', 'sum', () => databaseQueue.stats.waiting],
    ['halo_passwords_waiting', 'Passwords that wait for a thread', 'sum', () => passwords.stats.waiting],
    ['halo_passwords_running', 'Passwords that are hashed or verified', 'sum', () => passwords.stats.running],
    ['halo_counters_flush_lag_seconds', 'Flush lag: seconds since all counters were in PostgreSQL', 'max', () => flusher.stats.lagMs / 1000],
    ['halo_counters_pending', 'Counters, likes and receipts that are not flushed to PostgreSQL yet', 'max', () => store.stats.pending],
    ['halo_counters_last_flush_seconds', 'Duration of the last non-empty flush', 'max', () => flusher.stats.lastFlushMs / 1000],
    ['halo_engagement_streams', 'Open event streams', 'sum', () => streams.stats.listeners],
    ...(['database', 'redis', 'schema'] as const).map((name): Gauge => [
      `halo_${name}_up`,
      `Whether the last check of the ${name} succeeded (1) or failed (0)`,
      'min',
      () => Number(healthChecks.last?.[name] ?? true)
    ]),
    ...replicaRouter
      ? [
        ['halo_replica_used', 'Whether reads go to the replica (1) or to the primary (0)', 'min', () => Number(replicaRouter.stats.isUsed)],
        ['halo_replica_lag_seconds', 'Upper bound of the replication lag', 'max', () => Math.min(replicaRouter.stats.lagMs / 1000, 86_400)]
      ] satisfies Gauge[]
      : []
  ]
  for (const gauge of gauges) meters.gauge(...gauge)
  const counters: [name: string, help: string, read: () => number][] = [
    ['halo_requests_shed_total', 'Requests that were answered 503 because the process was overloaded', () => loadShedding.refused],
    ['halo_counters_flushed_total', 'Counters, likes and receipts that were flushed', () => flusher.stats.flushed],
    ['halo_counters_flush_failures_total', 'Flushes that failed because a store was unavailable; they are repeated', () => flusher.stats.failures],
    ['halo_counters_recoveries_total', 'Generations that began because Redis had lost data, or may have', () => store.stats.recoveries],
    ['halo_log_lines_dropped_total', 'Log lines that were dropped because standard output was not read', () => logDestination.dropped],
    ['halo_engagement_streams_dropped_total', 'Event streams that were closed because the client was too slow', () => streams.stats.dropped]
  ]
  for (const counter of counters) meters.counter(...counter)

  workers.share((): WorkerReport => {
    const { isReady, body } = app.readiness.last()
    return { metrics: meters.read(), readiness: { isReady, body: { ...body } }, hasStarted: app.lifecycle.hasStarted }
  })
  const { metricsPort, server: { host } } = app.config
  const server = metricsPort === null || isSupervised
    ? undefined
    : createOperationsServer({
      metrics: () => workers.collect(),
      // The same answer as on the port of the API, without its limits.
      async probe (path) {
        const { statusCode, body } = await app.inject(path)
        return { status: statusCode, body }
      }
    })
  app.decorate('metrics', {
    contentType: metricsContentType,
    get port () {
      return (server?.address() as AddressInfo | null)?.port ?? null
    },
    read: async () => toText(await workers.collect())
  })
  if (!server) return
  app.addHook('onReady', async () => {
    await listenForOperations(server, host, metricsPort!)
  })
  app.addHook('onClose', async () => {
    server.close()
    server.closeAllConnections()
  })
}, {
  name: 'halo:metrics',
  dependencies: ['halo:meters', 'halo:readiness', 'halo:load-shedding', 'halo:counters', 'halo:database', 'halo:services']
})

function versionOfService (): string {
  // Beside the sources, and one folder above those that were compiled.
  for (const up of ['..', '../..']) {
    try {
      return (JSON.parse(readFileSync(join(import.meta.dirname, up, 'package.json'), 'utf8')) as { version: string }).version
    } catch {}
  }
  return 'unknown'
}

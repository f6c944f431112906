import type { Server } from 'node:http'
import type { AddressInfo } from 'node:net'
import type { FastifyInstance } from 'fastify'
import fp from 'fastify-plugin'
import { AggregatorRegistry, Gauge, Registry, type MetricObject } from 'prom-client'
import { createServer } from '../services/http/node-http.ts'
import type { Workers } from '../services/runtime/worker.ts'

declare module 'fastify' {
  interface FastifyInstance {
    metrics: {
      contentType: string
      /** Reads the metrics of all workers, merged. */
      read (): Promise<string>
      /** Port of `/metrics` (METRICS_PORT); null for that of the API. */
      readonly port: number | null
    }
    /** The other worker processes. */
    workers: Workers
  }
}

/** How the values of several workers are merged. */
type Merge = 'sum' | 'max' | 'min'

type Metric = [name: string, help: string, merge: Merge, read: () => number]

/** Metrics in the text format of Prometheus, at `/metrics`. Values are read at the time of the request. */
export default fp<{ workers: Workers, logDestination: { readonly dropped: number } }>(
  async function metrics (app, { workers, logDestination }) {
    const registry = new Registry()
    const { requests, loadShedding, databaseQueue } = app
    const { flusher, store } = app.counters
    const { streams } = app.services

    const numbers: Metric[] = [
      ['halo_workers_wanted', 'Number of workers that should run', 'max', () => workers.state().wanted],
      ['halo_workers', 'Number of running workers that have reported their metrics', 'sum', () => 1],
      ['halo_resident_bytes', 'Resident memory of the processes', 'sum', () => process.memoryUsage.rss()],
      [
        'halo_requests_total',
        'Requests that are over: answered, refused, or aborted by the client',
        'sum',
        () => requests.total
      ],
      ['halo_requests_in_flight', 'Requests in flight, without event streams', 'sum', () => requests.inFlight],
      [
        'halo_requests_shed_total',
        'Requests that were answered 503 because the process was overloaded',
        'sum',
        () => loadShedding.refused
      ],
      [
        'halo_event_loop_delay_seconds',
        'By how much a timer was late when it was last measured',
        'max',
        () => loadShedding.delayMs / 1000
      ],
      [
        'halo_database_statements_running',
        'Statements that requests wait for, running',
        'sum',
        () => databaseQueue.stats.running
      ],
      [
        'halo_database_statements_waiting',
        'Statements that wait in the queue',
        'sum',
        () => databaseQueue.stats.waiting
      ],
      [
        'halo_counters_flush_lag_seconds',
        'Flush lag: seconds since all counters were in PostgreSQL',
        'max',
        () => flusher.stats.lagMs / 1000
      ],
      [
        'halo_counters_pending',
        'Counters, likes and receipts that are not flushed to PostgreSQL yet',
        'max',
        () => store.stats.pending
      ],
      [
        'halo_counters_flushed_total',
        'Counters, likes and receipts that were flushed',
        'sum',
        () => flusher.stats.flushed
      ],
      [
        'halo_counters_flush_failures_total',
        'Flushes that failed because a store was unavailable; they are repeated',
        'sum',
        () => flusher.stats.failures
      ],
      [
        'halo_counters_last_flush_seconds',
        'Duration of the last non-empty flush',
        'max',
        () => flusher.stats.lastFlushMs / 1000
      ],
      [
        'halo_counters_recoveries_total',
        'Generations that began because Redis had lost data, or may have',
        'sum',
        () => store.stats.recoveries
      ],
      ...(['database', 'redis', 'schema'] as const).map((
        name
      ): Metric => [
        `halo_${name}_up`,
        `Whether the last check of the ${name} succeeded (1) or failed (0)`,
        'min',
        () => Number(app.services.healthChecks.last?.[name] ?? true)
      ]),
      [
        'halo_log_lines_dropped_total',
        'Log lines that were dropped because standard output was not read',
        'sum',
        () => logDestination.dropped
      ],
      ['halo_engagement_streams', 'Open event streams', 'sum', () => streams.stats.listeners],
      [
        'halo_engagement_streams_dropped_total',
        'Event streams that were closed because the client was too slow',
        'sum',
        () => streams.stats.dropped
      ]
    ]
    const { replicaRouter } = app
    if (replicaRouter) {
      numbers.push(
        [
          'halo_replica_used',
          'Whether reads go to the replica (1) or to the primary (0)',
          'min',
          () => Number(replicaRouter.stats.isUsed)
        ],
        [
          'halo_replica_lag_seconds',
          'Upper bound of the replication lag',
          'max',
          () => Math.min(replicaRouter.stats.lagMs / 1000, 86_400)
        ]
      )
    }
    for (const [name, help, aggregator, read] of numbers) {
      registry.registerMetric(
        new Gauge({
          name,
          help,
          aggregator,
          collect () {
            this.set(read())
          },
          registers: []
        })
      )
    }

    const readOwn = (): Promise<MetricObject[]> => registry.getMetricsAsJSON()
    workers.share(readOwn)
    app.decorate('workers', workers)
    const server = app.config.metricsPort === null ? undefined : createMetricsServer(app)
    app.decorate('metrics', {
      contentType: registry.contentType,
      get port () {
        return (server?.address() as AddressInfo | null)?.port ?? null
      },
      read: async () => await AggregatorRegistry.aggregate(await workers.collect(readOwn) as MetricObject[][]).metrics()
    })
    if (!server) { return }
    app.addHook('onReady', async () => {
      await listen(server, app.config.server.host, app.config.metricsPort!)
    })
    app.addHook('onClose', async () => {
      server.close()
      server.closeAllConnections()
    })
  },
  {
    name: 'halo:metrics',
    dependencies: ['halo:load-shedding', 'halo:request-context', 'halo:counters', 'halo:database', 'halo:services']
  }
)

/** Answers `GET /metrics` and nothing else. */
function createMetricsServer (app: FastifyInstance): Server {
  return createServer({ requestTimeout: 5000, headersTimeout: 5000 }, (request, response) => {
    if (request.url?.split('?', 1)[0] !== '/metrics' || (request.method !== 'GET' && request.method !== 'HEAD')) {
      response.writeHead(404, { 'content-type': 'text/plain' }).end('GET /metrics\n')
      return
    }
    app.metrics.read().then(text => {
      response.writeHead(200, { 'content-type': app.metrics.contentType, 'cache-control': 'no-store' }).end(text)
    }, (error: unknown) => {
      app.log.error({ err: error }, 'the metrics could not be read')
      response.writeHead(503).end()
    })
  })
}

function listen (server: Server, host: string, port: number): Promise<void> {
  return new Promise((resolve, reject) => {
    server.once('error', error => {
      reject(
        (error as NodeJS.ErrnoException).code === 'EADDRINUSE'
          ? new Error(`port ${port} is taken: stop the other process, or set METRICS_PORT`)
          : error
      )
    })
    server.listen({ port, host }, resolve)
  })
}

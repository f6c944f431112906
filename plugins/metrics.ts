import fp from 'fastify-plugin'
import { Gauge, Registry } from 'prom-client'

declare module 'fastify' {
  interface FastifyInstance {
    metrics: Registry
  }
}

/** Numbers for operators, in the text format of Prometheus at `/metrics`; each is read when it is asked for. */
export default fp(async function metrics (app) {
  const registry = new Registry()
  app.decorate('metrics', registry)
  const { flusher, store } = app.counters
  const { streams } = app.services

  const numbers: [name: string, help: string, read: () => number][] = [
    ['halo_counters_flush_lag_seconds', 'Seconds since everything that was counted had reached PostgreSQL', () => flusher.stats.lagMs / 1000],
    ['halo_counters_pending', 'Counters, likes and receipts that PostgreSQL does not have yet', () => store.stats.pending],
    ['halo_counters_flushed_total', 'Counters, likes and receipts that this process has written', () => flusher.stats.flushed],
    ['halo_counters_flush_failures_total', 'Flushes that failed because a store was away; nothing is lost by them', () => flusher.stats.failures],
    ['halo_counters_last_flush_seconds', 'How long the last flush with something in it took', () => flusher.stats.lastFlushMs / 1000],
    ['halo_counters_recoveries_total', 'Generations that this process began because Redis had lost its memory, or may have', () => store.stats.recoveries],
    ['halo_engagement_streams', 'Listeners to event streams', () => streams.stats.listeners],
    ['halo_engagement_streams_dropped_total', 'Listeners that were dropped because they were too slow', () => streams.stats.dropped]
  ]
  const { replicaReads } = app
  if (replicaReads) {
    numbers.push(
      ['halo_replica_used', 'Whether reads go to the replica (1) or to the primary (0)', () => Number(replicaReads.stats.isUsed)],
      ['halo_replica_lag_seconds', 'By how much the replica lies behind at most', () => Math.min(replicaReads.stats.lagMs / 1000, 86_400)]
    )
  }
  for (const [name, help, read] of numbers) {
    registry.registerMetric(new Gauge({ name, help, collect () { this.set(read()) }, registers: [] }))
  }
}, { name: 'halo:metrics', dependencies: ['halo:counters', 'halo:services'] })

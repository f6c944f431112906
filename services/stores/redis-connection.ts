import { Cluster, Redis, type RedisOptions } from 'ioredis'

/** Address of Redis; see Config. */
export type RedisAddress = ({ url: string } | { host: string, port: number, password?: string, db: number }) & {
  isCluster: boolean
}

/**
 * Creates a client that is not connected yet. With ioredis's defaults commands wait in a queue for many seconds while
 * Redis is unavailable; here every command is answered or rejected within a quarter of a second, and the client
 * reconnects for ever in the background.
 */
export function connectRedis ({ isCluster, ...address }: RedisAddress): Redis | Cluster {
  if (!isCluster) return 'url' in address ? new Redis(address.url, options) : new Redis({ ...address, ...options })
  const seed = 'url' in address ? address.url : { host: address.host, port: address.port }
  const password = 'url' in address ? decodeURIComponent(new URL(address.url).password) : address.password
  return new Cluster([seed], {
    lazyConnect: true,
    enableOfflineQueue: false,
    clusterRetryStrategy: options.retryStrategy,
    // A command that was in flight when a connection broke may have been executed: sent again, a comment counted twice
    // (npm run test:chaos -- --cluster, with a process that was stopped for ten seconds).
    retryDelayOnFailover: 0,
    slotsRefreshTimeout: connectTimeoutMs,
    slotsRefreshInterval: 5000,
    // The ready check needs the queue that is off here: it fails by chance and restarts, and connect() never
    // resolves. A client that knows the slots is ready.
    enableReadyCheck: false,
    redisOptions: { ...options, lazyConnect: false, ...(password ? { password } : {}) }
  })
}

/** Number of the database that an address names; a cluster has only 0. */
export function databaseOf (address: RedisAddress): number {
  if (address.isCluster) return 0
  return 'url' in address ? Number(new URL(address.url).pathname.slice(1)) || 0 : address.db
}

/** Milliseconds within which a connection must be established. */
export const connectTimeoutMs = 1000

const options = {
  lazyConnect: true,
  enableOfflineQueue: false,
  maxRetriesPerRequest: 1,
  commandTimeout: 200,
  connectTimeout: connectTimeoutMs,
  // A connection that does not answer is closed, and a new one opened.
  socketTimeout: 1000,
  // A command without an answer may have been executed; its sender decides whether to send it again.
  autoResendUnfulfilledCommands: false,
  // Auto-pipelining sends one pipeline at a time: behind one that waits for a silent Redis, every command waits twice
  // as long (measured: 401 ms instead of 200). services/engagement/counters/batcher.ts does its work.
  enableAutoPipelining: false,
  retryStrategy: (attempt: number) => Math.min(50 * attempt, 500),
  // The master has become a replica: reconnect, to the new master.
  reconnectOnError: (error: Error) => error.message.startsWith('READONLY')
} satisfies RedisOptions

import { Cluster, Redis, type RedisOptions } from 'ioredis'

/** Where Redis is; see Config. */
export type RedisAddress =
  ({ url: string } | { host: string, port: number, password?: string, db: number }) & { isCluster: boolean }

/**
 * A client that is not connected yet. ioredis's defaults hang for many seconds when Redis is away, because a
 * queue is no error; here every command is answered or refused within a quarter of a second, and the client
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
    // A command that was under way when a connection broke may have been done: sent once more, a comment counted twice
    // (npm run test:chaos -- --cluster, with a process that was stopped for ten seconds).
    retryDelayOnFailover: 0,
    slotsRefreshTimeout: connectTimeoutMs,
    slotsRefreshInterval: 5000,
    // Its check needs the queue that is off here: it fails by chance, begins anew, and connect() never resolves. To
    // have the slots is to be ready.
    enableReadyCheck: false,
    redisOptions: { ...options, lazyConnect: false, ...(password ? { password } : {}) }
  })
}

/** Number of the database that an address names; a cluster has only 0. */
export function databaseOf (address: RedisAddress): number {
  if (address.isCluster) return 0
  return 'url' in address ? Number(new URL(address.url).pathname.slice(1)) || 0 : address.db
}

/** Milliseconds in which a connection must stand. */
export const connectTimeoutMs = 1000

const options = {
  lazyConnect: true,
  enableOfflineQueue: false,
  maxRetriesPerRequest: 1,
  commandTimeout: 200,
  connectTimeout: connectTimeoutMs,
  // A connection that swallows commands in silence is given up, and a new one tried.
  socketTimeout: 1000,
  // A command that was cut off may have been done; whoever sent it decides whether to send it again.
  autoResendUnfulfilledCommands: false,
  // It sends one pipeline at a time: behind one that waits for a silent Redis every command would wait twice as
  // long (401 ms were measured instead of 200). services/engagement/counters/batcher.ts does its work.
  enableAutoPipelining: false,
  retryStrategy: (attempt: number) => Math.min(50 * attempt, 500),
  // A master that was made a replica: connect anew, to whoever is the master now.
  reconnectOnError: (error: Error) => error.message.startsWith('READONLY')
} satisfies RedisOptions

import { Cluster, Redis, type ClusterOptions, type RedisOptions } from 'ioredis'

/** Address of Redis: a server, a node of a cluster, or sentinels that know the server. */
export type RedisAddress =
  & ({ url: string } | (RedisParts & ({ host: string, port: number } | RedisSentinels)))
  & {
    isCluster: boolean
    /** Whether connections are encrypted; a `rediss:` URL and `ca` imply it. */
    isTls?: boolean
    /** Certificates (PEM) that the server's must be signed by. */
    ca?: string
  }

interface RedisParts {
  username?: string
  password?: string
  db: number
}

interface RedisSentinels {
  sentinels: { host: string, port: number }[]
  masterName: string
  sentinelPassword?: string
}

/** Milliseconds within which a connection must be established. */
export const connectTimeoutMs = 1000

const retryStrategy = (attempt: number): number => Math.min(50 * attempt, 500)

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
  retryStrategy,
  // The master has become a replica: reconnect, to the new master.
  reconnectOnError: (error: Error) => error.message.startsWith('READONLY')
} satisfies RedisOptions

const clusterOptions = {
  lazyConnect: true,
  enableOfflineQueue: false,
  clusterRetryStrategy: retryStrategy,
  // A command that was in flight when a connection broke may have been executed: sent again, a comment counted twice
  // (npm run test:chaos -- --cluster, with a process that was stopped for ten seconds).
  retryDelayOnFailover: 0,
  slotsRefreshTimeout: connectTimeoutMs,
  slotsRefreshInterval: 5000,
  // The ready check needs the queue that is off here: it fails by chance and restarts, and connect() never resolves. A
  // client that knows the slots is ready.
  enableReadyCheck: false
} satisfies ClusterOptions

/**
 * Creates a client that is not connected yet. With ioredis's defaults commands wait in a queue for many seconds while
 * Redis is unavailable; here every command is answered or rejected within a quarter of a second, and the client
 * reconnects for ever in the background.
 */
export function connectRedis (address: RedisAddress): Redis | Cluster {
  const { host, port, db, ...credentials } = serverOf(address)
  if (address.isCluster) {
    return new Cluster([{ host, port }], {
      ...clusterOptions,
      redisOptions: { ...options, ...credentials, lazyConnect: false },
      // A certificate is for the name that a node announces, not for its address.
      ...credentials.tls ? { dnsLookup: (name, callback) => callback(null, name) } : {}
    })
  }
  if (!('sentinels' in address)) return new Redis({ ...options, ...credentials, host, port, db })
  return new Redis({
    ...options,
    ...credentials,
    db,
    sentinels: address.sentinels.map(sentinel => ({ ...sentinel })),
    name: address.masterName,
    sentinelRetryStrategy: retryStrategy,
    sentinelCommandTimeout: connectTimeoutMs,
    ...address.sentinelPassword === undefined ? {} : { sentinelPassword: address.sentinelPassword },
    ...credentials.tls ? { enableTLSForSentinelMode: true, sentinelTLS: credentials.tls } : {}
  })
}

/** Number of the database that an address names; a cluster has only 0. */
export const databaseOf = (address: RedisAddress): number => address.isCluster ? 0 : serverOf(address).db

/** Describes an address for people; never with a password. */
export function describeRedis (address: RedisAddress): string {
  if ('sentinels' in address) {
    return `${address.masterName} of ${address.sentinels.map(({ host, port }) => `${host}:${port}`).join(', ')}`
  }
  const { host, port } = serverOf(address)
  return `${host}:${port}`
}

/** All that an address says, as options for each connection that is made from it. */
function serverOf (address: RedisAddress) {
  const { host = '', port = 0, username, password, db } = 'url' in address
    ? partsOf(new URL(address.url))
    : address as RedisParts & { host?: string, port?: number }
  const isTls = address.isTls === true || address.ca !== undefined ||
    ('url' in address && address.url.startsWith('rediss:'))
  return {
    host,
    port,
    db,
    ...username ? { username } : {},
    ...password ? { password } : {},
    ...isTls ? { tls: address.ca === undefined ? {} : { ca: address.ca } } : {}
  }
}

function partsOf ({ hostname, port, username, password, pathname }: URL) {
  return {
    host: hostname.replace(/^\[(.*)\]$/, '$1') || 'localhost',
    port: Number(port) || 6379,
    username: decodeURIComponent(username),
    password: decodeURIComponent(password),
    db: Number(pathname.slice(1)) || 0
  }
}

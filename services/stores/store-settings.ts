import { readFileSync } from 'node:fs'
import { resolve } from 'node:path'
import { parse, type ConnectionOptions } from 'pg-connection-string'
import type { Environment } from '../../schemas/environment.ts'
import type { RedisAddress } from './redis-connection.ts'

/** Connection parameters for `pg`: a URL, or its parts. */
export type ServerConnection =
  | { connectionString: string }
  | { host: string, port?: number, user: string, password?: string, database: string, ssl?: { ca: string } }

export type DatabaseConfig =
  | { kind: 'embedded', directory: string }
  | { kind: 'server', connection: ServerConnection }

/** Query members of a PostgreSQL URL that have an effect; the service sets time limits and so on itself. */
const supportedMembers = new Set([
  'ssl',
  'host',
  'port',
  'user',
  'password',
  'sslmode',
  'sslcert',
  'sslkey',
  'sslrootcert',
  'uselibpqcompat',
  'options',
  'application_name',
  'client_encoding'
])

/** Reads the database from DATABASE_URL, the DB_* parts, or neither: then it is the embedded one. */
export function readDatabase (environment: Environment, problems: string[]): DatabaseConfig {
  const ca = readFile('DB_CA_FILE', environment.DB_CA_FILE, problems)
  if (environment.DATABASE_URL) {
    return { kind: 'server', connection: readPostgresUrl('DATABASE_URL', environment.DATABASE_URL, ca, problems) }
  }
  if (!environment.DB_HOST) return { kind: 'embedded', directory: resolve(environment.DATA_DIR ?? '.data') }
  return {
    kind: 'server',
    connection: {
      host: environment.DB_HOST,
      port: environment.DB_PORT,
      user: environment.DB_USER ?? 'postgres',
      ...environment.DB_PASSWORD ? { password: environment.DB_PASSWORD } : {},
      database: environment.DB_NAME ?? 'halo',
      ...ca === undefined ? {} : { ssl: { ca } }
    }
  }
}

export function readReplica (environment: Environment, problems: string[]): ServerConnection | null {
  const { DATABASE_REPLICA_URL: url } = environment
  if (!url) return null
  return readPostgresUrl('DATABASE_REPLICA_URL', url, readFile('DB_CA_FILE', environment.DB_CA_FILE, []), problems)
}

/** What is refused here would fail at every connection, or be ignored silently. Messages contain no password. */
function readPostgresUrl (name: string, url: string, ca: string | undefined, problems: string[]): ServerConnection {
  const connection = { connectionString: url }
  const parsed = parsePostgresUrl(url)
  const [, authority = ''] = /^postgres(?:ql)?:\/\/(?:[^@/?]*@)?([^/?]*)/.exec(url) ?? []
  if (authority.includes(',') || parsed?.host?.includes(',')) {
    problems.push(
      `${name} names several hosts, which the client cannot try in turn: name one, or a proxy in front of them`
    )
    return connection
  }
  if (!parsed) {
    problems.push(
      `${name} is not a URL that begins with postgres:// or postgresql://, or names a file that cannot be read: mend it, or leave it out`
    )
    return connection
  }
  for (const member of new URLSearchParams(url.split('?', 2)[1] ?? '').keys()) {
    if (!supportedMembers.has(member)) {
      problems.push(`${name} has ${member.slice(0, 50)}, which this service does not take: leave it out`)
    }
  }
  if (ca === undefined) return connection
  const { host, port, user, password, database, options, application_name: application, client_encoding: encoding } =
    parsed
  const { cert, key } = typeof parsed.ssl === 'object' ? parsed.ssl as { cert?: string, key?: string } : {}
  return {
    host: host || 'localhost',
    ...port ? { port: Number(port) } : {},
    user: user || 'postgres',
    ...password ? { password } : {},
    database: database || 'postgres',
    ...options ? { options } : {},
    ...application ? { application_name: application } : {},
    ...encoding ? { client_encoding: encoding } : {},
    ssl: { ...cert ? { cert } : {}, ...key ? { key } : {}, ca }
  }
}

/** Returns undefined for a text that is no URL of PostgreSQL. */
function parsePostgresUrl (url: string): ConnectionOptions | undefined {
  if (!/^postgres(?:ql)?:\/\//.test(url)) return undefined
  try {
    return parse(url)
  } catch {
    return undefined
  }
}

/** Describes a server for people; never with a password. */
export function describeServer (connection: ServerConnection): string {
  const { host, port, database } = 'connectionString' in connection
    ? parsePostgresUrl(connection.connectionString) ?? {}
    : connection
  return `${host || 'localhost'}${port ? `:${port}` : ''}/${database ?? ''}`
}

/** Returns the password of a server; '' for none. */
export function passwordOf (connection: ServerConnection): string {
  return ('connectionString' in connection ? parsePostgresUrl(connection.connectionString) : connection)?.password ?? ''
}

/** Reads Redis from REDIS_URL, REDIS_SENTINELS or the REDIS_* parts; null for none of them. */
export function readRedis (environment: Environment, problems: string[]): RedisAddress | null {
  const {
    REDIS_URL: url,
    REDIS_HOST: host,
    REDIS_PORT: port,
    REDIS_DB: db,
    REDIS_USERNAME: username,
    REDIS_PASSWORD: password
  } = environment
  const isCluster = environment.REDIS_CLUSTER === 'true'
  const sentinels = list(environment.REDIS_SENTINELS)
  const ca = readFile('REDIS_CA_FILE', environment.REDIS_CA_FILE, problems)
  const shared = { isCluster, isTls: environment.REDIS_TLS === 'true', ...ca === undefined ? {} : { ca } }
  const parts = {
    db,
    ...username ? { username } : {},
    ...password ? { password } : {}
  }
  if (sentinels.length > 0) {
    if (url || isCluster) {
      problems.push(`REDIS_SENTINELS and ${url ? 'REDIS_URL' : 'REDIS_CLUSTER'} name different servers: set one of them`)
    }
    return {
      ...shared,
      ...parts,
      sentinels: sentinels.map(text => readSentinel(text, problems)),
      masterName: environment.REDIS_SENTINEL_MASTER,
      ...environment.REDIS_SENTINEL_PASSWORD ? { sentinelPassword: environment.REDIS_SENTINEL_PASSWORD } : {}
    }
  }
  if (url) {
    checkRedisUrl(url, isCluster, problems)
    return { ...shared, url }
  }
  if (!host) return null
  if (isCluster && db !== 0) problems.push(`REDIS_DB is ${db}, and a Redis Cluster has only database 0: leave it out`)
  return { ...shared, ...parts, host, port }
}

function checkRedisUrl (url: string, isCluster: boolean, problems: string[]): void {
  if (!URL.canParse(url) || !['redis:', 'rediss:'].includes(new URL(url).protocol)) {
    problems.push('REDIS_URL is not a URL that begins with redis:// or rediss://: mend it, or leave it out')
    return
  }
  const { pathname, searchParams, username, password } = new URL(url)
  try {
    decodeURIComponent(username + password)
  } catch {
    problems.push('REDIS_URL has a % that is no escape in its user or password: write it as %25')
  }
  if (!/^\/?\d{0,5}$/.test(pathname)) {
    problems.push('REDIS_URL ends with the number of a database, such as /1, or without one: mend it')
  } else if (isCluster && Number(pathname.slice(1)) > 0) {
    problems.push('REDIS_URL names a database, and a Redis Cluster has only database 0: leave it out')
  }
  for (const member of searchParams.keys()) {
    problems.push(`REDIS_URL has ${member.slice(0, 50)}, which this service does not take: leave it out`)
  }
}

function readSentinel (text: string, problems: string[]): { host: string, port: number } {
  const [, bracketed, plain, port = '26379'] = /^(?:\[([^\]]+)\]|([^:\s]+))(?::(\d{1,5}))?$/.exec(text) ?? []
  const host = bracketed ?? plain
  if (host === undefined || Number(port) > 65_535) {
    problems.push(`REDIS_SENTINELS has ${JSON.stringify(text)}: list the sentinels as host:port, separated by commas`)
  }
  return { host: host ?? '', port: Number(port) }
}

function readFile (name: string, path: string | undefined, problems: string[]): string | undefined {
  if (!path) return undefined
  try {
    return readFileSync(path, 'utf8')
  } catch (error) {
    problems.push(`${name} cannot be read (${(error as NodeJS.ErrnoException).code}): name a file with certificates (PEM)`)
    return undefined
  }
}

const list = (value = ''): string[] => value.split(',').map(item => item.trim()).filter(item => item !== '')

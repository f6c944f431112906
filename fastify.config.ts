import { randomBytes } from 'node:crypto'
import type { Server } from 'node:http'
import { BlockList, isIP } from 'node:net'
import { availableParallelism } from 'node:os'
import type { FastifyHttpOptions } from 'fastify'
import { Value } from '@sinclair/typebox/value'
import { Environment } from './schemas/environment.ts'
import { ConfigurationError } from './services/runtime/configuration-error.ts'
import { withSecretFiles } from './services/runtime/secret-files.ts'
import { ed25519Prefix, isEd25519Key, isWeakSecret } from './services/accounts/token-keys.ts'
import type { Policies } from './services/traffic/limiter/policies.ts'
import type { RedisAddress } from './services/stores/redis-connection.ts'
import {
  passwordOf,
  readDatabase,
  readRedis,
  readReplica,
  type DatabaseConfig,
  type ServerConnection
} from './services/stores/store-settings.ts'

export type { DatabaseConfig, ServerConnection }

export interface Config {
  environment: Environment['NODE_ENV']
  publicUrl: string
  /** Number of worker processes. */
  workers: number
  server: {
    host: string
    port: number
    readTimeoutMs: number
    writeTimeoutMs: number
    idleTimeoutMs: number
    drainDelayMs: number
    drainTimeoutMs: number
    trustProxy: string[]
  }
  log: { level: string }
  /** Whether the API page and the OpenAPI document are served. */
  hasApiDocs: boolean
  /** Port of `/metrics`; null for that of the API. */
  metricsPort: number | null
  database: DatabaseConfig
  /** A streaming replica for reads; null for none. */
  databaseReplica: ServerConnection | null
  /** Connection pool of each process. */
  databasePool: {
    max: number
    min: number
    maxLifetimeSeconds: number /** False behind PgBouncer. */
    isPrepared: boolean
  }
  redis: RedisAddress | null
  readCache: { maxBytes: number }
  adultContentGate: Environment['ADULT_CONTENT_GATE']
  /** When likes and comments are acknowledged. */
  counterDurability: Environment['COUNTER_DURABILITY']
  /** Whether query members that a route does not know are refused. */
  strictQuery: boolean
  jwt: {
    /** Key of HS256. Other keys (cursors, refresh tokens, audit) are derived from it. */
    secret: string
    /** Earlier secrets and, with the prefix `ed25519:`, earlier signing keys. */
    previousKeys: string[]
    /** Ed25519 private key, DER in base64; null for HS256. */
    signingKey: string | null
    issuer: string
    audience: string
    acceptsLegacy: boolean
    expiresInSeconds: number
  }
  sessions: { lifetimeSeconds: number, maxPerUser: number }
  passwords: {
    /** Threads of each process. */ threads: number
    cost: number
    pepper: string
    previousPeppers: string[]
    blocklist: 'off' | 'common'
    /** Whether a login replaces an outdated hash. */
    isRehashed: boolean
  }
  cors: { origins: '*' | string[] }
  rateLimit: { policies: Policies, hasLegacyHeaders: boolean }
  /** Quotas per user or client address. */
  quotas: { liveVideos: number, streamsPerAddress: number }
  /** Warnings for the log at the start: settings that are valid and probably not intended. */
  warnings: string[]
}

/** Pepper if none is set: no secret, and the same everywhere. */
const noPepper = 'HALO, on a machine of a developer'

type Variables = Record<string, string | undefined>

/**
 * Builds the configuration of the service from environment variables.
 *
 * @throws ConfigurationError with every wrong setting and its remedy
 */
export function loadConfig (variables: Variables): Readonly<Config> {
  const problems: string[] = []
  const environment = readEnvironment(variables, problems)
  const isProduction = environment.NODE_ENV === 'production'

  const secret = environment.JWT_SECRET_KEY ?? ''
  const hasSecret = secret !== ''
  if (isProduction || hasSecret) {
    const bytes = Buffer.byteLength(secret)
    if (bytes < 32) {
      problems.push(
        `JWT_SECRET_KEY ${
          hasSecret ? `has ${bytes} bytes` : 'is missing'
        } and needs 32 bytes or more: make one with: openssl rand -base64 48${
          hasSecret ? ', and put the present one into JWT_PREVIOUS_KEYS: tokens that it signed stay valid' : ''
        }`
      )
    }
  }

  const signingKey = environment.JWT_SIGNING_KEY || null
  if (signingKey !== null && !isEd25519Key(signingKey, 'private')) {
    problems.push(
      'JWT_SIGNING_KEY is no Ed25519 private key in base64 of its DER form: make one with: openssl genpkey -algorithm ed25519 -outform DER | base64 -w0'
    )
  }
  const previousKeys = secrets('JWT_PREVIOUS_KEYS', environment.JWT_PREVIOUS_KEYS ?? '', problems)
  for (const [index, key] of previousKeys.entries()) {
    if (!key.startsWith(ed25519Prefix) || isEd25519Key(key.slice(ed25519Prefix.length), 'any')) continue
    problems.push(
      `JWT_PREVIOUS_KEYS has a key (the ${
        index + 1
      }. one) that begins with ${ed25519Prefix} and is no Ed25519 key in base64 of its DER form`
    )
  }
  const previousPeppers = secrets('PASSWORD_PREVIOUS_PEPPERS', environment.PASSWORD_PREVIOUS_PEPPERS ?? '', problems)
  const pepper = environment.PASSWORD_PEPPER ?? ''
  if (pepper !== '' && Buffer.byteLength(pepper) < 32) {
    problems.push(
      `PASSWORD_PEPPER has ${Buffer.byteLength(pepper)} bytes and needs 32 bytes or more: make one with: openssl rand -base64 48`
    )
  }

  const database = readDatabase(environment, problems)
  if (isProduction && database.kind === 'embedded') {
    problems.push(
      'DATABASE_URL (or DB_HOST) is missing: name a PostgreSQL server, such as DATABASE_URL=postgres://user:password@host:5432/halo'
    )
  }
  const databaseReplica = readReplica(environment, problems)
  const redis = readRedis(environment, problems)
  if (isProduction && redis === null) {
    problems.push('REDIS_URL (or REDIS_HOST) is missing: name a Redis server, such as REDIS_URL=redis://host:6379')
  }

  const maxConnections = environment.DB_MAX_OPEN_CONNS || defaultOf('DB_MAX_OPEN_CONNS')
  const workers = environment.WEB_CONCURRENCY ??
    (redis === null ? 1 : Math.min(availableParallelism(), maxConnections))
  if (workers > 1 && redis === null) {
    problems.push(
      `WEB_CONCURRENCY is ${workers}, and without Redis counters live in one process: set REDIS_URL, or WEB_CONCURRENCY=1`
    )
  }
  if (maxConnections < workers) {
    problems.push(
      `DB_MAX_OPEN_CONNS (${maxConnections}) is below the ${workers} processes that share them: raise it, or lower WEB_CONCURRENCY`
    )
  }

  const origins = readOrigins(environment, isProduction, problems)
  const trustProxy = readTrustProxy(environment.TRUST_PROXY, problems)
  const publicUrl = readPublicUrl(environment.PUBLIC_URL, problems)
  if (
    environment.METRICS_PORT !== undefined && environment.METRICS_PORT !== 0 &&
    environment.METRICS_PORT === environment.SERVER_PORT
  ) {
    problems.push(
      `METRICS_PORT is ${environment.METRICS_PORT}, which is SERVER_PORT: name another port, or leave it out`
    )
  }
  // One that is not set follows the maximum.
  if (variables['DB_MAX_IDLE_CONNS']?.trim() && environment.DB_MAX_IDLE_CONNS > maxConnections) {
    problems.push(
      `DB_MAX_IDLE_CONNS (${environment.DB_MAX_IDLE_CONNS}) is above DB_MAX_OPEN_CONNS (${maxConnections}): lower the first or raise the second`
    )
  }
  if (isProduction && environment.PASSWORD_COST < 10) {
    problems.push(`PASSWORD_COST is ${environment.PASSWORD_COST}, too cheap for production: use 10 or more`)
  }
  if (problems.length > 0) throw new ConfigurationError(problems)

  return deepFreeze({
    environment: environment.NODE_ENV,
    publicUrl,
    workers,
    server: {
      host: environment.SERVER_HOST,
      port: environment.SERVER_PORT,
      readTimeoutMs: (environment.SERVER_READ_TIMEOUT || defaultOf('SERVER_READ_TIMEOUT')) * 1000,
      writeTimeoutMs: (environment.SERVER_WRITE_TIMEOUT || defaultOf('SERVER_WRITE_TIMEOUT')) * 1000,
      idleTimeoutMs: (environment.SERVER_IDLE_TIMEOUT || defaultOf('SERVER_IDLE_TIMEOUT')) * 1000,
      drainDelayMs: environment.SERVER_DRAIN_DELAY * 1000,
      drainTimeoutMs: environment.SERVER_DRAIN_TIMEOUT * 1000,
      trustProxy
    },
    log: { level: environment.LOG_LEVEL },
    hasApiDocs: environment.API_DOCS === 'on',
    metricsPort: environment.METRICS_PORT ?? null,
    database,
    databaseReplica,
    databasePool: {
      max: Math.max(1, Math.floor(maxConnections / workers)),
      min: Math.floor(Math.min(environment.DB_MAX_IDLE_CONNS, maxConnections) / workers),
      maxLifetimeSeconds: environment.DB_CONN_MAX_LIFETIME,
      isPrepared: environment.DB_PREPARED_STATEMENTS === 'true'
    },
    redis,
    readCache: { maxBytes: environment.READ_CACHE_MB * 1_000_000 },
    adultContentGate: environment.ADULT_CONTENT_GATE,
    counterDurability: environment.COUNTER_DURABILITY,
    strictQuery: environment.STRICT_QUERY === 'on',
    jwt: {
      secret: hasSecret ? secret : randomBytes(48).toString('base64'),
      previousKeys,
      signingKey,
      issuer: environment.JWT_ISSUER,
      audience: environment.JWT_AUDIENCE,
      acceptsLegacy: environment.JWT_ACCEPT_LEGACY === 'true',
      expiresInSeconds: environment.JWT_EXPIRATION_HOURS * 3600
    },
    sessions: {
      lifetimeSeconds: environment.SESSION_LIFETIME_DAYS * 86_400,
      maxPerUser: environment.SESSIONS_PER_USER
    },
    passwords: {
      // Leaves one CPU to the event loops.
      threads: Math.max(1, Math.floor((availableParallelism() - 1) / workers)),
      cost: environment.PASSWORD_COST,
      pepper: pepper === '' ? noPepper : pepper,
      // Hashes that were made before there was a pepper.
      previousPeppers: pepper === '' ? previousPeppers : [...previousPeppers, noPepper],
      blocklist: environment.PASSWORD_BLOCKLIST,
      isRehashed: environment.PASSWORD_REHASH === 'on'
    },
    cors: { origins },
    rateLimit: {
      policies: {
        address: { per: 'address', rate: environment.RATE_LIMIT_RPS, burst: environment.RATE_LIMIT_BURST },
        register: { per: 'address', rate: environment.AUTH_RATE_LIMIT_RPS, burst: environment.AUTH_RATE_LIMIT_BURST },
        login: { per: 'address', rate: environment.AUTH_RATE_LIMIT_RPS, burst: environment.AUTH_RATE_LIMIT_BURST },
        password: { per: 'address', rate: environment.AUTH_RATE_LIMIT_RPS, burst: environment.AUTH_RATE_LIMIT_BURST },
        engagement: {
          per: 'user',
          rate: environment.ENGAGEMENT_RATE_LIMIT_RPS,
          burst: environment.ENGAGEMENT_RATE_LIMIT_BURST
        },
        publishing: {
          per: 'user',
          rate: environment.PUBLISHING_LIMIT_PER_HOUR / 3600,
          burst: environment.PUBLISHING_LIMIT_BURST
        },
        idempotency: {
          per: 'user',
          rate: environment.IDEMPOTENCY_KEYS_PER_HOUR / 3600,
          burst: environment.IDEMPOTENCY_KEYS_PER_HOUR
        }
      },
      hasLegacyHeaders: environment.RATE_LIMIT_LEGACY_HEADERS === 'true'
    },
    quotas: { liveVideos: environment.LIVE_VIDEOS_LIMIT, streamsPerAddress: environment.STREAMS_PER_ADDRESS },
    warnings: [
      ...hasSecret ? [] : ['JWT_SECRET_KEY is not set: tokens are signed with a key of this process and end with it'],
      ...isProduction ? protectionsOff(environment, database) : []
    ]
  })
}

/** Passwords of examples, including our own. */
const knownPasswords = new Set(['', 'halo', 'postgres', 'password', 'secret'])

/** Returns a warning for every protection that is off in production. */
function protectionsOff (environment: Environment, database: DatabaseConfig): string[] {
  const warnings: string[] = []
  if (!environment.PASSWORD_PEPPER) {
    warnings.push(
      'PASSWORD_PEPPER is not set: a copy of the database is enough to guess passwords; make one with: openssl rand -base64 48'
    )
  }
  const weakKeys = secrets('', environment.JWT_PREVIOUS_KEYS ?? '', []).filter(isWeakSecret)
  if (weakKeys.length > 0) {
    warnings.push(
      'JWT_PREVIOUS_KEYS has a secret of fewer than 32 bytes, which can be guessed: it verifies tokens of the Go service; take it out when those have expired'
    )
  }
  if (environment.PASSWORD_BLOCKLIST === 'off') {
    warnings.push(
      'PASSWORD_BLOCKLIST is off: users may take the passwords that attackers try first; set PASSWORD_BLOCKLIST=common when no client registers with such a password'
    )
  }
  if (environment.ADULT_CONTENT_GATE === 'client') {
    warnings.push('ADULT_CONTENT_GATE is client: everybody gets adult content, and every client must filter it')
  }
  if (environment.STRICT_QUERY === 'off') {
    warnings.push('STRICT_QUERY is off: a misspelled filter is ignored, and the list is not filtered')
  }
  if (environment.JWT_ACCEPT_LEGACY === 'true') {
    warnings.push(
      'JWT_ACCEPT_LEGACY is true: tokens of the Go service are accepted; set it to false a day after that service was switched off'
    )
  }
  if (environment.METRICS_PORT === undefined) warnings.push('METRICS_PORT is not set: /metrics is on the public port')
  const password = database.kind === 'embedded' ? undefined : passwordOf(database.connection)
  if (password !== undefined && knownPasswords.has(password)) {
    warnings.push('the password of PostgreSQL is missing or a well-known one')
  }
  return warnings
}

/** The default of a setting, for one that is 0, which the Go service took for "no limit". */
const defaultOf = (name: 'DB_MAX_OPEN_CONNS' | 'SERVER_READ_TIMEOUT' | 'SERVER_WRITE_TIMEOUT' | 'SERVER_IDLE_TIMEOUT') =>
  Environment.properties[name].default as number

/** The options of Fastify's own server that follow from the configuration. */
export function serverOptions (config: Config) {
  const { server } = config
  return {
    // Only listed proxies may report the client address; `true` would let any client choose it.
    trustProxy: server.trustProxy.length > 0 ? server.trustProxy : false,
    bodyLimit: 64 * 1024,
    // With the default of 0, slow headers and bodies keep a connection open for ever.
    requestTimeout: server.readTimeoutMs,
    connectionTimeout: server.writeTimeoutMs,
    keepAliveTimeout: server.idleTimeoutMs,
    http: {
      headersTimeout: server.readTimeoutMs,
      // plugins/http-rules.ts refuses a request without Host, with the headers and the log line of any other.
      requireHostHeader: false,
      connectionsCheckingInterval: 1000
    },
    // While draining, a request on an open connection is served and told `Connection: close`, not refused.
    return503OnClosing: false,
    forceCloseConnections: 'idle',
    // A long id is refused by the schema with a reason; the router would answer 404.
    // The Go service redirected a trailing slash; here both spellings are the same address.
    routerOptions: { maxParamLength: 16_384, ignoreTrailingSlash: true }
  } satisfies FastifyHttpOptions<Server>
}

function readEnvironment (settings: Variables, problems: string[]): Environment {
  const variables = withSecretFiles(settings, problems)
  const given: Record<string, unknown> = {}
  for (const [name, schema] of Object.entries(Environment.properties)) {
    const value = variables[name]?.trim()
    // An empty variable, as compose files and .env templates leave them, counts as not set.
    if (value === undefined || value === '') continue
    given[name] = schema.type === 'integer' && /^-?\d{1,15}$/.test(value) ? Number(value) : value
  }
  const candidate = Value.Default(Environment, given)
  const wrong = new Set<string>()
  for (const error of Value.Errors(Environment, candidate)) {
    const name = error.path.split('/')[1] ?? ''
    if (wrong.has(name)) continue
    wrong.add(name)
    const schema = Environment.properties[name as keyof typeof Environment.properties] as { mend?: string }
    problems.push(`${name} is ${JSON.stringify(variables[name])}: ${schema.mend ?? error.message}`)
    // Continue with the default, so that all wrong settings are reported at once.
    Reflect.deleteProperty(given, name)
  }
  return (wrong.size > 0 ? Value.Default(Environment, given) : candidate) as Environment
}

function readOrigins (environment: Environment, isProduction: boolean, problems: string[]): '*' | string[] {
  const given = list(environment.CORS_ALLOWED_ORIGINS ?? (isProduction ? '' : '*'))
  if (given.includes('*')) {
    if (isProduction) {
      problems.push(
        'CORS_ALLOWED_ORIGINS is "*", which lets every web page call the API: list the origins, such as https://app.example.com'
      )
    }
    return '*'
  }
  for (const origin of given) {
    // An origin with a trailing slash or a path never matches the Origin header of a browser.
    if (!URL.canParse(origin) || new URL(origin).origin !== origin) {
      problems.push(
        `CORS_ALLOWED_ORIGINS has ${
          JSON.stringify(origin)
        }: an origin is scheme, host and port alone, such as https://app.example.com`
      )
    }
  }
  return given
}

function readTrustProxy (value: string | undefined, problems: string[]): string[] {
  const ranges = list(value ?? '')
  for (const range of ranges) {
    if (!isCidr(range)) {
      problems.push(
        `TRUST_PROXY has ${
          JSON.stringify(range)
        }: list the proxies as addresses or CIDRs, such as 10.0.0.0/8; true or a count of hops would let clients choose their address`
      )
    }
  }
  return ranges
}

function readPublicUrl (value: string | undefined, problems: string[]): string {
  if (!value) return ''
  checkUrl('PUBLIC_URL', value, ['http:', 'https:'], problems)
  // Serialised, so that it may be used in a header: an internationalised host in ASCII.
  return URL.canParse(value) ? new URL(value).href.replace(/\/+$/, '') : ''
}

function checkUrl (name: string, value: string, protocols: string[], problems: string[]): void {
  // The value may contain a password: the message does not contain it.
  if (!URL.canParse(value) || !protocols.includes(new URL(value).protocol)) {
    problems.push(
      `${name} is not a URL that begins with ${
        protocols.map(protocol => `${protocol}//`).join(' or ')
      }: mend it, or leave it out`
    )
  }
}

function isCidr (range: string): boolean {
  const [address = '', prefix, ...rest] = range.split('/')
  const family = isIP(address)
  if (family === 0 || rest.length > 0) return false
  if (prefix === undefined) return true
  if (!/^\d{1,3}$/.test(prefix)) return false
  try {
    new BlockList().addSubnet(address, Number(prefix), family === 6 ? 'ipv6' : 'ipv4')
    return true
  } catch {
    return false
  }
}

/** Reads a list that is separated by commas or, for secrets that contain a comma, JSON. */
function secrets (name: string, value: string, problems: string[]): string[] {
  if (!value.trim().startsWith('[')) return list(value)
  try {
    const parsed = JSON.parse(value) as unknown
    if (Array.isArray(parsed) && parsed.every(one => typeof one === 'string' && one !== '')) return parsed as string[]
  } catch {}
  problems.push(
    `${name} begins with [ and is no JSON array of texts: write ["one","other"], or the values with commas between them`
  )
  return []
}

function list (value: string): string[] {
  return value.split(',').map(item => item.trim()).filter(item => item !== '')
}

function deepFreeze<T extends object> (value: T): Readonly<T> {
  for (const member of Object.values(value)) {
    if (typeof member === 'object' && member !== null) deepFreeze(member)
  }
  return Object.freeze(value)
}

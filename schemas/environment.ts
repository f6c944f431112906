import { Type, type Static } from '@sinclair/typebox'

/**
 * Every environment variable that the service reads. docs/CONFIGURATION.md is generated from this schema, and a test
 * compares `.env.example` with it.
 *
 * `mend` is the remedy for a wrong value; the error message of a failed start ends with it.
 */

const port = (description: string, value: number) =>
  Type.Integer({
    minimum: 0,
    maximum: 65_535,
    default: value,
    description,
    mend: 'use a port from 0 (any free one) to 65535'
  })

const seconds = (description: string, value: number) =>
  Type.Integer({ minimum: 1, maximum: 86_400, default: value, description, mend: 'use whole seconds from 1 to 86400' })

/** A setting of the Go service in which 0 means "no limit". */
const withZero = <Schema extends object>(schema: Schema): Schema => ({ ...schema, minimum: 0 })

const count = (description: string, value: number, minimum = 1, maximum = 10_000_000) =>
  Type.Integer({
    minimum,
    maximum,
    default: value,
    description,
    mend: `use a whole number from ${minimum} to ${maximum}`
  })

const text = (description: string, value?: string) =>
  Type.Optional(Type.String({ description, ...(value === undefined ? {} : { default: value }) }))

const logLevels = ['fatal', 'error', 'warn', 'info', 'debug', 'trace', 'silent'] as const

export const Environment = Type.Object({
  NODE_ENV: Type.Union([Type.Literal('development'), Type.Literal('production'), Type.Literal('test')], {
    default: 'development',
    description: '`production` requires real servers and real secrets',
    mend: 'use development, production or test'
  }),

  SERVER_HOST: Type.String({
    default: '0.0.0.0',
    description: 'Address to listen on',
    mend: 'use an address of this machine, such as 127.0.0.1'
  }),
  SERVER_PORT: port('Port to listen on', 8080),
  SERVER_READ_TIMEOUT: withZero(
    seconds('Seconds within which a request must be received completely; then 408; 0 for the default', 10)
  ),
  SERVER_WRITE_TIMEOUT: withZero(seconds(
    'Seconds without traffic, during a request, after which the connection is closed; and seconds within which a client must read its response; 0 for the default',
    10
  )),
  SERVER_IDLE_TIMEOUT: withZero(seconds(
    'Seconds after which an idle keep-alive connection is closed; must be longer than the idle time of the load balancer; 0 for the default',
    120
  )),
  SERVER_DRAIN_DELAY: Type.Integer({
    minimum: 0,
    maximum: 300,
    default: 0,
    description:
      'Seconds between SIGTERM (`/readyz` answers 503 from then on) and closing the port; 5 on Kubernetes',
    mend: 'use whole seconds from 0 to 300'
  }),
  SERVER_DRAIN_TIMEOUT: seconds('Seconds for requests in flight to finish after the port is closed', 15),
  WEB_CONCURRENCY: Type.Optional(
    Type.Integer({
      minimum: 1,
      maximum: 256,
      description:
        'Number of worker processes; as many as the container has CPUs when empty, and one without Redis',
      mend: 'use a whole number from 1 to 256'
    })
  ),
  TRUST_PROXY: text('Comma-separated CIDRs of proxies whose `X-Forwarded-For` is trusted; none when empty'),
  PUBLIC_URL: text(
    'Public URL of the service; prefix of links and of the `type` of errors, and the server of the API page'
  ),
  LOG_LEVEL: Type.Union(logLevels.map(level => Type.Literal(level)), {
    default: 'info',
    description: 'Minimum level of log lines (JSON, on standard output)',
    mend: `use one of ${logLevels.join(', ')}`
  }),

  DATABASE_URL: text('PostgreSQL as a URL; wins over the `DB_*` parts'),
  DATABASE_REPLICA_URL: text(
    'URL of a streaming replica for reads of videos and lists; the primary is read while the replica lags by half a second, or is unavailable'
  ),
  DB_HOST: text(
    'PostgreSQL host. With neither this nor `DATABASE_URL`, an embedded PostgreSQL is started (not in production)'
  ),
  DB_PORT: port('PostgreSQL port', 5432),
  DB_USER: text('PostgreSQL user', 'postgres'),
  DB_PASSWORD: text('PostgreSQL password'),
  DB_NAME: text('PostgreSQL database', 'halo'),
  DB_CA_FILE: text(
    'File with the certificates (PEM) that the one of PostgreSQL must be signed by; connections are encrypted and verified then'
  ),
  DB_MAX_OPEN_CONNS: count(
    'Maximum connections to PostgreSQL for requests, of all `WEB_CONCURRENCY` processes together; each process has up to 4 more for background work; 0 for the default',
    100,
    0,
    10_000
  ),
  DB_MAX_IDLE_CONNS: count(
    'Of these, connections that stay open while idle; further ones are closed after 10 s; never more than `DB_MAX_OPEN_CONNS`',
    10,
    0,
    10_000
  ),
  DB_CONN_MAX_LIFETIME: withZero(seconds('Seconds after which a connection is replaced; 0 for never', 3600)),
  DB_PREPARED_STATEMENTS: Type.Union([Type.Literal('true'), Type.Literal('false')], {
    default: 'true',
    description:
      '`false` behind PgBouncer: no prepared statements, no `statement_timeout` as a startup parameter (set it by `alter role … set statement_timeout`), and abandoned statements are not cancelled',
    mend: 'use true or false'
  }),
  DATA_DIR: text('Folder of the embedded PostgreSQL', '.data'),

  REDIS_URL: text('Redis as a URL; wins over the `REDIS_*` parts'),
  REDIS_HOST: text('Redis host. With neither this nor `REDIS_URL`, counters live in the process (not in production)'),
  REDIS_PORT: port('Redis port', 6379),
  REDIS_USERNAME: text('Redis user (ACL)'),
  REDIS_PASSWORD: text('Redis password'),
  REDIS_TLS: Type.Union([Type.Literal('true'), Type.Literal('false')], {
    default: 'false',
    description: '`true`: connections to Redis are encrypted and verified; a `rediss:` URL does the same',
    mend: 'use true or false'
  }),
  REDIS_CA_FILE: text('File with the certificates (PEM) that the one of Redis must be signed by; implies `REDIS_TLS`'),
  REDIS_SENTINELS: text('Comma-separated `host:port` of Redis Sentinels that know the master; instead of `REDIS_HOST`'),
  REDIS_SENTINEL_MASTER: Type.String({
    default: 'mymaster',
    description: 'Name of the master at the sentinels',
    mend: 'use the name in sentinel.conf'
  }),
  REDIS_SENTINEL_PASSWORD: text('Password of the sentinels themselves'),
  REDIS_DB: Type.Integer({
    minimum: 0,
    maximum: 65_535,
    default: 0,
    description: 'Redis database number',
    mend: 'use a whole number from 0'
  }),
  REDIS_CLUSTER: Type.Union([Type.Literal('true'), Type.Literal('false')], {
    default: 'false',
    description: '`true` when the Redis is a node of a Redis Cluster; the other nodes are discovered',
    mend: 'use true or false'
  }),
  REDIS_POOL_SIZE: count(
    'Accepted for compatibility with the Go service; no effect: one connection multiplexes all commands',
    100,
    0
  ),
  REDIS_MIN_IDLE_CONNS: count(
    'Accepted for compatibility with the Go service; no effect: the one connection is always open',
    10,
    0
  ),

  API_DOCS: Type.Union([Type.Literal('on'), Type.Literal('off')], {
    default: 'on',
    description: 'Whether `/docs` and `/openapi.json` are served',
    mend: 'use on or off'
  }),
  METRICS_PORT: Type.Optional(
    Type.Integer({
      minimum: 0,
      maximum: 65_535,
      description:
        'Port of `/metrics`, so that it is not exposed with the API; `SERVER_PORT` when empty',
      mend: 'use a port from 0 (any free one) to 65535, other than SERVER_PORT'
    })
  ),

  READ_CACHE_MB: count(
    'Size of the response cache of each process, in megabytes',
    32,
    1,
    4096
  ),

  JWT_SECRET_KEY: Type.Optional(Type.String({
    description:
      'Secret that signs tokens, 32 bytes or more. Outside production one is made if none is set, and kept in `DATA_DIR`',
    mend: 'make one with: openssl rand -base64 48'
  })),
  JWT_EXPIRATION_HOURS: Type.Integer({
    minimum: 1,
    maximum: 8760,
    default: 24,
    description: 'Lifetime of an access token in hours',
    mend: 'use whole hours from 1 to 8760'
  }),
  JWT_PREVIOUS_KEYS: text(
    'Earlier values of `JWT_SECRET_KEY` and, with the prefix `ed25519:`, of `JWT_SIGNING_KEY`, separated by commas or as a JSON array. Tokens that they signed are accepted until they expire'
  ),
  JWT_SIGNING_KEY: text(
    'Ed25519 private key (DER, base64) that signs tokens (EdDSA); other services verify them with `/.well-known/jwks.json`. HS256 with `JWT_SECRET_KEY` when empty'
  ),
  JWT_ISSUER: Type.String({ default: 'halo', description: '`iss` of the tokens', mend: 'use a name or an address' }),
  JWT_AUDIENCE: Type.String({
    default: 'halo-api',
    description: '`aud` of the tokens',
    mend: 'use a name or an address'
  }),
  JWT_ACCEPT_LEGACY: Type.Union([Type.Literal('true'), Type.Literal('false')], {
    default: 'true',
    description:
      'Whether tokens of the Go service are accepted until they expire; set `false` a day after it was switched off',
    mend: 'use true or false'
  }),
  SESSION_LIFETIME_DAYS: Type.Integer({
    minimum: 1,
    maximum: 365,
    default: 30,
    description: 'Lifetime of a session in days, however often its tokens are refreshed',
    mend: 'use whole days from 1 to 365'
  }),
  SESSIONS_PER_USER: count('Maximum sessions of a user; a further login ends the one that was used longest ago', 100, 1, 10_000),
  PASSWORD_PEPPER: Type.Optional(Type.String({
    description:
      'Secret of password hashes, 32 bytes or more. Store it apart from backups of the database, and keep a copy: without it no user can log in. Without one hashes have no secret',
    mend: 'make one with: openssl rand -base64 48'
  })),
  PASSWORD_PREVIOUS_PEPPERS: text(
    'Earlier values of `PASSWORD_PEPPER`, in the same form; their hashes still work, and are replaced at login'
  ),
  PASSWORD_BLOCKLIST: Type.Union([Type.Literal('off'), Type.Literal('common')], {
    default: 'off',
    description:
      '`common` refuses new passwords that are among the 49,000 most common ones, or equal the username or the email',
    mend: 'use off or common'
  }),
  PASSWORD_REHASH: Type.Union([Type.Literal('on'), Type.Literal('off')], {
    default: 'on',
    description:
      'Whether a login replaces an outdated hash; `off` while the Go service uses the same database, or a way back to it is wanted: it cannot read the hashes of this service',
    mend: 'use on or off'
  }),
  PASSWORD_COST: Type.Integer({
    minimum: 4,
    maximum: 16,
    default: 10,
    description: 'bcrypt cost of new password hashes; each step doubles the work',
    mend: 'use a whole number from 4 to 16, and 10 or more in production'
  }),

  COUNTER_DURABILITY: Type.Union([Type.Literal('buffered'), Type.Literal('flushed')], {
    default: 'buffered',
    description:
      '`buffered`: likes and comments are acknowledged when Redis has them, and up to a second of them is lost with Redis; `flushed`: when PostgreSQL has committed them, tens of milliseconds later, and nothing acknowledged is lost',
    mend: 'use buffered or flushed'
  }),
  ADULT_CONTENT_GATE: Type.Union([Type.Literal('server'), Type.Literal('client')], {
    default: 'server',
    description:
      '`server`: adult content is visible to adults in adult mode and to its owner; `client`: visible to everybody, flagged by `is_adult_content`, for clients that filter by themselves, as with the Go service',
    mend: 'use server or client'
  }),
  STRICT_QUERY: Type.Union([Type.Literal('on'), Type.Literal('off')], {
    default: 'on',
    description:
      'Whether unknown query members are refused (400); `off` ignores them, as the Go service did, for the time of the migration',
    mend: 'use on or off'
  }),

  CORS_ALLOWED_ORIGINS: text(
    'Comma-separated origins whose pages may call the API; `*` for every one (not in production)'
  ),

  RATE_LIMIT_RPS: count('Sustained requests a second of one client address', 1000),
  RATE_LIMIT_BURST: count('Burst of one client address', 2000),
  RATE_LIMIT_LEGACY_HEADERS: Type.Union([Type.Literal('true'), Type.Literal('false')], {
    default: 'true',
    description: 'Whether responses have `X-RateLimit-*` in addition to `RateLimit` and `RateLimit-Policy`',
    mend: 'use true or false'
  }),
  AUTH_RATE_LIMIT_RPS: count(
    'Sustained requests a second of one address for login, for registration, and for routes that ask for the password (a bucket each)',
    5
  ),
  AUTH_RATE_LIMIT_BURST: count('Burst of these', 20),
  ENGAGEMENT_RATE_LIMIT_RPS: count(
    'Sustained likes, comments and heartbeats a second of one user',
    200
  ),
  ENGAGEMENT_RATE_LIMIT_BURST: count('Burst of these', 1000),
  PUBLISHING_LIMIT_PER_HOUR: count('Sustained videos an hour that one user may publish', 60),
  PUBLISHING_LIMIT_BURST: count('Burst of these', 30),
  LIVE_VIDEOS_LIMIT: count('Maximum videos of one user that are live at the same time', 3, 1, 10_000),
  IDEMPOTENCY_KEYS_PER_HOUR: count(
    'Comments with an `Idempotency-Key` of one user an hour; each takes memory in Redis for a day',
    2000
  ),
  STREAMS_PER_ADDRESS: count(
    'Maximum open event streams of one client address on each process; many people can share an address',
    500
  )
})

export type Environment = Static<typeof Environment>

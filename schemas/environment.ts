import { Type, type Static } from '@sinclair/typebox'

/**
 * Every environment variable that the service reads, in the order of the README's table. A test compares the README and
 * `.env.example` with this schema.
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
    description: '`production` refuses to boot without real servers and a real secret',
    mend: 'use development, production or test'
  }),

  SERVER_HOST: Type.String({
    default: '0.0.0.0',
    description: 'Address to listen on',
    mend: 'use an address of this machine, such as 127.0.0.1'
  }),
  SERVER_PORT: port('Port to listen on', 8080),
  SERVER_READ_TIMEOUT: seconds('Seconds in which a whole request, headers and body, must have arrived; then 408', 10),
  SERVER_WRITE_TIMEOUT: seconds(
    'Seconds without a byte moved, while a request is under way, after which its connection is cut; and seconds in which a client must take what it is answered',
    10
  ),
  SERVER_IDLE_TIMEOUT: seconds(
    'Seconds that an idle keep-alive connection is kept; must outlive the balancer’s own idle time',
    120
  ),
  SERVER_DRAIN_DELAY: Type.Integer({
    minimum: 0,
    maximum: 300,
    default: 0,
    description:
      'Seconds between SIGTERM (from then on `/readyz` answers 503) and the moment when the port is closed; on Kubernetes 5',
    mend: 'use whole seconds from 0 to 300'
  }),
  SERVER_DRAIN_TIMEOUT: seconds('Seconds that requests in flight have to finish after the port is closed', 15),
  WEB_CONCURRENCY: Type.Optional(
    Type.Integer({
      minimum: 1,
      maximum: 256,
      description:
        'Processes that serve, behind one port; as many as the container has CPUs when empty, and one without Redis',
      mend: 'use a whole number from 1 to 256'
    })
  ),
  TRUST_PROXY: text('Comma-separated CIDRs of the proxies whose `X-Forwarded-For` is believed; none when empty'),
  PUBLIC_URL: text(
    'Address at which clients reach the service; prefixes the `type` of errors and stands in the API page'
  ),
  LOG_LEVEL: Type.Union(logLevels.map(level => Type.Literal(level)), {
    default: 'info',
    description: 'Least severe level that is logged, as JSON lines on standard output',
    mend: `use one of ${logLevels.join(', ')}`
  }),

  DATABASE_URL: text('PostgreSQL as a URL; wins over the `DB_*` parts'),
  DATABASE_REPLICA_URL: text(
    'A streaming replica, as a URL, for reads of videos and lists; the primary is read while it lags by half a second, or is unavailable'
  ),
  DB_HOST: text(
    'PostgreSQL host. With neither this nor `DATABASE_URL`, an embedded PostgreSQL is started (not in production)'
  ),
  DB_PORT: port('PostgreSQL port', 5432),
  DB_USER: text('PostgreSQL user', 'postgres'),
  DB_PASSWORD: text('PostgreSQL password'),
  DB_NAME: text('PostgreSQL database', 'halo'),
  DB_MAX_OPEN_CONNS: count(
    'Most connections to PostgreSQL for requests, of all `WEB_CONCURRENCY` processes together; each has up to 4 more for what no request waits for',
    100,
    1,
    10_000
  ),
  DB_MAX_IDLE_CONNS: count(
    'Of these, connections that stay open while idle; one beyond these is closed after 10 s without work',
    10,
    0,
    10_000
  ),
  DB_CONN_MAX_LIFETIME: seconds('Seconds after which a connection is replaced', 3600),
  DB_PREPARED_STATEMENTS: Type.Union([Type.Literal('true'), Type.Literal('false')], {
    default: 'true',
    description:
      '`false` behind PgBouncer: no named statements, no `statement_timeout` as a startup parameter (set it by `alter role … set statement_timeout`), and statements that nobody waits for are not stopped',
    mend: 'use true or false'
  }),
  DATA_DIR: text('Folder of the embedded PostgreSQL', '.data'),

  REDIS_URL: text('Redis as a URL; wins over the `REDIS_*` parts'),
  REDIS_HOST: text('Redis host. With neither this nor `REDIS_URL`, counters live in the process (not in production)'),
  REDIS_PORT: port('Redis port', 6379),
  REDIS_PASSWORD: text('Redis password'),
  REDIS_DB: Type.Integer({
    minimum: 0,
    maximum: 65_535,
    default: 0,
    description: 'Redis database number',
    mend: 'use a whole number from 0'
  }),
  REDIS_CLUSTER: Type.Union([Type.Literal('true'), Type.Literal('false')], {
    default: 'false',
    description: '`true` when the named Redis is a node of a Redis Cluster; the others are found through it',
    mend: 'use true or false'
  }),
  REDIS_POOL_SIZE: count(
    'Accepted for the Go service’s sake, without effect: one connection multiplexes all commands',
    100
  ),
  REDIS_MIN_IDLE_CONNS: count(
    'Accepted for the Go service’s sake, without effect: the one connection is always open',
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
        'Port that serves `/metrics` instead of `SERVER_PORT`, so that nothing passes it on to the outside; on `SERVER_PORT` when empty',
      mend: 'use a port from 0 (any free one) to 65535, other than SERVER_PORT'
    })
  ),

  READ_CACHE_MB: count(
    'Megabytes of answers that each process keeps, for a second, for many who ask the same',
    32,
    1,
    4096
  ),

  JWT_SECRET_KEY: Type.Optional(Type.String({
    description:
      'Secret that signs tokens, 32 bytes or more. Outside production one is made at each start when none is given, and tokens end with the process',
    mend: 'make one with: openssl rand -base64 48'
  })),
  JWT_EXPIRATION_HOURS: Type.Integer({
    minimum: 1,
    maximum: 8760,
    default: 24,
    description: 'Hours that a token is valid',
    mend: 'use whole hours from 1 to 8760'
  }),
  JWT_PREVIOUS_KEYS: text(
    'Keys that signed tokens before, with commas between them or as a JSON array: earlier values of `JWT_SECRET_KEY` and, behind `ed25519:`, of `JWT_SIGNING_KEY`. What they signed is taken until it expires'
  ),
  JWT_SIGNING_KEY: text(
    'Ed25519 private key in base64 of its DER form: tokens are signed with it (EdDSA), and other services verify them by `/.well-known/jwks.json`. HS256 with `JWT_SECRET_KEY` when empty'
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
      'Whether tokens that the Go service signed are taken until they expire; `false` a day after it was switched off',
    mend: 'use true or false'
  }),
  SESSION_LIFETIME_DAYS: Type.Integer({
    minimum: 1,
    maximum: 365,
    default: 30,
    description: 'Days after which a session ends and its user logs in again, however often its tokens were refreshed',
    mend: 'use whole days from 1 to 365'
  }),
  PASSWORD_PEPPER: Type.Optional(Type.String({
    description:
      'Secret that passwords are hashed with, 32 bytes or more, kept where the database’s backups are not. Without it nobody can log in: keep a copy. Must be set in production',
    mend: 'make one with: openssl rand -base64 48'
  })),
  PASSWORD_PREVIOUS_PEPPERS: text(
    'Earlier values of `PASSWORD_PEPPER`, in the same form; hashes made with them still log in, and are made anew on the way'
  ),
  PASSWORD_BLOCKLIST: Type.Union([Type.Literal('off'), Type.Literal('common')], {
    default: 'off',
    description:
      '`common` refuses new passwords that are among the 49,000 most common ones, or are the username or the email',
    mend: 'use off or common'
  }),
  PASSWORD_COST: Type.Integer({
    minimum: 4,
    maximum: 16,
    default: 10,
    description: 'bcrypt cost of new password hashes; each step doubles the work',
    mend: 'use a whole number from 4 to 16, and 10 or more in production'
  }),

  ADULT_CONTENT_GATE: Type.Union([Type.Literal('server'), Type.Literal('client')], {
    default: 'server',
    description:
      '`server`: adult content is for adults with adult mode on, and for its owner; `client`: everybody gets it, marked by `is_adult_content`, as the Go service did, for clients that filter by themselves',
    mend: 'use server or client'
  }),
  STRICT_QUERY: Type.Union([Type.Literal('on'), Type.Literal('off')], {
    default: 'on',
    description:
      'Whether a query member that a route does not know is refused (400); `off` ignores it, as the Go service did, for the time of the change',
    mend: 'use on or off'
  }),

  CORS_ALLOWED_ORIGINS: text(
    'Comma-separated origins whose pages may call the API; `*` for every one (not in production)'
  ),

  RATE_LIMIT_RPS: count('Requests a second that one client address may make for ever', 1000),
  RATE_LIMIT_BURST: count('Requests that one client address may make at once after a pause', 2000),
  RATE_LIMIT_LEGACY_HEADERS: Type.Union([Type.Literal('true'), Type.Literal('false')], {
    default: 'true',
    description: 'Whether answers have `X-RateLimit-*` beside `RateLimit` and `RateLimit-Policy`',
    mend: 'use true or false'
  }),
  AUTH_RATE_LIMIT_RPS: count(
    'The same a second for login, register and what asks for the password once more, which have a bucket of their own each',
    5
  ),
  AUTH_RATE_LIMIT_BURST: count('The same at once for these', 20),
  ENGAGEMENT_RATE_LIMIT_RPS: count(
    'Likes, comments and heartbeats a second that one user may send for ever, from whatever address',
    200
  ),
  ENGAGEMENT_RATE_LIMIT_BURST: count('The same at once after a pause', 1000),
  PUBLISHING_LIMIT_PER_HOUR: count('Videos that one user may publish an hour', 60),
  PUBLISHING_LIMIT_BURST: count('The same at once after a pause', 30),
  LIVE_VIDEOS_LIMIT: count('Videos of one user that may be live at the same time', 3, 1, 10_000),
  IDEMPOTENCY_KEYS_PER_HOUR: count(
    'Comments with an `Idempotency-Key` that one user may send an hour; each takes memory of Redis for a day',
    2000
  ),
  STREAMS_PER_ADDRESS: count(
    'Event streams that one client address may hold open at each process; an address can be that of many people',
    500
  )
})

export type Environment = Static<typeof Environment>

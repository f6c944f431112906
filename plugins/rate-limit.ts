import rateLimit, { type FastifyRateLimitOptions, type FastifyRateLimitStore } from '@fastify/rate-limit'
import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify'
import fp from 'fastify-plugin'
import { clientKey } from '../services/client-address.ts'
import { ApiError } from '../services/errors.ts'
import { createLeaseClient } from '../services/limiter/lease-client.ts'
import { createSharedBuckets } from '../services/limiter/shared-buckets.ts'
import { createTokenBuckets, type TokenBuckets } from '../services/limiter/token-buckets.ts'

declare module 'fastify' {
  interface FastifyInstance {
    /** The limit of client addresses. */
    addressLimit: AddressLimit
    /** Takes a token for a request; the error to answer with if there was none. */
    rateLimitRefusal (request: FastifyRequest, reply: FastifyReply): ApiError | undefined
    /** The limit of one route that hashes passwords: `config: { rateLimit: app.passwordRateLimit() }`. */
    passwordRateLimit (): object
  }
}

export interface AddressLimit {
  /** Takes a token from the bucket of a client address: the tokens left or, below zero, the milliseconds until there is one. */
  take (address: string): number
  /** What an answer says of the limit, as names and values in turn; `left` is what take() gave. */
  headers (left: number): string[]
}

/**
 * A token bucket for each client address, which all processes share where there is a Redis (services/limiter), before
 * anything else is done for a request and for addresses that do not exist as well. It is asked in a synchronous hook of
 * our own: through the handler of @fastify/rate-limit the same question takes ten times as long (bench/reads.ts). Routes
 * with a limit of their own use the plugin, with the same kind of bucket as its store.
 */
export default fp(async function haloRateLimit (app) {
  const { rps, burst, hasLegacyHeaders, authRps, authBurst } = app.config.rateLimit
  const headers = createLimitHeaders({ rps, burst, hasLegacyHeaders })
  app.decorate('addressLimit', { take: createTake(app), headers })
  app.decorate('rateLimitRefusal', (request, reply) => {
    const left = app.addressLimit.take(request.ip)
    const fields = headers(left)
    for (let index = 0; index < fields.length; index += 2) reply.header(fields[index]!, fields[index + 1])
    return left >= 0 ? undefined : exceeded(-left, `${rps} requests a second with a burst of ${burst}`)
  })
  app.addHook('onRequest', (request, reply, done) => {
    done(app.rateLimitRefusal(request, reply))
  })

  const silent = { 'x-ratelimit-limit': false, 'x-ratelimit-remaining': false, 'x-ratelimit-reset': false, 'retry-after': false }
  await app.register(rateLimit, {
    global: false,
    store: BucketStore,
    keyGenerator: (request: FastifyRequest) => clientKey(request.ip),
    errorResponseBuilder: (request, { ttl, max }) => exceeded(ttl, `${authRps} requests a second with a burst of ${max}`),
    // Its headers would say something else than those of the address beside them.
    addHeaders: silent,
    addHeadersOnExceeding: silent
  })

  // Each route that takes it gets buckets of its own: `child` of the store is called once a route.
  app.decorate('passwordRateLimit', () => ({ max: authBurst, timeWindow: Math.ceil(authBurst / authRps * 1000), rate: authRps }))
}, { name: 'halo:rate-limit', dependencies: ['halo:config', 'halo:errors', 'halo:redis'] })

function createTake ({ config, redisClient }: FastifyInstance): AddressLimit['take'] {
  const { rps: rate, burst } = config.rateLimit
  if (redisClient) {
    const buckets = createSharedBuckets({ rate, burst, lease: createLeaseClient({ redis: redisClient, policy, rate, burst }) })
    return address => buckets.take(clientKey(address))
  }
  const buckets = createTokenBuckets({ rate, burst })
  return address => {
    const [client, now] = [clientKey(address), performance.now()]
    const waitMs = buckets.take(client, now)
    return waitMs > 0 ? -waitMs : buckets.remaining(client, now)
  }
}

/** The name of the limit, as the fields below give it. */
const policy = 'address'

/** Answers for so many tokens left are written down once each. */
const maxWritten = 10_000

/**
 * RateLimit-Policy and RateLimit (draft-ietf-httpapi-ratelimit-headers): a quota of a whole bucket in the time in which
 * it fills; and X-RateLimit-*, which came before them.
 */
function createLimitHeaders ({ rps, burst, hasLegacyHeaders }: { rps: number, burst: number, hasLegacyHeaders: boolean }): AddressLimit['headers'] {
  const quota = `"${policy}";q=${burst};w=${Math.ceil(burst / rps)}`
  const written: string[][] = []
  function write (left: number): string[] {
    const reset = String(Math.ceil((burst - left) / rps))
    return ['ratelimit-policy', quota, 'ratelimit', `"${policy}";r=${left};t=${reset}`,
      ...hasLegacyHeaders ? ['x-ratelimit-limit', String(burst), 'x-ratelimit-remaining', String(left), 'x-ratelimit-reset', reset] : []]
  }
  return left => {
    const whole = Math.max(0, Math.floor(left))
    if (whole > maxWritten) return write(whole)
    return (written[whole] ??= write(whole))
  }
}

function exceeded (waitMs: number, policy: string): ApiError {
  const seconds = Math.max(1, Math.ceil(waitMs / 1000))
  return new ApiError('rate_limit_exceeded', {
    message: `This address may make ${policy}; try again in ${seconds} s`,
    retryAfter: seconds
  })
}

/** The options of a route's `rateLimit`, with the tokens a second that flow into its buckets. */
type BucketOptions = FastifyRateLimitOptions & { max?: unknown, rate?: number }

/** @fastify/rate-limit counts up to a maximum in a window; this lets it count tokens taken from a bucket. */
class BucketStore implements FastifyRateLimitStore {
  readonly #buckets: TokenBuckets
  readonly #burst: number

  constructor (options: BucketOptions) {
    this.#burst = typeof options.max === 'number' ? options.max : 1
    this.#buckets = createTokenBuckets({ rate: options.rate ?? 1, burst: this.#burst })
  }

  incr (client: string, done: (error: Error | null, result?: { current: number, ttl: number }) => void): void {
    const now = performance.now()
    const waitMs = this.#buckets.take(client, now)
    const current = waitMs > 0 ? this.#burst + 1 : this.#burst - this.#buckets.remaining(client, now)
    done(null, { current, ttl: waitMs })
  }

  child (options: object): FastifyRateLimitStore {
    return new BucketStore(options)
  }
}

import rateLimit, { type FastifyRateLimitOptions, type FastifyRateLimitStore } from '@fastify/rate-limit'
import type { FastifyRequest } from 'fastify'
import fp from 'fastify-plugin'
import { clientKey } from '../services/client-address.ts'
import { ApiError } from '../services/errors.ts'
import { createTokenBuckets, type TokenBuckets } from '../services/token-buckets.ts'

declare module 'fastify' {
  interface FastifyInstance {
    /** Takes a token from the bucket of a client address; the milliseconds until there is one, 0 when there was. */
    takeToken (address: string): number
    /** Takes a token for a request; the error to answer with if there was none. */
    rateLimitRefusal (request: FastifyRequest): ApiError | undefined
    /** The limit of one route that hashes passwords: `config: { rateLimit: app.passwordRateLimit() }`. */
    passwordRateLimit (): object
  }
}

/**
 * A token bucket for each client address, before anything else is done for a request and for addresses
 * that do not exist as well. The global bucket is asked in a synchronous hook of our own: through the
 * handler of @fastify/rate-limit the same question takes ten times as long (bench/reads.ts). Routes with a
 * limit of their own use the plugin, with the same kind of bucket as its store.
 */
export default fp(async function haloRateLimit (app) {
  const { rps, burst, authRps, authBurst } = app.config.rateLimit
  const buckets = createTokenBuckets({ rate: rps, burst })

  app.decorate('takeToken', address => buckets.take(clientKey(address), performance.now()))
  app.decorate('rateLimitRefusal', request => {
    const waitMs = app.takeToken(request.ip)
    return waitMs === 0 ? undefined : exceeded(waitMs, `${rps} requests a second with a burst of ${burst}`)
  })
  app.addHook('onRequest', (request, reply, done) => {
    done(app.rateLimitRefusal(request))
  })

  await app.register(rateLimit, {
    global: false,
    store: BucketStore,
    keyGenerator: (request: FastifyRequest) => clientKey(request.ip),
    errorResponseBuilder: (request, { ttl, max }) => exceeded(ttl, `${authRps} requests a second with a burst of ${max}`)
  })

  // Each route that takes it gets buckets of its own: `child` of the store is called once a route.
  app.decorate('passwordRateLimit', () => ({ max: authBurst, timeWindow: Math.ceil(authBurst / authRps * 1000), rate: authRps }))
}, { name: 'halo:rate-limit', dependencies: ['halo:config', 'halo:errors'] })

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

import rateLimit, {
  type CreateRateLimitOptions,
  type FastifyRateLimitOptions,
  type FastifyRateLimitStore
} from '@fastify/rate-limit'
import type { FastifyRequest, onRequestAsyncHookHandler, onRequestHookHandler } from 'fastify'
import fp from 'fastify-plugin'
import { clientKey } from '../services/http/client-key.ts'
import type { ApiError } from '../services/shared/errors.ts'
import { createLimitFields, type LimitFields, type Taken } from '../services/traffic/limiter/limit-fields.ts'
import { createLimit, type Limit } from '../services/traffic/limiter/limit.ts'
import { policyNames, type PolicyName } from '../services/traffic/limiter/policies.ts'

declare module 'fastify' {
  interface FastifyInstance {
    /** The policies of the configuration, with their buckets. */
    limits: Record<PolicyName, Limit>
    /** The header fields that tell clients of their limits. */
    limitFields: LimitFields
    /** Takes a token of a request's address. @returns the error to answer with if there was none */
    takeAddressToken (request: FastifyRequest): ApiError | undefined
    /** A hook for routes that have a policy of their own beside that of the address. */
    limited (name: PolicyName, options?: LimitedOptions): onRequestAsyncHookHandler
    /**
     * A hook for routes that take more than the one token of the client's address that every request takes. A hot read,
     * which costs one, takes about 0.05 ms of CPU. A function is called with the validated request (preHandler).
     */
    costing (cost: number | ((request: FastifyRequest) => number)): onRequestHookHandler
  }
  interface FastifyRequest {
    /** The token of its client address; undefined before the rate limiter has run. */
    addressToken: Taken | undefined
    /** The token of a policy of the route, if there is one. */
    routeToken: Taken | undefined
  }
  interface FastifyContextConfig {
    /**
     * A probe of Kubernetes or a load balancer. Probes are never limited or shed: a limiter must not be able to kill
     * a pod. They cost no store call each, because their answer is kept for a moment (health-checks.ts).
     */
    isProbe?: boolean
  }
}

interface LimitedOptions {
  /**
   * Whether the RateLimit fields speak of this policy only when it refuses; another one of the route is the narrower.
   */
  isSilent?: boolean
}

/**
 * Every request takes a token of its client address (services/limiter), before anything else is done for it, and for
 * addresses that do not exist as well. A synchronous hook of our own takes it: the handler of @fastify/rate-limit
 * takes ten times as long for the same. Routes with a policy of their own use the package, with our buckets as its
 * store.
 */
export default fp(async function haloRateLimit (app) {
  const { policies, hasLegacyHeaders } = app.config.rateLimit
  const limits = Object.fromEntries(
    policyNames.map(name => [name, createLimit(name, policies[name], app.redisClient)])
  ) as Record<PolicyName, Limit>
  app.decorate('limits', limits)
  app.decorate('limitFields', createLimitFields({ hasLegacyHeaders }))
  app.decorateRequest('addressToken', undefined)
  app.decorateRequest('routeToken', undefined)

  function takeAddressToken (request: FastifyRequest, cost?: number): ApiError | undefined {
    const left = limits.address.take(clientKey(request.clientAddress), cost)
    request.addressToken = { limit: limits.address, left }
    return left >= 0 ? undefined : limits.address.refusal(-left)
  }
  app.decorate('takeAddressToken', request => takeAddressToken(request))
  app.addHook('onRequest', (request, reply, done) => {
    const refusal = takeAddressToken(request)
    done(refusal && !request.routeOptions.config.isProbe ? refusal : undefined)
  })

  app.decorate('costing', cost => (request, reply, done) => {
    const tokens = (typeof cost === 'number' ? cost : cost(request)) - 1
    done(tokens > 0 ? takeAddressToken(request, tokens) : undefined)
  })

  await app.register(rateLimit, { global: false, store: BucketStore })

  app.decorate('limited', (name, { isSilent = false } = {}) => {
    const limit = limits[name]
    const { per, burst } = limit.policy
    const keyGenerator = per === 'user' ? keyOfUser : keyOfAddress
    const check = app.createRateLimit({ max: burst, keyGenerator, limit } as CreateRateLimitOptions)
    return async request => {
      const result = await check(request)
      if (result.isAllowed) return
      if (!isSilent || result.isExceeded) request.routeToken = { limit, left: result.remaining }
      if (result.isExceeded) throw limit.refusal(result.ttl)
    }
  })
}, { name: 'halo:rate-limit', dependencies: ['halo:config', 'halo:errors', 'halo:redis', 'halo:request-context'] })

const keyOfAddress = (request: FastifyRequest): string => clientKey(request.clientAddress)

const keyOfUser = (request: FastifyRequest): string => String(request.user.user_id)

/** The options of a route's limit, with what it takes its tokens from. */
type BucketOptions = CreateRateLimitOptions & FastifyRateLimitOptions & { limit?: Limit }

/** @fastify/rate-limit counts up to a maximum in a window; this lets it count tokens taken from a bucket. */
class BucketStore implements FastifyRateLimitStore {
  readonly #limit: Limit | undefined

  constructor ({ limit }: BucketOptions) {
    this.#limit = limit
  }

  incr (client: string, done: (error: Error | null, result?: { current: number, ttl: number }) => void): void {
    const { take, policy: { burst } } = this.#limit!
    const left = take(client)
    done(null, left < 0 ? { current: burst + 1, ttl: -left } : { current: burst - Math.floor(left), ttl: 0 })
  }

  child (options: object): FastifyRateLimitStore {
    return new BucketStore(options)
  }
}

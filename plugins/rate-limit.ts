import rateLimit, { type CreateRateLimitOptions, type FastifyRateLimitOptions, type FastifyRateLimitStore } from '@fastify/rate-limit'
import type { IncomingMessage } from 'node:http'
import type { FastifyReply, FastifyRequest, onRequestAsyncHookHandler, onRequestHookHandler } from 'fastify'
import fp from 'fastify-plugin'
import { arrivalOf } from '../services/arrival.ts'
import { clientKey, createAddresses } from '../services/client-address.ts'
import type { ApiError } from '../services/errors.ts'
import { createLimitFields, type LimitFields, type Taken } from '../services/limiter/limit-fields.ts'
import { createLimit, type Limit } from '../services/limiter/limit.ts'
import { isProbe } from '../services/probes.ts'
import { policyNames, type PolicyName } from '../services/limiter/policies.ts'

declare module 'fastify' {
  interface FastifyInstance {
    /** The policies of the configuration, at work. */
    limits: Record<PolicyName, Limit>
    /** What answers say of them. */
    limitFields: LimitFields
    /** Takes a token of a request's address; the error to answer with if there was none. */
    rateLimitRefusal (request: FastifyRequest, reply: FastifyReply): ApiError | undefined
    /** A hook for routes that have a policy of their own beside that of the address. */
    limited (name: PolicyName, options?: LimitedOptions): onRequestAsyncHookHandler
    /**
     * A hook for routes that take more than the one token of the client's address that every request takes. A hot read,
     * which costs one, takes about 0.05 ms of CPU. A function is asked when the request was validated (preHandler).
     */
    costing (cost: number | ((request: FastifyRequest) => number)): onRequestHookHandler
    /** Address of the client of a request, as `request.clientAddress`, where there is no request of Fastify yet. */
    clientAddressOf (request: IncomingMessage): string
  }
  interface FastifyRequest {
    /** The token of its address. */
    addressToken: Taken | undefined
    /**
     * Address of the client: the peer's, or what the proxies of TRUST_PROXY say. Limits, lockouts and logs use it; Fastify's
     * own `ip` takes an address with a port for another client.
     */
    readonly clientAddress: string
  }
}

interface LimitedOptions {
  /** Whether the RateLimit fields speak of this policy only when it refuses; another one of the route is the narrower. */
  isSilent?: boolean
}

/**
 * Every request takes a token of its client address (services/limiter), before anything else is done for it and for
 * addresses that do not exist as well. That is asked in a synchronous hook of our own: through the handler of
 * @fastify/rate-limit the same question takes ten times as long. Routes with a policy of their own
 * use the plugin, with the same buckets as its store.
 */
export default fp(async function haloRateLimit (app) {
  const { policies, hasLegacyHeaders } = app.config.rateLimit
  const limits = Object.fromEntries(policyNames.map(name => [name, createLimit(name, policies[name], app.redisClient)])) as Record<PolicyName, Limit>
  const fields = createLimitFields({ hasLegacyHeaders })
  app.decorate('limits', limits)
  app.decorate('limitFields', fields)
  app.decorateRequest('addressToken', undefined)
  const addressOf = createAddresses(app.config.server.trustProxy)
  app.decorate('clientAddressOf', request => arrivalOf(request)?.ip ?? addressOf(request))
  app.decorateRequest('clientAddress', { getter () { return this.server.clientAddressOf(this.raw) } })

  app.decorate('rateLimitRefusal', (request, reply) => {
    // Taken before, by whatever came through the port (plugins/hot-path.ts).
    const taken = arrivalOf(request.raw)?.addressToken ?? { limit: limits.address, left: limits.address.take(clientKey(app.clientAddressOf(request.raw))) }
    const { left } = request.addressToken = taken
    setFields(reply, fields.one(taken))
    return left >= 0 || isProbe(request.raw) ? undefined : limits.address.refusal(-left)
  })
  app.addHook('onRequest', (request, reply, done) => {
    done(app.rateLimitRefusal(request, reply))
  })

  /** Takes what a route costs beyond the one token that every request has taken. */
  function charge (request: FastifyRequest, reply: FastifyReply, tokens: number): ApiError | undefined {
    if (tokens <= 0) return undefined
    const left = limits.address.take(clientKey(request.clientAddress), tokens)
    request.addressToken = { limit: limits.address, left }
    setFields(reply, fields.one(request.addressToken))
    return left >= 0 ? undefined : limits.address.refusal(-left)
  }
  app.decorate('costing', cost => (request, reply, done) => {
    done(charge(request, reply, (typeof cost === 'number' ? cost : cost(request)) - 1))
  })

  await app.register(rateLimit, { global: false, store: BucketStore })

  app.decorate('limited', (name, { isSilent = false } = {}) => {
    const limit = limits[name]
    const { per, burst } = limit.policy
    const keyGenerator = per === 'user' ? keyOfUser : keyOfAddress
    const check = app.createRateLimit({ max: burst, keyGenerator, limit } as CreateRateLimitOptions)
    return async (request, reply) => {
      const result = await check(request)
      if (result.isAllowed) return
      if (!isSilent || result.isExceeded) setFields(reply, fields.two(request.addressToken!, { limit, left: result.remaining }))
      if (result.isExceeded) throw limit.refusal(result.ttl)
    }
  })
}, { name: 'halo:rate-limit', dependencies: ['halo:config', 'halo:errors', 'halo:redis'] })

const keyOfAddress = (request: FastifyRequest): string => clientKey(request.clientAddress)

const keyOfUser = (request: FastifyRequest): string => String(request.user.user_id)

function setFields (reply: FastifyReply, fields: string[]): void {
  for (let index = 0; index < fields.length; index += 2) reply.header(fields[index]!, fields[index + 1])
}

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

import rateLimit, { type CreateRateLimitOptions, type FastifyRateLimitOptions, type FastifyRateLimitStore } from '@fastify/rate-limit'
import type { FastifyReply, FastifyRequest, onRequestAsyncHookHandler } from 'fastify'
import fp from 'fastify-plugin'
import { arrivalOf } from '../services/arrival.ts'
import { clientKey } from '../services/client-address.ts'
import type { ApiError } from '../services/errors.ts'
import { createLimitFields, type LimitFields, type Taken } from '../services/limiter/limit-fields.ts'
import { createLimit, type Limit } from '../services/limiter/limit.ts'
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
    limited (name: PolicyName): onRequestAsyncHookHandler
  }
  interface FastifyRequest {
    /** The token of its address. */
    addressToken: Taken | undefined
  }
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

  app.decorate('rateLimitRefusal', (request, reply) => {
    // Taken before, by whatever came through the port (plugins/hot-path.ts).
    const taken = arrivalOf(request.raw)?.addressToken ?? { limit: limits.address, left: limits.address.take(clientKey(request.ip)) }
    const { left } = request.addressToken = taken
    setFields(reply, fields.one(taken))
    return left >= 0 ? undefined : limits.address.refusal(-left)
  })
  app.addHook('onRequest', (request, reply, done) => {
    done(app.rateLimitRefusal(request, reply))
  })

  await app.register(rateLimit, { global: false, store: BucketStore })

  app.decorate('limited', name => {
    const limit = limits[name]
    const { per, burst } = limit.policy
    const keyGenerator = per === 'user' ? keyOfUser : keyOfAddress
    const check = app.createRateLimit({ max: burst, keyGenerator, limit } as CreateRateLimitOptions)
    return async (request, reply) => {
      const result = await check(request)
      if (result.isAllowed) return
      setFields(reply, fields.two(request.addressToken!, { limit, left: result.remaining }))
      if (result.isExceeded) throw limit.refusal(result.ttl)
    }
  })
}, { name: 'halo:rate-limit', dependencies: ['halo:config', 'halo:errors', 'halo:redis'] })

const keyOfAddress = (request: FastifyRequest): string => clientKey(request.ip)

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

import type { Cluster, Redis } from 'ioredis'
import { ApiError } from '../../shared/errors.ts'
import { createLeaseClient } from './lease-client.ts'
import type { Policy, PolicyName } from './policies.ts'
import { createSharedBuckets } from './shared-buckets.ts'
import { createTokenBuckets } from './token-buckets.ts'

export interface Limit {
  name: PolicyName
  policy: Policy
  /**
   * Takes tokens of a client (one by default) when there is at least one.
   *
   * @returns the tokens left; or, below zero, the milliseconds until there is one
   */
  take (client: string, cost?: number): number
  /** The error for a client without a token. @param waitMs milliseconds until there is one */
  refusal(waitMs: number): ApiError
}

/** What a policy counts, where it is not requests of its name. */
const kinds: Partial<Record<PolicyName, string>> = {
  address: 'requests',
  publishing: 'videos',
  idempotency: 'uses of an Idempotency-Key'
}

/** A policy with its buckets: shared by all processes with Redis, the process's own without. */
export function createLimit (name: PolicyName, policy: Policy, redis?: Redis | Cluster): Limit {
  const { per, rate, burst } = policy
  const kind = kinds[name] ?? `${name} requests`
  const frequency = rate >= 1 ? `${rate} ${kind} a second` : `${Math.round(rate * 3600)} ${kind} an hour`
  return {
    name,
    policy,
    take: redis ? takeShared(name, policy, redis) : takeOwn(policy),
    refusal (waitMs) {
      const seconds = Math.max(1, Math.ceil(waitMs / 1000))
      return new ApiError('rate_limit_exceeded', {
        message: `This ${per} may make ${frequency} with a burst of ${burst}; try again in ${seconds} s`,
        retryAfter: seconds,
        violatedPolicies: [name]
      })
    }
  }
}

function takeShared (policy: PolicyName, { rate, burst }: Policy, redis: Redis | Cluster): Limit['take'] {
  const buckets = createSharedBuckets({ rate, burst, lease: createLeaseClient({ redis, policy, rate, burst }) })
  return (client, cost) => buckets.take(client, cost)
}

function takeOwn ({ rate, burst }: Policy): Limit['take'] {
  const buckets = createTokenBuckets({ rate, burst })
  return (client, cost) => {
    const now = performance.now()
    const waitMs = buckets.take(client, now, cost)
    return waitMs > 0 ? -waitMs : buckets.remaining(client, now)
  }
}

import type { Cluster, Redis } from 'ioredis'
import { ApiError } from '../errors.ts'
import { createLeaseClient } from './lease-client.ts'
import type { Policy, PolicyName } from './policies.ts'
import { createSharedBuckets } from './shared-buckets.ts'
import { createTokenBuckets } from './token-buckets.ts'

export interface Limit {
  name: PolicyName
  policy: Policy
  /** Takes a token of a client: the tokens left or, below zero, the milliseconds until there is one. */
  take (client: string): number
  /** What who got none is told. @param waitMs milliseconds until there is a token */
  refusal (waitMs: number): ApiError
}

/** A policy at work: its buckets are shared by all processes where there is a Redis, and are this process's own without. */
export function createLimit (name: PolicyName, policy: Policy, redis?: Redis | Cluster): Limit {
  const { per, rate, burst } = policy
  const kind = name === 'address' ? '' : `${name} `
  return {
    name,
    policy,
    take: redis ? takeShared(name, policy, redis) : takeOwn(policy),
    refusal (waitMs) {
      const seconds = Math.max(1, Math.ceil(waitMs / 1000))
      return new ApiError('rate_limit_exceeded', {
        message: `This ${per} may make ${rate} ${kind}requests a second with a burst of ${burst}; try again in ${seconds} s`,
        retryAfter: seconds,
        violatedPolicies: [name]
      })
    }
  }
}

function takeShared (policy: PolicyName, { rate, burst }: Policy, redis: Redis | Cluster): Limit['take'] {
  const buckets = createSharedBuckets({ rate, burst, lease: createLeaseClient({ redis, policy, rate, burst }) })
  return client => buckets.take(client)
}

function takeOwn ({ rate, burst }: Policy): Limit['take'] {
  const buckets = createTokenBuckets({ rate, burst })
  return client => {
    const now = performance.now()
    const waitMs = buckets.take(client, now)
    return waitMs > 0 ? -waitMs : buckets.remaining(client, now)
  }
}

/** A limit on requests, by a token bucket for each client address or each user. */
export interface Policy {
  per: 'address' | 'user'
  /** Tokens a second that flow into a bucket: the sustained rate of requests. */
  rate: number
  /** Tokens that a full bucket holds: requests that may be made at once after a pause. */
  burst: number
}

/** Every request takes a token of `address`; routes with a policy of their own take one of that as well. */
export const policyNames = [
  'address',
  'register',
  'login',
  'password',
  'engagement',
  'publishing',
  'idempotency'
] as const

export type PolicyName = typeof policyNames[number]

export type Policies = Record<PolicyName, Policy>

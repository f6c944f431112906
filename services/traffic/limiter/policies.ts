/** A limit on requests, by a token bucket for each client address or each user. */
export interface Policy {
  per: 'address' | 'user'
  /** Tokens a second that flow into a bucket: requests that may be made for ever. */
  rate: number
  /** Tokens that a full bucket holds: requests that may be made at once after a pause. */
  burst: number
}

/** Every request takes a token of its address; those of the kinds below it take one of their own policy as well. */
export const policyNames = ['address', 'register', 'login', 'password', 'engagement', 'publishing', 'idempotency'] as const

export type PolicyName = typeof policyNames[number]

export type Policies = Record<PolicyName, Policy>

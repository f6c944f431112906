import { catalogue, type ErrorCode } from '../../schemas/error-catalogue.ts'

/** One fault of a request: where it is (a JSON pointer) and what is wrong. */
export interface Violation {
  in: 'body' | 'query' | 'path' | 'headers'
  pointer: string
  detail: string
}

export interface ApiErrorOptions {
  /** Replaces the sentence of the catalogue. */
  message?: string
  /** Seconds after which a retry makes sense; sent as Retry-After. */
  retryAfter?: number
  violations?: Violation[]
  /** Names of the rate limit policies that were exceeded. */
  violatedPolicies?: string[]
  headers?: Record<string, string>
  /** For the log only; never sent to a client. */
  cause?: unknown
}

/** An error that is sent to the client, with a code of the catalogue. */
export class ApiError extends Error {
  override name = 'ApiError'
  readonly code: ErrorCode
  readonly statusCode: number
  readonly retryAfter: number | undefined
  readonly violations: Violation[] | undefined
  readonly violatedPolicies: string[] | undefined
  readonly headers: Record<string, string> | undefined

  constructor (code: ErrorCode, options: ApiErrorOptions = {}) {
    super(options.message ?? catalogue[code].message, { cause: options.cause })
    this.code = code
    this.statusCode = catalogue[code].status
    // Every 503 has a Retry-After; most causes last a second or two.
    this.retryAfter = options.retryAfter ?? (this.statusCode === 503 ? 1 : undefined)
    this.violations = options.violations
    this.violatedPolicies = options.violatedPolicies
    this.headers = options.headers
  }
}

export interface Problem {
  type: string
  title: string
  status: number
  detail: string
  instance: string
  request_id: string
  error: ErrorCode
  message: string
  violations?: Violation[]
  /** As the draft of the RateLimit fields names it. */
  'violated-policies'?: string[]
}

/**
 * The body of an error (RFC 9457, with the members `error` and `message` that HALO's clients read).
 *
 * @param base address that precedes `/errors/<code>` in `type`; empty makes it a relative reference
 */
export function problem (error: ApiError, base: string, instance: string, requestId: string): Problem {
  const { title, status } = catalogue[error.code]
  return {
    type: `${base}/errors/${error.code}`,
    title,
    status,
    detail: error.message,
    instance,
    request_id: requestId,
    error: error.code,
    message: error.message,
    ...(error.violations ? { violations: error.violations } : {}),
    ...(error.violatedPolicies ? { 'violated-policies': error.violatedPolicies } : {})
  }
}

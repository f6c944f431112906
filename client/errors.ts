import type { components } from './schema.ts'

export type ErrorCode = components['schemas']['ErrorCode']

/** Errors that the service has not answered: see the `code` of HaloError. */
export type ClientErrorCode = 'network_error' | 'timeout' | 'unexpected_response'

type Problem = components['schemas']['Problem']

/**
 * A call that failed. `code` is one of the service's codes, a code that a later version of the service has added, or
 * one of this client: `network_error` (no connection), `timeout`, `unexpected_response` (no JSON of the service, for
 * example the error page of a proxy).
 */
export class HaloError extends Error {
  override name = 'HaloError'
  readonly code: ErrorCode | ClientErrorCode | (string & {})
  /** HTTP status; 0 when there was no answer. */
  readonly status: number
  /** Seconds after which a further try makes sense. */
  readonly retryAfter: number | undefined
  /** Finds the request in the log of the service. */
  readonly requestId: string | undefined
  /** Each fault of the request. */
  readonly violations: NonNullable<Problem['violations']>

  constructor (
    { code, message, status = 0, ...rest }: {
      code: string
      message: string
      status?: number
      retryAfter?: number
      requestId?: string
      violations?: Problem['violations']
      cause?: unknown
    }
  ) {
    super(message)
    this.code = code
    this.status = status
    this.retryAfter = rest.retryAfter
    this.requestId = rest.requestId
    this.violations = rest.violations ?? []
    if ('cause' in rest) this.cause = rest.cause
  }
}

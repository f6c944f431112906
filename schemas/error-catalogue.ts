/**
 * The error catalogue: every error code of the API with its status. Codes are part of the contract: a new situation
 * gets a new code, an old code keeps its meaning.
 */
export const catalogue = {
  invalid_request: { status: 400, title: 'Invalid request', message: 'The request is not valid' },
  invalid_id: { status: 400, title: 'Invalid id', message: 'An id is a whole number from 1 to 9007199254740991' },
  invalid_metric: { status: 400, title: 'Invalid metric', message: 'A metric is one of likes, comments, live_viewers' },
  invalid_cursor: {
    status: 400,
    title: 'Invalid cursor',
    message: 'This cursor is not valid for this list: start again without one'
  },
  password_too_common: {
    status: 400,
    title: 'Password too common',
    message: 'This password is too common: choose another one'
  },
  unauthorized: { status: 401, title: 'Unauthorized', message: 'A valid access token is required' },
  invalid_credentials: { status: 401, title: 'Invalid credentials', message: 'Invalid email or password' },
  invalid_refresh_token: {
    status: 401,
    title: 'Invalid refresh token',
    message: 'This refresh token is not valid any more: log in again'
  },
  forbidden: { status: 403, title: 'Forbidden', message: 'This belongs to another user' },
  adult_content_restricted: {
    status: 403,
    title: 'Adult content restricted',
    message: 'This content is for adults with adult mode on'
  },
  wrong_password: { status: 403, title: 'Wrong password', message: 'The current password is wrong' },
  not_an_adult: { status: 403, title: 'Not an adult', message: 'Adult mode is for adults: set is_adult first' },
  not_found: { status: 404, title: 'Not found', message: 'There is nothing at this address' },
  method_not_allowed: { status: 405, title: 'Method not allowed', message: 'This address does not take this method' },
  request_timeout: { status: 408, title: 'Request timeout', message: 'The request took too long to arrive' },
  too_many_live_videos: {
    status: 409,
    title: 'Too many live videos',
    message: 'Too many of your videos are live at the same time: end one of them first'
  },
  user_exists: { status: 409, title: 'User exists', message: 'The email or the username is taken' },
  idempotency_in_flight: {
    status: 409,
    title: 'Idempotency key in flight',
    message: 'A request with this Idempotency-Key is in progress; repeat it shortly'
  },
  precondition_failed: {
    status: 412,
    title: 'Precondition failed',
    message: 'It has changed since the version in If-Match: read it again'
  },
  payload_too_large: { status: 413, title: 'Payload too large', message: 'The body of the request is too large' },
  unsupported_media_type: {
    status: 415,
    title: 'Unsupported media type',
    message: 'The body must be application/json in UTF-8'
  },
  expectation_failed: {
    status: 417,
    title: 'Expectation failed',
    message: 'The only expectation that is met is 100-continue'
  },
  idempotency_key_reused: {
    status: 422,
    title: 'Idempotency key reused',
    message: 'This Idempotency-Key was used with another payload: use a new one'
  },
  rate_limit_exceeded: { status: 429, title: 'Rate limit exceeded', message: 'Too many requests from this address' },
  headers_too_large: {
    status: 431,
    title: 'Request header fields too large',
    message: 'The headers of the request are too large'
  },
  internal_error: { status: 500, title: 'Internal error', message: 'Something went wrong on our side' },
  service_unavailable: {
    status: 503,
    title: 'Service unavailable',
    message: 'A dependency of the service is unavailable; try again shortly'
  },
  engagement_unavailable: {
    status: 503,
    title: 'Engagement unavailable',
    message: 'Counters cannot be written right now; try again shortly'
  },
  engagement_unconfirmed: {
    status: 503,
    title: 'Engagement unconfirmed',
    message: 'It is not known whether this was counted: read the counters before you repeat it'
  },
  server_busy: { status: 503, title: 'Server busy', message: 'The service is overloaded; try again shortly' }
} as const satisfies Record<string, { status: number, title: string, message: string }>

export type ErrorCode = keyof typeof catalogue

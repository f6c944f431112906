/** The texts of the OpenAPI document that belong to no single route (Markdown). */

export const description = `
The back end of the HALO live streaming platform: accounts, videos and live streams, and exact counters of likes,
comments, viewers and views.

## Authentication and refresh

\`POST /api/v1/auth/login\` and \`POST /api/v1/auth/register\` answer with \`token\`, an access token (JWT) for
\`Authorization: Bearer …\`, valid for \`expires_in\` seconds, and \`refresh_token\`, for one call of
\`POST /api/v1/auth/refresh\`, which answers with new ones of both. Store the new refresh token before you use the new
access token. If the response to a refresh is lost, repeat the request with the same token. Refresh once for all requests
that got a 401, and share the newest refresh token between tabs: two parties that refresh with the same token end the
session. Where a token is optional, one that is expired, revoked or invalid is ignored.

## Paging

Lists are arrays, newest first. \`limit\` is the size of a page. The header \`X-Next-Cursor\` of a page is the \`cursor\` of
the next one, and \`Link\` with \`rel="next"\` is its address; the last page has neither. A cursor is valid for the filters
of its list. Following the cursors shows each video that exists all the time exactly once, at any depth at the same speed.

## Counters and staleness

Counters are exact. \`live_viewers\` is the number of users who sent a heartbeat within 45 seconds. While Redis is
unavailable, \`counters.stale\` is true, the counts are those of \`counters.as_of\`, and \`live_viewers\` is null: unknown
is not zero. Writes then answer 503 \`engagement_unavailable\`. A change is visible to everyone within a second, and to its
author at once.

## Limits and retries

Each response has \`RateLimit\` and \`RateLimit-Policy\`. A 429 names the exceeded policies in \`violated-policies\`, and 429
and 503 have \`Retry-After\` in seconds. Repeat a GET, a PUT or a DELETE after that time. Repeat a POST only if it changes
nothing the second time: likes and heartbeats do not, and a request that creates something takes an \`Idempotency-Key\`.

## Errors

Each response other than 2xx and 304 is \`application/problem+json\` (RFC 9457). Programs read \`error\`, a stable code; the
known ones are in the schema \`ErrorCode\` and at \`/errors\`. New codes can be added at any time: treat an unknown code by
the class of its status. \`violations\` lists each fault of the request. \`request_id\` finds the request in the log of the
service.

## Versions

This is version 1, under \`/api/v1\`. Within a version, members, operations, error codes and optional parameters are added,
and nothing is removed or changes its meaning: ignore members that you do not know.
`.trim()

export const tags = [
  {
    name: 'auth',
    description: 'Registration, login, sessions and the own account. A session is a login on one device; its tokens are rotated by refreshing.'
  },
  {
    name: 'videos',
    description: 'Videos and live streams: publish, change, list. A live stream is a video with `is_live`.'
  },
  { name: 'users', description: 'Public profiles, without the email.' },
  {
    name: 'engagement',
    description: 'Likes, comments, live viewers and views, and a stream of their changes. All writes need a token.'
  },
  {
    name: 'operations',
    description: 'Probes and metrics for operators, and the documentation of the API itself.'
  }
]

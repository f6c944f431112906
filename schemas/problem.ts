import { Type, type TSchema } from '@sinclair/typebox'
import { catalogue, type ErrorCode } from './error-catalogue.ts'

/** The body of every response that is not 2xx or 304. */
export const Problem = Type.Object({
  type: Type.String({ format: 'uri-reference', description: 'Address of this kind of error' }),
  title: Type.String({ description: 'The kind of error, in words' }),
  status: Type.Integer({ description: 'The HTTP status' }),
  detail: Type.String({ description: 'What went wrong this time' }),
  instance: Type.String({ description: 'The path that was asked for' }),
  request_id: Type.String({ description: 'Finds this request in the service’s log' }),
  error: Type.String({ description: 'Stable code for programs' }),
  message: Type.String({ description: 'A sentence for a person' }),
  violations: Type.Optional(Type.Array(
    Type.Object({
      in: Type.String({ description: '`body`, `query`, `path` or `headers`' }),
      pointer: Type.String({ description: 'JSON pointer to the value' }),
      detail: Type.String({ description: 'What is wrong with it' })
    }),
    { description: 'Every single thing that is wrong with the request' }
  )),
  'violated-policies': Type.Optional(
    Type.Array(Type.String(), { description: 'Limits of which nothing was left, by their names in `RateLimit-Policy`' })
  )
}, { $id: 'Problem', title: 'Problem', description: 'RFC 9457 problem details with HALO’s `error` and `message`' })

/** Errors that any route may answer with. */
const everywhere: ErrorCode[] = ['invalid_request', 'rate_limit_exceeded', 'internal_error', 'service_unavailable']

/** Headers of responses by status, for the documentation. */
const headersOf: Record<number, Record<string, object>> = {
  401: {
    'WWW-Authenticate': { type: 'string', description: 'Bearer, with the reason when a token was sent (RFC 6750)' }
  },
  409: { 'Retry-After': { type: 'integer', description: 'Seconds; only with `idempotency_in_flight`' } },
  429: { 'Retry-After': { type: 'integer', description: 'Seconds until a further try makes sense' } },
  503: { 'Retry-After': { type: 'integer', description: 'Seconds until a further try makes sense' } }
}

/**
 * Returns the `response` member of a route's schema: its successes, and one problem for each status of the given
 * codes and of those that any route may answer with. `Problem` is a shared schema, which plugins/openapi.ts
 * registers.
 */
export function responses<S extends Record<number, TSchema>> (successes: S, codes: ErrorCode[] = []) {
  const byStatus = new Map<number, ErrorCode[]>()
  for (const code of new Set([...codes, ...everywhere])) {
    const { status } = catalogue[code]
    byStatus.set(status, [...byStatus.get(status) ?? [], code])
  }
  const problems = Object.fromEntries(
    [...byStatus].sort(([a], [b]) => a - b).map(([status, group]) => [status, {
      description: group.map(code => `\`${code}\`: ${catalogue[code].message}`).join('; '),
      ...(headersOf[status] ? { headers: headersOf[status] } : {}),
      content: {
        'application/problem+json': {
          schema: Type.Ref('Problem#'),
          examples: Object.fromEntries(group.map(code => [code, { $ref: `#/components/examples/${code}` }]))
        }
      }
    }])
  )
  const described = Object.fromEntries(
    Object.entries(successes).map((
      [status, schema]
    ) => [status, { ...schema, 'x-response-description': nameOf(schema) }])
  )
  return { ...problems, ...described } as unknown as S
}

/** Adds headers to a response's schema, for the documentation. */
export const withHeaders = <S extends TSchema>(schema: S, headers: Record<string, string>): S => ({
  ...schema,
  headers: Object.fromEntries(
    Object.entries(headers).map(([name, description]) => [name, { type: 'string', description }])
  )
})

/** Headers of responses that clients may keep. */
export const cachingHeaders = {
  ETag: 'Validator for If-None-Match',
  'Cache-Control': 'public without a token, private with one',
  Vary: 'Authorization, Accept-Encoding'
}

/** A response without a body. */
export const Nothing = Type.Null({ title: 'Nothing' })

/** The answer to a request whose If-None-Match names the current version. */
export const NotModified = withHeaders(Nothing, cachingHeaders)

const nameOf = (schema: TSchema): string =>
  schema['type'] === 'array' ? `${nameOf(schema['items'] as TSchema)}s` : schema.title ?? 'The answer'

/** A problem of each code, as the document shows it. */
export const problemExamples = Object.fromEntries(
  Object.entries(catalogue).map(([code, { status, title, message }]) => [code, {
    summary: title,
    value: {
      type: `/errors/${code}`,
      title,
      status,
      detail: message,
      instance: '/api/v1/…',
      request_id: '066af438-5',
      error: code,
      message
    }
  }])
)

import { Type, type TObject } from '@sinclair/typebox'
import { catalogue, type ErrorCode } from '../services/errors.ts'

/** The body of every answer that is not 2xx or 304. */
export const Problem = Type.Object({
  type: Type.String({ format: 'uri-reference', description: 'Address of this kind of error' }),
  title: Type.String({ description: 'The kind of error, in words' }),
  status: Type.Integer({ description: 'The HTTP status' }),
  detail: Type.String({ description: 'What went wrong this time' }),
  instance: Type.String({ description: 'The path that was asked for' }),
  request_id: Type.String({ description: 'Finds this request in the service’s log' }),
  error: Type.String({ description: 'Stable code for programs' }),
  message: Type.String({ description: 'A sentence for a person' }),
  violations: Type.Optional(Type.Array(Type.Object({
    in: Type.String({ description: '`body`, `query`, `path` or `headers`' }),
    pointer: Type.String({ description: 'JSON pointer to the value' }),
    detail: Type.String({ description: 'What is wrong with it' })
  }), { description: 'Every single thing that is wrong with the request' }))
}, { $id: 'Problem', title: 'Problem', description: 'RFC 9457 problem details with HALO’s `error` and `message`' })

/** What any route may answer, whatever it does. */
const everywhere: ErrorCode[] = ['invalid_request', 'rate_limit_exceeded', 'internal_error', 'service_unavailable']

/**
 * The `response` member of a route's schema: its successes, and one problem for each status that the
 * given codes (and those that any route may answer with) stand for.
 */
export function responses<S extends Record<number, unknown>> (successes: S, codes: ErrorCode[] = []) {
  const byStatus = new Map<number, ErrorCode[]>()
  for (const code of new Set([...codes, ...everywhere])) {
    const { status } = catalogue[code]
    byStatus.set(status, [...byStatus.get(status) ?? [], code])
  }
  const problems = Object.fromEntries([...byStatus].sort(([a], [b]) => a - b).map(([status, group]) => [status, {
    description: group.map(code => `\`${code}\`: ${catalogue[code].message}`).join('; '),
    content: { 'application/problem+json': { schema: withExample(group[0]!) } }
  }]))
  return { ...problems, ...successes } as S
}

function withExample (code: ErrorCode): TObject {
  const { status, title, message } = catalogue[code]
  return {
    ...Problem,
    $id: undefined,
    examples: [{
      type: `/errors/${code}`, title, status, detail: message, instance: '/api/v1/…', request_id: 'k3v9-1a', error: code, message
    }]
  } as unknown as TObject
}

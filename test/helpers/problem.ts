import type { Test } from 'tap'
import { catalogue, type ErrorCode } from '../../schemas/error-catalogue.ts'

interface Answer {
  statusCode: number
  headers: Record<string, unknown>
  json: () => unknown
  body: string
}

/** Asserts the whole body of an error, with the given members where they differ from the catalogue. */
export function hasProblem (
  t: Test,
  answer: Answer,
  code: ErrorCode,
  members: Record<string, unknown> = {},
  name = `answers ${code}`
): void {
  const { status, title, message } = catalogue[code]
  t.test(name, async t => {
    t.equal(answer.statusCode, status, 'has the status of its code')
    t.equal(answer.headers['content-type'], 'application/problem+json; charset=utf-8')
    const { violations, 'violated-policies': violated, instance, request_id: requestId, ...body } = JSON.parse(
      answer.body
    ) as Record<string, unknown>
    t.type(instance, 'string')
    t.type(requestId, 'string')
    const words = (members['message'] ?? message) as string | RegExp
    if (typeof words === 'string') t.equal(body['message'], words)
    else t.match(body['message'], words)
    t.strictSame(body, {
      type: `/errors/${code}`,
      title,
      status,
      error: code,
      detail: body['message'],
      message: body['message']
    })
    if (status === 503 || status === 429) t.match(answer.headers['retry-after'], /^[1-9]\d*$/, 'says when to come back')
    t.equal(Array.isArray(violated) && violated.length === 1, status === 429, 'says which limit it was')
    if (status === 401) t.match(answer.headers['www-authenticate'], /^Bearer /)
    if ('violations' in members) t.match(violations, members['violations'])
  })
}

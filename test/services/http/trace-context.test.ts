import t from 'tap'
import { traceIdsOf } from '../../../services/http/trace-context.ts'
import { createApp, logLines, signUp } from '../../helpers/app.ts'
import { anyStores } from '../../helpers/stores.ts'

const ids = { trace_id: '0af7651916cd43dd8448eb211c80319c', span_id: 'b7ad6b7169203331' }
const traceparent = `00-${ids.trace_id}-${ids.span_id}-01`

t.test('a traceparent is read as W3C Trace Context says', async t => {
  t.strictSame(traceIdsOf(traceparent), ids)
  t.strictSame(traceIdsOf(`cc-${ids.trace_id}-${ids.span_id}-01-what-a-later-version-adds`), ids)
  for (
    const wrong of [
      undefined,
      '',
      'x'.repeat(10_000),
      `ff-${ids.trace_id}-${ids.span_id}-01`,
      `00-${'0'.repeat(32)}-${ids.span_id}-01`,
      `00-${ids.trace_id}-${'0'.repeat(16)}-01`,
      traceparent.toUpperCase(),
      `${traceparent}0`,
      [traceparent, traceparent]
    ]
  ) t.equal(traceIdsOf(wrong), undefined, String(wrong).slice(0, 80))
})

t.test('every log line about a request has the ids of its trace', async t => {
  const app = await createApp(t, { stores: anyStores() })
  const { authorization } = await signUp(app)
  const headers = { ...authorization, traceparent }
  logLines.length = 0
  await app.inject({ url: '/api/v1/videos', headers })
  await app.inject({ method: 'POST', url: '/api/v1/auth/logout', headers })
  app.services.users.profile = async () => { throw new Error('a fault') }
  await app.inject({ url: '/api/v1/users/1', headers })
  const lines = logLines
    .map(line => JSON.parse(line) as Record<string, unknown>)
    .filter(({ reqId }) => reqId !== undefined)
  t.ok(lines.some(({ audit }) => audit === 'logout'))
  t.ok(lines.some(({ msg }) => msg === 'unexpected error'))
  t.equal(lines.filter(({ msg }) => msg === 'request').length, 3)
  for (const line of lines) t.match(line, ids, String(line['msg']))
  logLines.length = 0
  await app.inject('/api/v1/videos')
  t.notMatch(logLines.join(), /trace_id/, 'and a request without a trace has none')
})

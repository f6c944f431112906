import t from 'tap'
import { loggableText, loggableUrl } from '../../../services/runtime/log-redaction.ts'

t.test('a control that JSON leaves as it is, in an address or a header, does not reach the log', async t => {
  for (
    const [control, shown] of [['\u007f', '\\u007f'], ['\u0080', '\\u0080'], ['\u0085', '\\u0085'], [
      '\u009b',
      '\\u009b'
    ], ['\u009f', '\\u009f']]
  ) {
    t.equal(loggableText(`app ${control}31m`), `app ${shown}31m`)
    t.equal(loggableUrl(`/x${control}?a=${control}`), `/x${shown}?a=${shown}`)
  }
  t.equal(loggableText('~\u00a0é'), '~\u00a0é', 'the controls: what stands beside them')
})

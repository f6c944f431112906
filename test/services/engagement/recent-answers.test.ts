import t from 'tap'
import { createRecent } from '../../../services/engagement/engagement.ts'

t.test('the answer of a moment ago is given again, a failure is not', async t => {
  const recent = createRecent<string>(60_000)
  await t.rejects(
    recent.get('a viewer', 'one tab', async () => {
      throw new Error('away')
    }),
    /away/
  )
  t.equal(await recent.get('a viewer', 'one tab', async () => 'first'), 'first')
  t.equal(await recent.get('a viewer', 'one tab', async () => 'second'), 'first')
  t.equal(await recent.get('a viewer', 'another tab', async () => 'third'), 'third')
  t.equal(await recent.get('another', 'one tab', async () => 'second'), 'second')
})

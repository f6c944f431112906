import t from 'tap'
import { createLimit } from '../../../../services/traffic/limiter/limit.ts'
import { createLimitFields } from '../../../../services/traffic/limiter/limit-fields.ts'

t.test('the fields of a limit tell what is left and the seconds until all of it is there again', async t => {
  const fields = createLimitFields({ hasLegacyHeaders: true })
  const limit = createLimit('address', { per: 'address', rate: 2, burst: 10 })
  for (
    const [left, whole, seconds] of [[10, 10, 0], [9, 9, 1], [8, 8, 1], [7, 7, 2], [3.9, 3, 4], [0, 0, 5], [
      -500,
      0,
      5
    ]] as const
  ) {
    const expected = {
      'ratelimit-policy': '"address";q=10;w=5',
      ratelimit: `"address";r=${whole};t=${seconds}`,
      'x-ratelimit-limit': '10',
      'x-ratelimit-remaining': String(whole),
      'x-ratelimit-reset': String(seconds)
    }
    t.strictSame(fields.headers({ limit, left }, undefined), expected, `${left} left`)
    const lines = fields.serialized({ limit, left }, undefined).split('\r\n').filter(Boolean)
    t.strictSame(Object.fromEntries(lines.map(line => line.split(': '))), expected, `${left} left, as text`)
  }
})

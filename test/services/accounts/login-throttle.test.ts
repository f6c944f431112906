import t from 'tap'
import { createLoginThrottle } from '../../../services/accounts/login-throttle.ts'
import { ApiError } from '../../../services/shared/errors.ts'
import { createApp } from '../../helpers/app.ts'
import { onEachStore } from '../../helpers/stores.ts'

onEachStore(t, 'tries that run at once, more than failures are left, wait for those before them', async (t, stores) => {
  const app = await createApp(t, { stores })
  const attempts = createLoginThrottle(app.database)
  const attempt = { account: 'a@example.com', address: '198.51.100.1', isKnownAddress: false }
  for (let n = 0; n < 4; n++) {
    t.equal(await attempts.begin(attempt), true, `try ${n + 1}`)
    await attempts.fail(attempt)
  }
  t.equal(await attempts.begin(attempt), true, 'the fifth, which runs')
  await t.rejects(attempts.begin(attempt), { code: 'server_busy' }, 'the sixth comes while the fifth may still fail')
  await attempts.fail(attempt)
  t.equal(await attempts.begin(attempt), false, 'and waits when it has')

  const other = { ...attempt, account: 'b@example.com' }
  for (let n = 0; n < 4; n++) {
    await attempts.begin(other)
    await attempts.fail(other)
  }
  t.equal(await attempts.begin(other), true)
  const next = attempts.begin(other)
  await attempts.succeed(other, 1)
  t.equal(await next, true, 'where the fifth is right the sixth is looked at')
})

t.test('an attempt that began in memory ends there, and frees no slot of another in PostgreSQL', async t => {
  let isAvailable = false
  const queries: string[] = []
  const throttle = createLoginThrottle({
    async query ({ name }) {
      if (!isAvailable) throw new ApiError('service_unavailable')
      queries.push(name)
      return []
    }
  })
  for (const end of ['fail', 'withdraw', 'succeed'] as const) {
    const attempt = { account: 'a@example.com', address: '198.51.100.1', isKnownAddress: false }
    isAvailable = false
    t.equal(await throttle.begin(attempt), true)
    isAvailable = true
    await throttle[end](attempt, 1)
  }
  t.strictSame(queries, [])
})

import t from 'tap'
import { createRevocations } from '../../../services/accounts/revocations.ts'
import { createApp, createDatabase, signUp } from '../../helpers/app.ts'
import { anyStores } from '../../helpers/stores.ts'
import { until } from '../../helpers/until.ts'

t.test('hundreds of thousands of revocations are loaded in pages, and the process is not ready before', async t => {
  const stores = anyStores()
  const databaseUrl = await createDatabase(t, stores)
  const app = await createApp(t, { stores, databaseUrl })
  const { token, authorization } = await signUp(app)
  const { sid } = JSON.parse(Buffer.from(token.split('.')[1]!, 'base64url').toString()) as { sid: string }
  await app.backgroundPool.query(
    "insert into revocations (session_id, user_id, until) select lpad(n::text, 22, '0'), 1, now() + interval '1 hour' from generate_series(1, 250000) n"
  )
  await app.backgroundPool.query(
    "insert into revocations (session_id, user_id, until) values ($1, 1, now() + interval '1 hour')",
    [sid]
  )
  await app.backgroundPool.query('analyze revocations')

  const pages: number[] = []
  let statements = 0
  const slow = createRevocations({
    database: {
      query: async (...args) => {
        statements++
        return await app.watchDatabase.query(...args)
      }
    },
    onProgress: known => {
      pages.push(known)
    }
  })
  t.teardown(() => {
    slow.close()
  })
  t.equal(slow.isLoaded, false)
  await slow.start()
  t.equal(slow.isLoaded, true)
  t.ok(statements >= 13 && pages.length >= 12, `${statements} statements`)
  t.equal(
    slow.isRevoked({
      user_id: 1,
      email: '',
      username: '',
      iat: 0,
      exp: 0,
      sid: '250000'.padStart(22, '0'),
      isLegacy: false
    }),
    true,
    'the last one'
  )

  const late = await createApp(t, { stores, databaseUrl, redisUrl: stores.redisUrl })
  await late.ready()
  await until('readiness', async () => (await late.inject('/readyz')).statusCode === 200)
  t.equal(
    (await late.inject({ url: '/api/v1/auth/me', headers: authorization })).statusCode,
    401,
    'and who was logged out is'
  )
})

t.test('a process that cannot load the revocations is not ready, and goes on where a look failed', async t => {
  let isUnavailable = true
  let asked: unknown[] = []
  const rows = Array.from(
    { length: 20_000 },
    (_, n) => ({
      watermark: '100',
      id: n + 1,
      transaction_id: '7',
      session_id: `s${n}`,
      except_session_id: null,
      user_id: 1,
      revoked_seconds: 0,
      seconds_left: 60
    })
  )
  const revocations = createRevocations({
    periodMs: 5,
    database: {
      async query (statement, values) {
        asked = values!
        if (values![0] === '0' && values![1] === 0) return rows as never
        if (isUnavailable) throw new Error('away')
        return [{ ...rows[0]!, id: 20_001, session_id: 'last' }] as never
      }
    }
  })
  t.teardown(() => {
    revocations.close()
  })
  await revocations.start()
  t.equal(revocations.isLoaded, false)
  isUnavailable = false
  await until('it is loaded', () => revocations.isLoaded)
  const claims = (sid: string) => ({ user_id: 1, email: '', username: '', iat: 0, exp: 0, sid, isLegacy: false })
  t.strictSame([
    revocations.isRevoked(claims('s0')),
    revocations.isRevoked(claims('last')),
    revocations.isRevoked(claims('other'))
  ], [true, true, false])
  await until('the next look begins at the watermark', () => asked[0] === '100')
})

t.test('a process that has not loaded the revocations is not ready, and refuses tokens with 503, not with 401', async t => {
  const app = await createApp(t, { stores: anyStores() })
  const { authorization } = await signUp(app)
  await until('readiness', async () => (await app.inject('/readyz')).statusCode === 200)
  Object.defineProperty(app.services.revocations, 'isLoaded', { get: () => false })
  const readiness = await app.inject('/readyz')
  t.equal(readiness.statusCode, 503)
  t.match(readiness.json(), { status: 'not_ready', database: true, revocations: false })
  t.equal((await app.inject({ url: '/api/v1/auth/me', headers: authorization })).statusCode, 503)
  t.equal((await app.inject('/livez')).statusCode, 200)
})

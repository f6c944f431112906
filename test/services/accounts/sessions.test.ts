import t from 'tap'
import { createExpiredRowsPurge } from '../../../services/accounts/expired-rows.ts'
import { createSessionId } from '../../../services/accounts/access-tokens.ts'
import { createSessionService } from '../../../services/accounts/sessions.ts'
import { createApp, signUp } from '../../helpers/app.ts'
import { anyStores, onEachStore } from '../../helpers/stores.ts'
import { until } from '../../helpers/until.ts'

const options = { lifetimeSeconds: 86_400, tokenSeconds: 3600, maxPerUser: 100 }
const client = { address: '203.0.113.1', userAgent: 'a test' }

onEachStore(
  t,
  'a hash that was replaced after it was compared begins no session, and is not replaced again',
  async (t, stores) => {
    const app = await createApp(t, { stores })
    const { user } = await signUp(app)
    const sessions = createSessionService(app.database, options)
    t.ok(
      await sessions.create({ userId: user.id, passwordHash: 'none', ...client }),
      'the control: the hash is the present one'
    )
    t.equal(await app.services.users.replaceHash(user.id, 'none', 'changed'), true)
    t.equal(await sessions.create({ userId: user.id, passwordHash: 'none', ...client }), undefined)
    t.equal(await app.services.users.replaceHash(user.id, 'none', 'a re-hash of the old one'), false)
    t.strictSame((await app.pg.query('select password_hash from users where id = $1', [user.id])).rows, [{
      password_hash: 'changed'
    }])
    t.equal((await sessions.list(user.id, '')).length, 2, 'that of the control, and the one of the registration')
  }
)

onEachStore(
  t,
  'a session and its refresh token, newer than a restored database knows, end nothing and take nothing back',
  async (t, stores) => {
    const app = await createApp(t, { stores })
    const { user } = await signUp(app)
    const sessions = createSessionService(app.database, options)
    const { sid } = (await sessions.create({ userId: user.id, ...client }))!
    t.strictSame(
      await sessions.refresh({ sid, generation: 5 }, client),
      { kind: 'refused' },
      'a generation that the database does not know of'
    )
    t.match(
      await sessions.refresh({ sid, generation: 0 }, client),
      { kind: 'refreshed', session: { generation: 1 } },
      'the session goes on'
    )
    const [late, early] = [new Date(Date.now() + 60_000), new Date(Date.now() + 30_000)]
    await sessions.noteUse(new Map([[sid, late]]))
    await sessions.noteUse(new Map([[sid, early]]))
    t.equal(
      (await sessions.list(user.id, sid)).find(one => one.id === sid)!.last_used_at,
      late.toISOString(),
      'a use that is written late'
    )
  }
)

t.test('expired sessions, revocations, attempts and addresses are deleted, and nothing else is', async t => {
  const app = await createApp(t, { stores: anyStores() })
  const { user } = await signUp(app)
  const [over, living] = [createSessionId(), createSessionId()]
  await app.pg.query(
    `insert into sessions (id, user_id, expires_at, tokens_until, address, user_agent) values
    ($1, $3, now() - interval '1 second', now(), '', ''), ($2, $3, now() + interval '1 day', now(), '', '')`,
    [over, living, user.id]
  )
  await app.pg.query(
    `insert into revocations (session_id, user_id, until) values
    ($1, $3, now() - interval '1 second'), ($2, $3, now() + interval '1 day')`,
    [over, living, user.id]
  )
  await app.pg.query(
    "insert into login_attempts (key, last_at, running_at) values ('over', now() - interval '25 hours', now() - interval '25 hours'), ('living', now() - interval '23 hours', now() - interval '25 hours')"
  )
  await app.pg.query(
    "insert into known_addresses (user_id, address, last_at) values ($1, 'over', now() - interval '91 days'), ($1, 'living', now() - interval '89 days')",
    [user.id]
  )
  await createExpiredRowsPurge({ database: app.database }).run()
  const idsOf = async (column: string, table: string, values: unknown[]) =>
    (await app.pg.query<{ id: string }>(`select ${column} as id from ${table} where ${column} = any($1)`, [values]))
      .rows.map(row => row.id)
  t.strictSame(await idsOf('key', 'login_attempts', ['over', 'living']), ['living'])
  t.strictSame(await idsOf('id', 'sessions', [over, living]), [living])
  t.strictSame(await idsOf('session_id', 'revocations', [over, living]), [living])
  t.strictSame(await idsOf('address', 'known_addresses', ['over', 'living']), ['living'])
})

t.test('expired rows are purged periodically, and a failure does not stop it', async t => {
  let purges = 0
  const purge = createExpiredRowsPurge({
    periodMs: 2,
    database: {
      async query () {
        if (++purges === 1) throw new Error('away')
        return []
      }
    }
  })
  purge.start()
  await until('it is repeated', () => purges >= 3)
  purge.close()
})

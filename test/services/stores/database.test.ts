import type { Pool, PoolClient } from 'pg'
import t from 'tap'
import { createDatabase } from '../../../services/stores/database.ts'

t.test('a statement whose signal is aborted before it was sent is never sent', async t => {
  let sent = 0
  const client = {
    query: async () => {
      sent++
      return { rows: [] }
    },
    release: () => {}
  } as unknown as PoolClient
  const database = createDatabase({ pool: { connect: async () => client } as unknown as Pick<Pool, 'connect'> })
  await t.rejects(database.query({ name: 'a', text: 'select 1' }, [], AbortSignal.abort()), {
    code: 'service_unavailable'
  })
  t.equal(sent, 0)
  await database.query({ name: 'a', text: 'select 1' })
  t.equal(sent, 1)
})

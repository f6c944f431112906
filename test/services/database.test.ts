import type { Pool, PoolClient } from 'pg'
import t from 'tap'
import { createDatabase } from '../../services/database.ts'
import { Interest } from '../../services/interest.ts'

t.test('how long a statement took is told of those that were sent alone', async t => {
  const took: (number | undefined)[] = []
  const slots = { stats: { running: 0, waiting: 0, limit: 1 }, enter: async () => {}, leave: (ms: number | undefined) => { took.push(ms) } }
  const client = { query: async () => ({ rows: [] }), release: () => {} } as unknown as PoolClient
  const database = createDatabase({ pool: { connect: async () => client } as unknown as Pick<Pool, 'connect'>, slots })
  const interest = new Interest()
  interest.end()
  await t.rejects(database.query({ name: 'a', text: 'select 1' }, [], interest), { code: 'service_unavailable' })
  t.strictSame(took, [undefined])
  await database.query({ name: 'a', text: 'select 1' })
  t.type(took[1], 'number')
})

import t from 'tap'
import { createAdultAccess } from '../../../services/accounts/adult-access.ts'

t.test('while the database cannot tell who is an adult nobody is shown adult content', async t => {
  const viewers = createAdultAccess({
    gate: 'server',
    database: {
      query: async () => {
        throw new Error('away')
      }
    }
  })
  t.strictSame(await viewers.viewOf(1), { seesAll: false, ownerId: undefined })
  t.strictSame(viewers.peek(1), { seesAll: false, ownerId: undefined })
  t.equal((await viewers.viewOf(undefined)).seesAll, false, 'nor is who has no token')
  const open = createAdultAccess({
    gate: 'client',
    database: {
      query: async () => {
        throw new Error('away')
      }
    }
  })
  t.equal((await open.viewOf(1)).seesAll, true, 'where the client decides nobody is asked')
})

import t from 'tap'
import { createViewerService } from '../../services/viewers.ts'

t.test('while the database cannot tell who is an adult nobody is shown adult content', async t => {
  const viewers = createViewerService({ gate: 'server', database: { query: async () => { throw new Error('away') } } })
  t.strictSame(await viewers.viewOf(1), { seesAll: false, ownerId: undefined })
  t.strictSame(viewers.peek(1), { seesAll: false, ownerId: undefined })
  t.equal((await viewers.viewOf(undefined)).seesAll, false, 'nor is who has no token')
  const open = createViewerService({ gate: 'client', database: { query: async () => { throw new Error('away') } } })
  t.equal((await open.viewOf(1)).seesAll, true, 'where the client decides nobody is asked')
})

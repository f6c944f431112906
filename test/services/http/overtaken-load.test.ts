import t from 'tap'
import { createResponseCache, type LoadedResponse } from '../../../services/http/response-cache.ts'

t.test('a load that began before a write, and ends after the load of who has written, overwrites nothing', async t => {
  let time = 1000
  const cache = createResponseCache({ maxBytes: 1_000_000, now: () => time })
  const [before, after] = [Promise.withResolvers<LoadedResponse>(), Promise.withResolvers<LoadedResponse>()]
  const slow = cache.get('key', () => before.promise)
  time += 1
  const fresh = cache.get('key', () => after.promise, { isFresh: true })
  after.resolve({ body: 'what was written' })
  t.equal((await fresh).body, 'what was written')
  before.resolve({ body: 'what was there before' })
  t.equal((await slow).body, 'what was written', 'who asked before the write is told as well')
  t.equal(cache.peek('key')?.body, 'what was written')
})

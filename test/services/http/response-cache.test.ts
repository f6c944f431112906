import t from 'tap'
import { ApiError } from '../../../services/shared/errors.ts'
import { compressResponse, createResponseCache, type LoadedResponse } from '../../../services/http/response-cache.ts'
import { until } from '../../helpers/until.ts'

const away = new ApiError('service_unavailable')
const gone = new ApiError('not_found')

function scene (maxBytes = 1_000_000) {
  let time = 1000
  let loads = 0
  let fails: Error | undefined
  let says = 'a'
  const cache = createResponseCache({ maxBytes, now: () => time })
  const load = async (): Promise<LoadedResponse> => {
    loads++
    const [error, word] = [fails, says]
    await new Promise(resolve => setImmediate(resolve))
    if (error) throw error
    return { body: `${word}"as_of":"${time}"` }
  }
  return {
    cache,
    load,
    get: (options = {}) => cache.get('key', load, options),
    pass: (ms: number) => {
      time += ms
    },
    fail: (error: Error | undefined) => {
      fails = error
    },
    say: (word: string) => {
      says = word
    },
    loads: () => loads
  }
}

t.test('a thousand who ask at once are one load, also when it fails', async t => {
  const { get, loads, fail } = scene()
  const answers = await Promise.all(Array.from({ length: 1000 }, () => get()))
  t.equal(loads(), 1)
  t.equal(new Set(answers).size, 1)
  const other = scene()
  fail(gone)
  other.fail(gone)
  const refusals = await Promise.allSettled(Array.from({ length: 1000 }, () => other.get()))
  t.ok(refusals.every(one => one.status === 'rejected' && one.reason === gone))
  t.equal(other.loads(), 1)
})

t.test('an answer is renewed behind the scenes when half old, and never given when old', async t => {
  const { cache, get, pass, say, loads } = scene()
  t.equal((await get()).body, 'a"as_of":"1000"')
  pass(499)
  t.ok(cache.peek('key'))
  await get()
  t.equal(loads(), 1)
  say('b')
  pass(1)
  t.notOk(cache.peek('key'))
  t.equal((await get()).body, 'a"as_of":"1000"', 'nobody waits')
  await until('it is reloaded', async () => (await get()).body.toString().startsWith('b'))
  t.equal(loads(), 2)
  say('c')
  pass(950)
  t.match((await get()).body, /^c/, 'too old to be given')
})

t.test('the bytes and the tag stay while nothing but the time is new, for ten seconds', async t => {
  const { get, pass, say } = scene()
  const first = await get()
  pass(1000)
  const second = await get()
  t.equal(second.body, first.body)
  t.equal(second.etag, first.etag)
  t.ok(second.loadedAt > first.loadedAt)
  pass(9500)
  const third = await get()
  t.not(third.etag, first.etag, 'a time that old would be no news')
  say('b')
  pass(1000)
  t.not((await get()).etag, third.etag)
})

t.test('while its load fails because something is unavailable, what was known is given and says how old it is', async t => {
  const { cache, get, pass, fail, loads } = scene()
  const first = await get()
  fail(away)
  pass(2000)
  t.equal((await get()).body, first.body)
  t.equal(cache.overdueMs(await get()), 1050)
  const before = loads()
  for (let n = 0; n < 100; n++) await get()
  t.equal(loads(), before, 'and it is not asked for all the time')
  pass(300)
  await get()
  t.equal(loads(), before + 1)
  pass(10 * 60_000)
  await t.rejects(get(), away, 'but not for ever')
  fail(undefined)
  t.match((await get()).body, /^a/)
})

t.test('what is gone is not given any more', async t => {
  const { cache, get, pass, fail } = scene()
  await get()
  fail(gone)
  pass(600)
  await get()
  await new Promise(resolve => setTimeout(resolve, 5))
  await t.rejects(get(), gone)
  t.equal(cache.stats.entries, 0)
})

t.test('who has just written reads what is there now, and nobody reads something older afterwards', async t => {
  const { cache, get, load, pass, say, loads } = scene()
  await get()
  pass(600)
  const slow = cache.get('key', load)
  say('b')
  pass(1)
  t.match((await get({ isFresh: true })).body, /^b/)
  await slow
  await new Promise(resolve => setTimeout(resolve, 5))
  t.match((await get()).body, /^b/, 'the load that began before did not overwrite it')
  t.equal(loads(), 3)
  cache.forget('ke')
  t.notOk(cache.peek('key'))
})

t.test('memory is bounded in bytes, and what was loaded longest ago goes first', async t => {
  const { cache } = scene(10_000)
  const one = (name: string) => cache.get(name, async () => ({ body: 'x'.repeat(500) }))
  for (let n = 0; n < 20; n++) await one(`k${n}`)
  t.ok(cache.stats.bytes <= 10_000, String(cache.stats.bytes))
  t.ok(cache.stats.entries >= 2 && cache.stats.entries <= 3, String(cache.stats.entries))
  t.ok(cache.peek('k19'))
  t.notOk(cache.peek('k0'))
  cache.forget('')
  t.strictSame(cache.stats, { entries: 0, bytes: 0 })
  await cache.get('huge', async () => ({ body: 'x'.repeat(50_000) }))
  t.equal(cache.stats.entries, 0, 'what does not fit is answered and not kept')
})

t.test('an answer is compressed once, and a small one not at all', async t => {
  const { cache } = scene()
  const large = await cache.get('large', async () => ({ body: 'x'.repeat(5000) }))
  t.ok(large.isCompressible)
  const first = compressResponse(large)
  const running = large.compressing
  t.ok(running)
  const others = Array.from({ length: 200 }, () => compressResponse(large))
  t.equal(large.compressing, running, '200 requests at once wait for the first one')
  await Promise.all([first, ...others])
  t.ok(large.compressed!.length < 500)
  t.notOk((await cache.get('small', async () => ({ body: 'x' }))).isCompressible)
})

t.test('while somebody loads a half old answer, it is given to all others; an old one only instead of none, for ten seconds', async t => {
  const { cache, get, pass } = scene()
  await get()
  pass(600)
  t.notOk(cache.peek('key'), 'nobody loads')
  await get()
  t.ok(cache.peek('key'), 'it is being loaded')
  pass(400)
  t.notOk(cache.peek('key'), 'older than it may be')
  t.ok(cache.peekStale('key'))
  await new Promise(resolve => setImmediate(() => setImmediate(resolve)))
  const other = scene()
  await other.get()
  other.pass(9999)
  t.ok(other.cache.peekStale('key'))
  other.pass(1)
  t.notOk(other.cache.peekStale('key'))
})

t.test('a load is aborted when the last client that waits for it has left, and the next request begins another', async t => {
  const { cache } = scene()
  const seen: AbortSignal[] = []
  const ask = (isFresh: boolean, signal: AbortSignal): Promise<LoadedResponse> => {
    seen.push(signal)
    return new Promise((resolve, reject) => {
      signal.addEventListener('abort', () => {
        reject(away)
      })
    })
  }
  const [one, two] = [new AbortController(), new AbortController()]
  const answers = [one, two].map(client => cache.get('key', ask, { signal: () => client.signal }))
  t.equal(seen.length, 1)
  one.abort()
  t.notOk(seen[0]!.aborted)
  two.abort()
  t.ok(seen[0]!.aborted)
  const next = cache.get('key', async () => ({ body: 'next' }))
  t.strictSame((await Promise.allSettled(answers)).map(({ status }) => status), ['rejected', 'rejected'])
  t.equal((await next).body, 'next')

  await t.rejects(cache.get('other', ask, { signal: () => AbortSignal.abort() }), away)
  const client = new AbortController()
  cache.get('third', ask, { signal: () => client.signal }).catch(() => {})
  cache.get('third', ask).catch(() => {})
  client.abort()
  t.notOk(seen.at(-1)!.aborted, 'a client without a signal stays')
})

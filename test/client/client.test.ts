import { setTimeout as sleep } from 'node:timers/promises'
import t, { type Test } from 'tap'
import { createClient, HaloError, type ClientOptions, type TokenStorage } from '../../client/index.ts'
import { createApp, randomUser } from '../helpers/app.ts'
import { anyStores } from '../helpers/stores.ts'

/** A browser's storage, whose content a test can look at. */
function createStorage (): TokenStorage & { items: Map<string, string> } {
  const items = new Map<string, string>()
  return {
    items,
    getItem: key => items.get(key) ?? null,
    setItem (key, value) { items.set(key, value) },
    removeItem (key) { items.delete(key) }
  }
}

type Fault = (send: () => Promise<Response>) => Promise<Response>

/** A service, and clients of it whose requests can be counted and made to fail. */
async function scene (t: Test) {
  const app = await createApp(t, { stores: anyStores() })
  const baseUrl = await app.listen({ host: '127.0.0.1', port: 0 })
  const requests: string[] = []
  const faults: Fault[] = []
  const makeClient = (options: Partial<ClientOptions> = {}) =>
    createClient({
      baseUrl,
      async fetch (url, init) {
        requests.push(`${init?.method} ${String(url).slice(baseUrl.length + '/api/v1'.length)}`)
        const send = async (): Promise<Response> => await fetch(url, init)
        return await (faults.shift() ?? (one => one()))(send)
      },
      ...options
    })
  const requestsOf = (text: string) => requests.filter(one => one.includes(text)).length
  return { app, makeClient, requests, requestsOf, faults }
}

const offline: Fault = async () => { throw new TypeError('fetch failed') }
const answerLost: Fault = async send => {
  await send()
  throw new TypeError('fetch failed')
}
const page = (status: number): Fault => async () =>
  new Response('<html>Bad gateway</html>', { status, headers: { 'content-type': 'text/html' } })

/** Breaks what is stored of a session. */
function change (storage: ReturnType<typeof createStorage>, members: object): void {
  for (const [key, value] of storage.items) storage.items.set(key, JSON.stringify({ ...JSON.parse(value), ...members }))
}

t.test('a session outlives the app, and ends with logout', async t => {
  const { makeClient } = await scene(t)
  const storage = createStorage()
  const client = makeClient({ storage })
  t.equal(await client.session.ready(), null)
  const seen: (string | undefined)[] = []
  client.session.onChange(user => seen.push(user?.username))
  const person = randomUser()
  const user = await client.register(person)
  t.equal(client.session.user!.id, user.id)

  const restarted = makeClient({ storage })
  t.equal((await restarted.session.ready())!.id, user.id)
  t.match(await restarted.account.get(), { email: person.email })
  t.match(await restarted.account.update({ bio: 'Hello' }), { bio: 'Hello' })
  t.equal(restarted.session.user!.bio, 'Hello')
  t.equal((await restarted.account.sessions()).length, 1)

  await client.logout()
  t.equal(client.session.user, null)
  t.equal(storage.items.size, 0)
  t.strictSame(seen, [user.username, undefined])
  await t.rejects(client.account.get(), { name: 'HaloError', code: 'unauthorized', status: 401 })
  await t.rejects(restarted.account.get(), { code: 'unauthorized' }, 'the session has ended everywhere')
  t.equal(restarted.session.user, null)
})

t.test('100 calls at once with a token that has expired are one refresh', async t => {
  const { makeClient, requestsOf } = await scene(t)
  const storage = createStorage()
  await makeClient({ storage }).register(randomUser())

  for (const [name, broken] of Object.entries({ expired: { expires_at: 1 }, refused: { token: 'x.y.z' } })) {
    change(storage, broken)
    const before = requestsOf('/auth/refresh')
    const client = makeClient({ storage })
    const answers = await Promise.all(Array.from({ length: 100 }, () => client.account.get()))
    t.equal(answers.length, 100, name)
    t.equal(requestsOf('/auth/refresh'), before + 1, name)
  }
})

t.test('two tabs with an expired token refresh once, with and without Web Locks', async t => {
  const { makeClient, requestsOf } = await scene(t)
  const storage = createStorage()
  await makeClient({ storage }).register(randomUser())
  const tabs = [makeClient({ storage }), makeClient({ storage })]
  for (const tab of tabs) await tab.session.ready()
  change(storage, { token: 'x.y.z' })
  const late = makeClient({ storage })
  await late.session.ready()
  await Promise.all([...tabs, late].map(tab => tab.account.get()))
  t.equal(requestsOf('/auth/refresh'), 1)

  // Without Web Locks a tab that comes second finds the newer tokens in the storage.
  const locks = Object.getOwnPropertyDescriptor(globalThis, 'navigator')!
  Object.defineProperty(globalThis, 'navigator', { value: undefined, configurable: true })
  t.teardown(() => Object.defineProperty(globalThis, 'navigator', locks))
  change(storage, { token: 'x.y.z' })
  const [first, second] = [makeClient({ storage }), makeClient({ storage })]
  await Promise.all([first.session.ready(), second.session.ready()])
  await first.account.get()
  await second.account.get()
  t.equal(requestsOf('/auth/refresh'), 2)
})

t.test('a tab with older tokens does not store them over newer ones', async t => {
  const { makeClient } = await scene(t)
  const storage = createStorage()
  await makeClient({ storage }).register(randomUser())
  const old = makeClient({ storage })
  await old.session.ready()
  change(storage, { token: 'newer' })
  await old.account.update({ bio: 'Changed' })
  t.match([...storage.items.values()][0], /"token":"newer".*"bio":"Changed"/)
})

t.test('a clock that is an hour wrong, or jumps by an hour, logs nobody out', async t => {
  const { makeClient } = await scene(t)
  const { now } = Date
  t.teardown(() => { Date.now = now })
  for (const hours of [-1, 1]) {
    const storage = createStorage()
    const client = makeClient({ storage })
    await client.register(randomUser())
    // The service is in this process: only the time that the client has stored can be another one.
    change(storage, { expires_at: now() + (24 + hours) * 3_600_000 })
    t.ok(await makeClient({ storage }).account.get())
    change(storage, { expires_at: now() + hours * 3_600_000 })
    t.ok(await makeClient({ storage }).account.get(), 'after a sleep the token has expired, and is replaced')
  }
})

t.test('offline and back: what is safe to repeat is repeated, the rest fails at once', async t => {
  const { makeClient, faults, requestsOf } = await scene(t)
  const client = makeClient()
  const person = randomUser()
  await client.register(person)
  const video = await client.videos.publish({ title: 'A video' })

  faults.push(offline, offline, offline)
  t.equal((await client.videos.get(video.id)).id, video.id)
  faults.push(offline, offline)
  t.equal((await client.like(video.id)).like_count, 1)
  faults.push(offline)
  await t.rejects(client.login(person), { code: 'network_error', status: 0 })
  faults.push(answerLost)
  await t.rejects(client.account.changePassword({ current_password: 'correct horse', new_password: 'correct horse' }), {
    code: 'network_error'
  })
  const hasBeen = requestsOf('POST /auth/password')
  t.equal(hasBeen, 1, 'a change of password is never repeated')
  t.ok(await client.account.get(), 'and the user is still logged in')
})

t.test('a creation whose answer was lost happens once', async t => {
  const { makeClient, faults } = await scene(t)
  const client = makeClient()
  const person = randomUser()
  faults.push(answerLost)
  const user = await client.register(person)
  faults.push(answerLost, answerLost)
  const video = await client.videos.publish({ title: 'Once' })
  faults.push(answerLost)
  t.equal((await client.comment(video.id)).comment_count, 1)
  t.equal((await client.videos.list({ userId: user.id })).videos.length, 1)

  faults.push(answerLost)
  const key = 'a key that the app has stored'
  const second = await client.videos.publish({ title: 'Twice' }, { idempotencyKey: key })
  t.equal((await client.videos.publish({ title: 'Twice' }, { idempotencyKey: key })).id, second.id)
})

t.test('a refresh whose answer was lost, or for which the service is unavailable, ends no session', async t => {
  const { makeClient, faults, requestsOf } = await scene(t)
  const storage = createStorage()
  await makeClient({ storage }).register(randomUser())
  change(storage, { expires_at: 1 })
  faults.push(answerLost)
  const client = makeClient({ storage })
  t.ok(await client.account.get())
  t.equal(requestsOf('/auth/refresh'), 2)

  // Without an answer to the refresh, public pages work as for somebody who is not logged in.
  change(storage, { token: 'x.y.z', expires_at: 1 })
  const impatient = makeClient({ storage, retryForMs: 0 })
  faults.push(page(503))
  t.same(await impatient.videos.list(), { videos: [] })
  faults.push(page(503), send => send(), page(503))
  await t.rejects(impatient.account.get(), { code: 'unexpected_response', status: 503 })
  // A proxy that asks for a login of its own ends no session of ours.
  faults.push(page(401), send => send(), page(401))
  await t.rejects(impatient.account.get(), { code: 'unexpected_response', status: 401 })
  t.ok(impatient.session.user)
  t.ok(await impatient.account.get())
})

t.test('a call is never sent with the token of another user', async t => {
  const { makeClient, faults, requests } = await scene(t)
  const people = [randomUser(), randomUser()]
  for (const person of people) await makeClient().register(person)
  for (const hasLocks of [true, false]) {
    const navigator = Object.getOwnPropertyDescriptor(globalThis, 'navigator')!
    if (!hasLocks) Object.defineProperty(globalThis, 'navigator', { value: undefined, configurable: true })
    const storage = createStorage()
    const client = makeClient({ storage })
    await client.login(people[0]!)
    let refuse = (): void => {}
    faults.push(async () => {
      await new Promise<void>(resolve => { refuse = resolve })
      return new Response('{"error":"unauthorized","message":"no"}', { status: 401 })
    })
    const change = client.account.update({ bio: 'private text of the first user' })
    await sleep(20)
    await client.logout()
    await client.login(people[1]!)
    refuse()
    await t.rejects(change, { code: 'unauthorized' })
    t.equal((await client.account.get()).bio, '')
    t.equal(requests.filter(one => one.startsWith('PATCH')).length, 1)
    requests.length = 0

    // A refresh that ends after the login of somebody else changes nothing.
    await client.login(people[0]!)
    for (const [key, value] of storage.items) storage.items.set(key, JSON.stringify({ ...JSON.parse(value), token: 'x.y.z' }))
    const slow = makeClient({ storage })
    let answer = (): void => {}
    faults.push(send => send(), async send => {
      const response = await send()
      await new Promise<void>(resolve => { answer = resolve })
      return response
    })
    const first = slow.account.get().catch((error: unknown) => error)
    await sleep(100)
    const login = slow.login(people[1]!)
    await sleep(50)
    answer()
    await login
    await first
    t.equal(slow.session.user!.username, people[1]!.username, hasLocks ? 'with locks' : 'without locks')
    t.match([...storage.items.values()][0], people[1]!.username)
    Object.defineProperty(globalThis, 'navigator', navigator)
  }
})

t.test('a logout forgets the session at once, also while the service is out of reach', async t => {
  const { makeClient, faults } = await scene(t)
  const storage = createStorage()
  const client = makeClient({ storage, retryForMs: 300 })
  const person = randomUser()
  await client.register(person)
  for (let n = 0; n < 20; n++) faults.push(offline)
  const logout = client.logout()
  await sleep(10)
  t.equal(client.session.user, null)
  t.equal(storage.items.size, 0)
  await t.rejects(logout, { code: 'network_error' })
  faults.length = 0
  await client.login(person)
  t.ok(client.session.user)
  // A storage that does not answer holds nobody up.
  const silent = makeClient({ storage: { ...storage, setItem: async () => await new Promise(() => {}) } })
  await silent.login(person)
  t.ok(silent.session.user)
})

t.test('a service that answers 503 for some seconds, and pages of proxies', async t => {
  const { makeClient, faults, requests } = await scene(t)
  const client = makeClient()
  const until = Date.now() + 3000
  const unavailable: Fault = async send => {
    if (Date.now() > until) return await send()
    faults.unshift(unavailable)
    return new Response(JSON.stringify({ error: 'service_unavailable', message: 'Not now' }), {
      status: 503,
      headers: { 'retry-after': '1' }
    })
  }
  faults.push(unavailable)
  t.same(await client.videos.list(), { videos: [] })
  t.ok(requests.length >= 3 && requests.length <= 6, `Retry-After is kept to: ${requests.length} requests`)

  faults.push(page(502), page(504))
  t.same(await client.videos.list(), { videos: [] })
  faults.push(page(200))
  await t.rejects(client.videos.list(), { code: 'unexpected_response', status: 200 })
  faults.push(page(403))
  await t.rejects(client.videos.list(), { code: 'unexpected_response', status: 403 })

  const short = makeClient({ retryForMs: 200 })
  for (let n = 0; n < 50; n++) faults.push(page(503))
  await t.rejects(short.videos.list(), { code: 'unexpected_response', status: 503 })
  faults.length = 0
  const error = await client.videos.get(0).catch((error: unknown) => error)
  t.ok(error instanceof HaloError)
  t.match(error, { code: 'invalid_id', violations: [{ in: 'path', pointer: '/id' }], requestId: /./ })
})

t.test('a service that does not answer is a timeout, and a call that is aborted ends at once', async t => {
  const { makeClient } = await scene(t)
  const silent = makeClient({
    timeoutMs: 50,
    retryForMs: 0,
    fetch: async (url, init) =>
      await new Promise((resolve, reject) => {
        init!.signal!.addEventListener('abort', () => { reject(new DOMException('aborted', 'AbortError')) })
      })
  })
  await t.rejects(silent.videos.list(), { code: 'timeout' })
  await t.rejects(makeClient().videos.list({}, { signal: AbortSignal.abort(new Error('over')) }), { message: 'over' })
  const controller = new AbortController()
  const slow = makeClient({ fetch: offline as never })
  const listing = slow.videos.list({}, { signal: controller.signal })
  setTimeout(() => { controller.abort(new Error('the page was left')) }, 100)
  await t.rejects(listing, { message: 'the page was left' })
})

t.test('storage that throws costs nothing but the memory of it', async t => {
  const { makeClient, requestsOf } = await scene(t)
  const broken = makeClient({ storage: { getItem: fail, setItem: fail, removeItem: fail } })
  await broken.register(randomUser())
  t.ok(await broken.account.get())

  // Full after the first session: what is stored is older than what the client has.
  const storage = createStorage()
  const client = makeClient({ storage })
  const person = randomUser()
  await client.register(person)
  change(storage, { token: 'x.y.z' })
  const again = makeClient({ storage: { ...storage, setItem: fail } })
  for (let round = 0; round < 3; round++) t.ok(await again.account.get())
  t.equal(requestsOf('/auth/refresh'), 1)
  t.ok(again.session.user)

  const garbage = createStorage()
  garbage.getItem = () => '{"token":'
  t.equal(await makeClient({ storage: garbage }).session.ready(), null)
})

function fail (): never {
  throw new Error('QuotaExceededError')
}

t.test('async iteration reads each video once, over all pages', async t => {
  const { makeClient, requestsOf } = await scene(t)
  const client = makeClient()
  const user = await client.register(randomUser())
  for (let n = 0; n < 7; n++) await client.videos.publish({ title: `Video ${n}`, is_live: n % 2 === 0 })
  const titles = []
  for await (const video of client.videos.all({ limit: 3 })) titles.push(video.title)
  t.strictSame(titles, ['Video 6', 'Video 5', 'Video 4', 'Video 3', 'Video 2', 'Video 1', 'Video 0'])
  t.equal(requestsOf('GET /videos?'), 3)
  const live = []
  for await (const video of client.videos.all({ userId: user.id, live: true })) live.push(video.id)
  t.equal(live.length, 4)
  const few = client.videos.all({ limit: 2 })
  t.equal((await few.next()).value!.title, 'Video 6')
  await few.return(undefined)
  await sleep(50)
  t.equal(requestsOf('GET /videos?limit=2'), 1, 'only the pages that are wanted are read')
})

t.test('the whole account: password, other devices, deletion', async t => {
  const { makeClient } = await scene(t)
  const person = randomUser()
  const phone = makeClient()
  const laptop = makeClient()
  await phone.register(person)
  await laptop.login(person)
  const [other] = (await phone.account.sessions()).filter(one => !one.is_current)
  await phone.account.endSession(other!.id)
  await t.rejects(laptop.account.get(), { code: 'unauthorized' })
  await phone.account.changePassword({ current_password: person.password, new_password: 'correct horses' })
  await laptop.login({ email: person.email, password: 'correct horses' })
  await laptop.logoutAll()
  await phone.login({ email: person.email, password: 'correct horses' })
  t.match(await phone.users.get(phone.session.user!.id), { username: person.username })
  await t.rejects(phone.account.delete('wrong'), { code: 'wrong_password' })
  await phone.account.delete('correct horses')
  t.equal(phone.session.user, null)
})

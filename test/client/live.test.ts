import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import t, { type Test } from 'tap'
import { createClient, type ClientOptions, type HaloError, type LiveCounters } from '../../client/index.ts'
import { createEventParser } from '../../client/event-stream.ts'
import { createHeartbeats } from '../../client/heartbeats.ts'
import { createApp, randomUser } from '../helpers/app.ts'
import { anyStores } from '../helpers/stores.ts'
import { until } from '../helpers/until.ts'

async function scene (t: Test) {
  const app = await createApp(t, { stores: anyStores() })
  const baseUrl = await app.listen({ host: '127.0.0.1', port: 0 })
  const makeClient = (options: Partial<ClientOptions> = {}) => {
    const client = createClient({ baseUrl, ...options })
    t.teardown(client.close)
    return client
  }
  const owner = makeClient()
  await owner.register(randomUser())
  const video = await owner.videos.publish({ title: 'A stream', is_live: true })
  return { app, baseUrl, makeClient, owner, video }
}

t.test('who watches counts until they stop, each client of a user for itself', async t => {
  const { makeClient, owner, video } = await scene(t)
  const person = randomUser()
  const phone = makeClient()
  const laptop = makeClient()
  await phone.register(person)
  await laptop.login(person)

  const seen: (number | null)[] = []
  const stopPhone = phone.watch(video.id, { onCounters: counters => seen.push(counters.live_viewers) })
  const stopAgain = phone.watch(video.id)
  await until('a heartbeat', () => seen.length > 0)
  t.equal(seen[0], 1)
  const stopLaptop = laptop.watch(video.id)
  const viewers = async () => (await owner.counters(video.id)).live_viewers
  await sleep(300)
  stopPhone()
  stopPhone()
  await sleep(200)
  t.equal(await viewers(), 1, 'watched twice by one client')
  stopAgain()
  await sleep(200)
  t.equal(await viewers(), 1, 'the laptop still watches')
  stopLaptop()
  await until('nobody watches', async () => await viewers() === 0)

  const stopForGood = phone.watch(video.id)
  await until('the phone watches', async () => await viewers() === 1)
  await phone.logout()
  t.equal(await viewers(), 0, 'who logs out has left')
  await phone.login(person)
  await until('the phone watches again', async () => await viewers() === 1)
  stopForGood()

  const errors: unknown[] = []
  const stop = makeClient().watch(video.id, { onError: error => errors.push(error) })
  await until('an error', () => errors.length > 0)
  t.match(errors, [{ code: 'unauthorized' }], 'nobody is logged in')
  stop()
})

t.test('a hidden page pauses where it was asked to, a page that is left says so, and one that comes back goes on', async t => {
  const document = new EventTarget() as EventTarget & { visibilityState: string }
  document.visibilityState = 'visible'
  const page = new EventTarget()
  const names = ['document', 'addEventListener', 'removeEventListener'] as const
  const before = names.map(name => Object.getOwnPropertyDescriptor(globalThis, name))
  Object.assign(globalThis, {
    document,
    addEventListener: page.addEventListener.bind(page),
    removeEventListener: page.removeEventListener.bind(page)
  })
  t.teardown(() => {
    for (const [index, name] of names.entries()) {
      if (before[index]) Object.defineProperty(globalThis, name, before[index])
      else Reflect.deleteProperty(globalThis, name)
    }
  })
  const calls: string[] = []
  const { watch, beatNow } = createHeartbeats({
    intervalMs: 50,
    async beat (id) {
      calls.push(`beat ${id}`)
      return {} as never
    },
    async leave (id) { calls.push(`leave ${id}`) }
  })
  const show = (visibilityState: string): void => {
    document.visibilityState = visibilityState
    document.dispatchEvent(new Event('visibilitychange'))
  }
  const stopVideo = watch(1, { pauseWhileHidden: true })
  const stopAudio = watch(2)
  await until('three beats', () => calls.filter(call => call === 'beat 1').length >= 3)
  show('hidden')
  t.ok(calls.includes('leave 1'))
  const paused = calls.length
  await until('the audio goes on', () => calls.slice(paused).filter(call => call === 'beat 2').length >= 3)
  beatNow()
  await until('the audio beats for the next user', () => calls.slice(paused).filter(call => call === 'beat 2').length >= 5)
  t.notOk(calls.slice(paused).includes('beat 1'), 'the hidden video, after a login too')
  t.notOk(calls.includes('leave 2'), 'audio goes on')
  show('visible')
  const shown = calls.length
  await until('it beats again', () => calls.slice(shown).includes('beat 1'))

  page.dispatchEvent(new Event('pagehide'))
  t.strictSame(calls.slice(-2).sort(), ['leave 1', 'leave 2'])
  const left = calls.length
  await sleep(150)
  t.equal(calls.length, left)
  page.dispatchEvent(new Event('pageshow'))
  await until('both beat again', () => calls.slice(left).includes('beat 1') && calls.slice(left).includes('beat 2'))
  stopVideo()
  stopAudio()
  const stopped = calls.length
  await sleep(150)
  t.strictSame(calls.slice(stopped), [], 'nothing is sent after the end')
})

t.test('the counters of one video arrive as they change, and tabs share one stream', async t => {
  const { app, makeClient, owner, video } = await scene(t)
  const tabs = [makeClient(), makeClient(), makeClient()]
  const seen: LiveCounters[][] = tabs.map(() => [])
  const stops = tabs.map((tab, index) => tab.subscribe(video.id, counters => seen[index]!.push(counters)))
  await until('all tabs have events', () => seen.every(events => events.length > 0))
  t.equal(app.services.streams.stats.listeners, 1)
  await owner.like(video.id)
  await until('the like arrives', () => seen.every(events => events.at(-1)!.like_count === 1))

  // The tab that has the stream is closed: another one takes over.
  stops[0]!()
  await until('another tab takes over', () => app.services.streams.stats.listeners === 1)
  await owner.comment(video.id)
  await until('the comment arrives', () => seen.slice(1).every(events => events.at(-1)!.comment_count === 1))
  t.equal(seen[0]!.at(-1)!.comment_count, 0, 'who has stopped hears nothing')
  for (const stop of stops) stop()
  await until('the stream ends', () => app.services.streams.stats.listeners === 0)
})

t.test('several videos are read together, and a deleted video ends', async t => {
  const { app, makeClient, owner, video } = await scene(t)
  const second = await owner.videos.publish({ title: 'Another' })
  const batches: string[] = []
  const client = makeClient({
    async fetch (url, init) {
      if (String(url).includes('ids=')) batches.push(String(url))
      return await fetch(url, init)
    }
  })
  const likes = new Map<number, number>()
  // Without it, as in React Native, this client follows by itself.
  const channel = Object.getOwnPropertyDescriptor(globalThis, 'BroadcastChannel')!
  Object.defineProperty(globalThis, 'BroadcastChannel', { value: undefined, configurable: true, writable: true })
  t.teardown(() => Object.defineProperty(globalThis, 'BroadcastChannel', channel))
  const states: boolean[] = []
  const onConnection = (isConnected: boolean): void => { states.push(isConnected) }
  const alone = client.subscribe(video.id, () => {}, { onConnection })
  await until('the stream of one video', () => app.services.streams.stats.listeners === 1)
  const stops = [video, second].map(({ id }) => client.subscribe(id, counters => likes.set(id, counters.like_count)))
  await owner.like(second.id)
  await until('both videos are read', () => likes.get(video.id) === 0 && likes.get(second.id) === 1)
  t.equal(app.services.streams.stats.listeners, 0)
  t.strictSame(states, [], 'a second video is no loss of the connection')
  alone()
  t.ok(batches.some(url => decodeURIComponent(url).endsWith(`ids=${video.id},${second.id}`)))
  const ended: string[] = []
  client.subscribe(second.id, () => {}, { onEnd: why => ended.push(why) })
  client.subscribe(999_999, () => {}, { onError: one => ended.push((one as HaloError).code) })
  await until('the missing video', () => ended.includes('not_found'))
  await owner.videos.delete(second.id)
  await until('the deleted video', () => ended.includes('unavailable'))
  stops[1]!()

  let reason: string | undefined
  client.subscribe(video.id, () => {}, { onEnd: why => { reason = why } })
  await until('a stream', () => app.services.streams.stats.listeners === 1)
  await owner.videos.delete(video.id)
  await until('the end', () => reason !== undefined)
  t.equal(reason, 'deleted')
  let error: unknown
  client.subscribe(video.id, () => {}, { onError: one => { error = one } })
  await until('an error', () => error !== undefined)
  t.match(error, { code: 'not_found' })
})

t.test('older numbers never follow newer ones, and a subscriber who comes later has the newest at once', async t => {
  const { makeClient, owner, video } = await scene(t)
  const held: (() => void)[] = []
  const client = makeClient({
    async fetch (url, init) {
      const response = await fetch(url, init)
      // The first poll was answered before the like, and arrives after it.
      if (String(url).includes('ids=') && held.length === 0) await new Promise<void>(resolve => held.push(resolve))
      return response
    }
  })
  const seen: number[] = []
  client.subscribe(video.id, counters => seen.push(counters.like_count))
  await until('the poll is held, and the stream has begun', () => held.length === 1 && seen.length > 0)
  await owner.like(video.id)
  await until('the like', () => seen.at(-1) === 1)
  held[0]!()
  await sleep(200)
  t.equal(seen.at(-1), 1)
  const later: number[] = []
  client.subscribe(video.id, counters => later.push(counters.like_count))
  await sleep(50)
  t.strictSame(later, [1])
})

t.test('a callback that throws is reported, and stops nobody else', async t => {
  const { makeClient, owner, video } = await scene(t)
  const errors: unknown[] = []
  const { setTimeout: setTimer } = globalThis
  // What is thrown in a timer would end the process of the test.
  globalThis.setTimeout = ((work: () => void, ms?: number) => setTimer(() => {
    try {
      work()
    } catch (error) {
      errors.push(error)
    }
  }, ms)) as never
  t.teardown(() => { globalThis.setTimeout = setTimer })
  const client = makeClient()
  const seen: number[] = []
  client.subscribe(video.id, () => { throw new Error('a mistake in the app') })
  client.subscribe(video.id, counters => seen.push(counters.like_count))
  await owner.like(video.id)
  await until('the other one', () => seen.at(-1) === 1)
  t.match(errors[0], { message: 'a mistake in the app' })
  client.session.onChange(() => { throw new Error('another mistake') })
  t.ok(await client.register(randomUser()), 'a login is not undone by it')
  await until('the other mistake', () => errors.some(error => (error as Error).message === 'another mistake'))
})

t.test('a subscriber is told when the connection is lost and when it is back', async t => {
  const { makeClient, video } = await scene(t)
  let isOffline = false
  const client = makeClient({
    pollMs: 50,
    async fetch (url, init) {
      if (isOffline) throw new TypeError('fetch failed')
      return String(url).endsWith('/stream') ? new Response('', { status: 502 }) : await fetch(url, init)
    }
  })
  const states: boolean[] = []
  let count = 0
  client.subscribe(video.id, () => { count++ }, { onConnection: isConnected => states.push(isConnected) })
  await until('polls', () => count > 2 && states.at(-1) !== false)
  isOffline = true
  await until('lost', () => states.at(-1) === false)
  isOffline = false
  await until('back', () => states.at(-1) === true)
})

t.test('a stream that is cut in an event or in a character reconnects where it was', async t => {
  const { makeClient, owner, video } = await scene(t)
  const encoder = new TextEncoder()
  const event = (id: string, likes: number): string =>
    `id: ${id}\nevent: counters\ndata: {"live_viewers":1,"like_count":${likes},"comment_count":0,"view_count":0,"counters":{"stale":false,"as_of":null},"note":"é"}\n\n`
  const whole = encoder.encode(event('a', 1))
  const cut = encoder.encode(event('b', 2))
  const middle = cut.indexOf(0xc3) + 1
  const known: (string | undefined)[] = []
  const streams = [
    [whole.slice(0, 30), whole.slice(30), cut.slice(0, 40)],
    [cut.slice(0, middle), cut.slice(middle)],
    [cut.slice(0, middle)]
  ]
  const client = makeClient({
    async fetch (url, init) {
      if (!String(url).endsWith('/stream')) return await fetch(url, init)
      known.push((init!.headers as Record<string, string>)['last-event-id'])
      const pieces = streams.shift()
      if (!pieces) return await fetch(url, init)
      return new Response(
        new ReadableStream({
          async start (controller) {
            for (const piece of pieces) {
              controller.enqueue(piece)
              await sleep(5)
            }
            controller.error(new TypeError('terminated'))
          }
        }),
        { headers: { 'content-type': 'text/event-stream' } }
      )
    }
  })
  const seen: number[] = []
  client.subscribe(video.id, counters => seen.push(counters.like_count))
  await until('the second event', () => seen.includes(2))
  await owner.like(video.id)
  await until('the reconnections', () => known.length >= 4 && seen.at(-1) === 1)
  t.strictSame(known.slice(0, 4), [undefined, 'a', 'b', 'b'])
})

t.test('a proxy that holds the stream back is replaced by polls', async t => {
  const { makeClient, owner, video } = await scene(t)
  for (const answer of [
    () => new Response('<html>welcome</html>', { headers: { 'content-type': 'text/html' } }),
    () => Object.defineProperty(new Response('x', { headers: { 'content-type': 'text/event-stream' } }), 'body', { value: null })
  ]) {
    const client = makeClient({
      fetch: async (url, init) => String(url).endsWith('/stream') ? answer() : await fetch(url, init)
    })
    const before = (await owner.counters(video.id)).comment_count
    let comments = -1
    const stop = client.subscribe(video.id, counters => { comments = counters.comment_count })
    await until('a poll', () => comments === before)
    await owner.comment(video.id)
    await until('the comment is seen', () => comments === before + 1)
    stop()
  }
})

t.test('the parser of events takes every line end, cuts at any place, and skips what is unknown', async t => {
  const text = '\ufeff: hello\r\nid: 1\r\nevent: counters\r\ndata: {"a":\r\ndata:1}\r\n\r\n' +
    'data: two\n\nid: 3\0\nunknown: x\nretry: 2500\nretry: soon\ndata\n\nid: 4\rdata: mac\r\rid: 5\n\ndata: cut off'
  for (let size = 1; size < text.length; size++) {
    const events: string[] = []
    const parser = createEventParser(({ type, data }) => events.push(`${type} ${data}`))
    for (let start = 0; start < text.length; start += size) parser.push(text.slice(start, start + size))
    t.strictSame(events, ['counters {"a":\n1}', 'message two', 'message ', 'message mac'], `pieces of ${size}`)
    t.equal(parser.lastEventId, '5')
    t.equal(parser.retryMs, 2500)
  }
  const parser = createEventParser(() => {})
  t.throws(() => {
    for (let n = 0; n < 20; n++) parser.push('x'.repeat(100_000))
  }, /without an end/)
})

t.test('an environment as React Native’s: no streams, no EventSource, no AbortSignal.timeout', async t => {
  const { baseUrl, owner, video } = await scene(t)
  const child = spawn(process.execPath, [join(import.meta.dirname, 'react-native.ts'), baseUrl, String(video.id)], {
    stdio: ['ignore', 'pipe', 'inherit']
  })
  let output = ''
  child.stdout.on('data', data => { output += String(data) })
  await until('the app follows', () => output.includes('following'))
  await owner.like(video.id)
  const [code] = await once(child, 'exit') as [number]
  t.equal(code, 0)
  t.match(output, /viewers 1/)
  t.match(output, /likes 1/)
  t.match(output, /done/)
})

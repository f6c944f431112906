import { once } from 'node:events'
import http from 'node:http'
import type { AddressInfo } from 'node:net'
import t, { type Test } from 'tap'
import { addVideo, createApp, signUp, type App } from '../helpers/app.ts'
import { createFaultyProxy } from '../helpers/faulty-proxy.ts'
import { hasProblem } from '../helpers/problem.ts'
import { availableStores, didNotRun, needsRedis, onEachStore, type Stores } from '../helpers/stores.ts'

interface Event {
  id?: string
  event?: string
  data?: Record<string, unknown>
  retry?: string
  comment?: string
}

/** A reader of Server-Sent Events (WHATWG HTML §9.2), as strict as the specification. */
class EventReader {
  readonly events: Event[] = []
  readonly response: http.IncomingMessage
  isEnded = false
  #rest = ''

  constructor (response: http.IncomingMessage) {
    this.response = response
    response.setEncoding('utf8').on('data', (text: string) => {
      const blocks = (this.#rest + text).split('\n\n')
      this.#rest = blocks.pop()!
      this.events.push(...blocks.map(parse))
    }).on('end', () => {
      this.isEnded = true
    }).on('error', () => {
      this.isEnded = true
    })
  }

  static async open (t: Test, app: App, path: string, headers: Record<string, string> = {}): Promise<EventReader> {
    const { port } = app.server.address() as AddressInfo
    const request = http.get({
      port,
      path: `/api/v1/videos/${path}`,
      headers: { accept: 'text/event-stream', ...headers },
      agent: false
    })
    t.teardown(() => request.destroy())
    request.on('error', () => {})
    const [response] = await once(request, 'response') as [http.IncomingMessage]
    return new EventReader(response)
  }

  async until (condition: (events: Event[]) => boolean, ms = 4000): Promise<void> {
    const deadline = Date.now() + ms
    while (!condition(this.events)) {
      if (Date.now() > deadline) throw new Error(`not within ${ms} ms; there came ${JSON.stringify(this.events)}`)
      await new Promise(resolve => setTimeout(resolve, 10))
    }
  }
}

function parse (block: string): Event {
  const event: Event = {}
  for (const line of block.split('\n')) {
    const [, field, value] = /^([a-z]*): ?(.*)$/.exec(line) ?? []
    if (field === '') event.comment = value!
    else if (field === 'data') event.data = JSON.parse(value!) as Record<string, unknown>
    else if (field === 'id' || field === 'event' || field === 'retry') event[field] = value!
    else throw new Error(`no such field: ${line}`)
  }
  return event
}

async function setUp (t: Test, stores: Stores, options: Partial<Parameters<typeof createApp>[1]> = {}) {
  const app = await createApp(t, { stores, ...options })
  await app.listen({ host: '127.0.0.1', port: 0 })
  const owner = await signUp(app)
  return { app, owner, id: await addVideo(app, owner.user.id) }
}

onEachStore(
  t,
  'a listener gets the counters at once and then each change, at most once a second',
  async (t, stores) => {
    const { app, owner, id } = await setUp(t, stores)
    const reader = await EventReader.open(t, app, `${id}/engagement/stream`, { origin: 'https://app.example' })
    t.equal(reader.response.statusCode, 200)
    t.match(reader.response.headers, {
      'content-type': 'text/event-stream; charset=utf-8',
      'cache-control': 'no-cache, no-transform',
      'access-control-allow-origin': '*',
      'x-request-id': /./,
      'x-content-type-options': 'nosniff'
    })
    await reader.until(events => events.length === 1)
    t.match(reader.events[0], {
      id: '0.0.0.0',
      event: 'counters',
      data: { live_viewers: 0, like_count: 0, counters: { stale: false } }
    })
    await new Promise(resolve => setTimeout(resolve, 1200))
    t.equal(reader.events.length, 1, 'nothing changed, nothing is said')
    const startedAt = Date.now()
    for (let n = 0; n < 50; n++) {
      await app.inject({
        method: 'POST',
        url: `/api/v1/videos/${id}/engagement/comments`,
        headers: owner.authorization
      })
    }
    await reader.until(events => events.at(-1)!.data!['comment_count'] === 50)
    t.ok(
      reader.events.length - 1 <= Math.ceil((Date.now() - startedAt) / 1000) + 1,
      `${reader.events.length - 1} events`
    )
  }
)

onEachStore(t, 'a listener who comes back with Last-Event-ID is not told again what it knows', async (t, stores) => {
  const { app, owner, id } = await setUp(t, stores)
  const like = await app.inject({
    method: 'POST',
    url: `/api/v1/videos/${id}/engagement/likes`,
    headers: owner.authorization
  })
  t.equal(like.statusCode, 200)
  const first = await EventReader.open(t, app, `${id}/engagement/stream`)
  await first.until(events => events.length === 1)
  const lastEventId = first.events[0]!.id!
  const again = await EventReader.open(t, app, `${id}/engagement/stream`, { 'last-event-id': lastEventId })
  await again.until(events => events.length === 1)
  t.strictSame(again.events, [{ comment: 'ping' }])
  for (const other of ['', '0', 'x'.repeat(5000), 'é']) {
    const reader = await EventReader.open(t, app, `${id}/engagement/stream`, {
      'last-event-id': Buffer.from(other).toString('latin1')
    })
    await reader.until(events => events[0]?.id === lastEventId)
  }
})

onEachStore(t, 'a stream with a duration ends by itself', async (t, stores) => {
  const app = await createApp(t, { stores })
  await app.listen({ host: '127.0.0.1', port: 0 })
  const { user } = await signUp(app)
  const id = await addVideo(app, user.id)
  const startedAt = performance.now()
  const reader = await EventReader.open(t, app, `${id}/engagement/stream?duration=1`)
  await once(reader.response, 'end')
  const ms = performance.now() - startedAt
  t.ok(ms > 900 && ms < 10_000, `ended after ${ms.toFixed(0)} ms`)
  t.equal(reader.events[0]!.event, 'counters')
  t.equal(app.services.streams.stats.listeners, 0)
  for (const duration of ['0', '3601', '1e1', 'x']) {
    const answer = await app.inject(`/api/v1/videos/${id}/engagement/stream?duration=${duration}`)
    hasProblem(t, answer, 'invalid_request', { message: /.+/ }, duration)
  }
})

onEachStore(t, 'a stream of no video is refused, and that of a deleted one ends', async (t, stores) => {
  const { app, id } = await setUp(t, stores)
  hasProblem(t, await app.inject(`/api/v1/videos/${id + 1}/engagement/stream`), 'not_found', { message: /./ })
  hasProblem(t, await app.inject('/api/v1/videos/0/engagement/stream'), 'invalid_id')
  const reader = await EventReader.open(t, app, `${id}/engagement/stream`)
  await reader.until(events => events.length === 1)
  await app.pg.query('delete from videos where id = $1', [id])
  await reader.until(() => reader.isEnded)
  t.match(reader.events.at(-1), { event: 'end', data: { reason: 'deleted' } })
  t.equal(app.services.streams.stats.listeners, 0)
})

onEachStore(t, 'a closing service sends its listeners away, each for another while', async (t, stores) => {
  const { app, id } = await setUp(t, stores)
  const readers = await Promise.all(
    Array.from({ length: 20 }, () => EventReader.open(t, app, `${id}/engagement/stream`))
  )
  await Promise.all(readers.map(reader => reader.until(events => events.length === 1)))
  t.equal(app.services.streams.stats.listeners, 20)
  await app.close()
  await Promise.all(readers.map(reader => reader.until(() => reader.isEnded)))
  const retries = readers.map(reader => Number(reader.events.at(-1)!.retry))
  t.ok(retries.every(ms => ms >= 1000 && ms <= 6000), String(retries))
  t.ok(new Set(retries).size > 10, 'not all at once')
})

onEachStore(t, 'many listeners of a video cost one read a second, and a slow one is dropped', async (t, stores) => {
  const { app, owner, id } = await setUp(t, stores)
  const slow = await EventReader.open(t, app, `${id}/engagement/stream`)
  slow.response.pause()
  const readers = await Promise.all(
    Array.from({ length: 50 }, () => EventReader.open(t, app, `${id}/engagement/stream`))
  )
  let reads = 0
  const { read } = app.counters.store
  app.counters.store.read = (...args) => {
    reads++
    return read(...args)
  }
  await new Promise(resolve => setTimeout(resolve, 2500))
  t.ok(reads >= 2 && reads <= 3, `${reads} reads in 2.5 s`)

  // What the kernel takes is large: the sink of the slow one is told to be full.
  let isFull = false
  const sinks = readers.length + 1
  t.equal(app.services.streams.stats.listeners, sinks)
  const removed = app.services.streams.add({
    write: () => {},
    end: () => {},
    destroy: () => {
      isFull = true
    },
    writableLength: 1_000_000
  }, (await app.counters.engagement.counters([id]))[0]!)
  await app.inject({ method: 'POST', url: `/api/v1/videos/${id}/engagement/likes`, headers: owner.authorization })
  await readers[0]!.until(events => events.at(-1)!.data?.['like_count'] === 1)
  t.ok(isFull, 'dropped')
  t.equal(app.services.streams.stats.dropped, 1)
  removed()
  t.ok(readers.every(reader => !reader.isEnded), 'the others go on')
})

t.test('a listener is told that the counters are stale when Redis is unavailable, and that they are not when it is back', async t => {
  const stores = availableStores().find((one): one is Stores & { redisUrl: string } => one.redisUrl !== null)
  if (!stores) return didNotRun(t, needsRedis)
  const proxy = await createFaultyProxy(t, stores.redisUrl, 6379)
  const { app, owner, id } = await setUp(t, stores, { redisUrl: proxy.url })
  await app.inject({ method: 'POST', url: `/api/v1/videos/${id}/engagement/likes`, headers: owner.authorization })
  await app.counters.flusher.flush({ isForced: true })
  const reader = await EventReader.open(t, app, `${id}/engagement/stream`)
  await reader.until(events => events[0]?.data?.['like_count'] === 1)
  await proxy.refuse()
  await reader.until(events => events.at(-1)!.data?.['live_viewers'] === null)
  t.match(reader.events.at(-1), { data: { like_count: 1, live_viewers: null, counters: { stale: true, as_of: /Z$/ } } })
  await proxy.forward()
  await reader.until(events => events.at(-1)!.data?.['live_viewers'] === 0, 8000)
  t.match(reader.events.at(-1), { data: { like_count: 1, counters: { stale: false } } })
})

onEachStore(t, 'a listener who leaves while the counters are still being read is not kept', async (t, stores) => {
  const { app, id } = await setUp(t, stores)
  const { read } = app.counters.store
  app.counters.store.read = async (...args) => {
    await new Promise(resolve => setTimeout(resolve, 150))
    return await read(...args)
  }
  const { port } = app.server.address() as AddressInfo
  const requests = Array.from(
    { length: 10 },
    () => http.get({ port, path: `/api/v1/videos/${id}/engagement/stream`, agent: false }).on('error', () => {})
  )
  await new Promise(resolve => setTimeout(resolve, 60))
  for (const request of requests) request.destroy()
  await new Promise(resolve => setTimeout(resolve, 400))
  t.equal(app.services.streams.stats.listeners, 0)
  const stays = await EventReader.open(t, app, `${id}/engagement/stream`)
  await stays.until(events => events.length === 1)
  t.equal(app.services.streams.stats.listeners, 1, 'the control')
})

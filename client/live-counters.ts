import { callback, environment, exclusively, sleep, type Channel } from './environment.ts'
import { HaloError } from './errors.ts'
import { createEventParser } from './event-stream.ts'
import type { components } from './schema.ts'
import { toError, unexpected, type Call, type Transport } from './transport.ts'

export type LiveCounters = components['schemas']['CountersEvent']
type CountersOfVideo = components['schemas']['CountersOfVideo']

export interface SubscribeOptions {
  /** Called with `deleted` when the video was deleted; with `unavailable` when it was, or is not for this user now. */
  onEnd?: (reason: string) => void
  /** Called when the video does not exist, or is not for this user. The subscription has ended. */
  onError?: (error: unknown) => void
  /** Called with false when the connection is lost and the numbers stand still, and with true when they move again. */
  onConnection?: (isConnected: boolean) => void
}

export interface LiveCountersOptions {
  transport: Transport
  token: () => Promise<string | undefined>
  countersOf: (videoIds: number[], call: Partial<Call>) => Promise<CountersOfVideo[]>
  /** Milliseconds between two polls (2,000). */
  pollMs?: number
  /** Milliseconds without a byte after which a stream is taken for broken (45,000): the service pings every 15 s. */
  silenceMs?: number
}

type Subscriber = SubscribeOptions & { onCounters: (counters: LiveCounters) => void }

/** What the tab that follows a video tells the others. `alive`: the connection works, and nothing has changed. */
type Message = { counters: LiveCounters } | { end: string } | 'alive' | 'lost'

interface Followed {
  subscribers: Set<Subscriber>
  /** The counters that were delivered last. */
  last: LiveCounters | undefined
  isConnected: boolean
}

/** Streams that fail in succession before polls take their place. */
const maxFailures = 2

/** Milliseconds, connecting included, without a first byte: then a proxy holds the stream back. */
const firstEventMs = 5000

/** Bounds in milliseconds of the wait before a stream is opened again, whatever the service or a proxy says. */
const minWaitMs = 1000
const maxWaitMs = 60_000

/** Milliseconds for which a broken stream is replaced by polls, before it is tried again. */
const pollForMs = 60_000

/**
 * Follows the counters of videos. One video is followed by an event stream, which the tabs of an origin share where
 * the browser has Web Locks and BroadcastChannel; several videos, or one without a stream, are polled together.
 */
export function createLiveCounters (options: LiveCountersOptions) {
  const { transport, token, countersOf, pollMs = 2000, silenceMs = 45_000 } = options
  const videos = new Map<number, Followed>()
  let running: AbortController | undefined

  function deliver (videoId: number, message: Message): void {
    const followed = videos.get(videoId)
    if (!followed) return
    const { subscribers } = followed
    if (followed.isConnected !== (message !== 'lost')) {
      followed.isConnected = message !== 'lost'
      for (const { onConnection } of [...subscribers]) callback(onConnection, followed.isConnected)
    }
    if (typeof message === 'string') return
    if ('end' in message) {
      forget(videoId)
      for (const { onEnd } of subscribers) callback(onEnd, message.end)
      return
    }
    // A poll and the stream may answer in any order.
    const asOf = message.counters.counters.as_of ?? ''
    if (asOf !== '' && asOf < (followed.last?.counters.as_of ?? '')) return
    followed.last = message.counters
    // A copy: a callback may subscribe and unsubscribe.
    for (const { onCounters } of [...subscribers]) callback(onCounters, message.counters)
  }

  function fail (videoId: number, error: unknown): void {
    const followed = videos.get(videoId)
    forget(videoId)
    for (const { onError } of followed?.subscribers ?? []) callback(onError, error)
  }

  /** The set of videos decides between a stream and polls: each change of it begins again. */
  function forget (videoId: number): void {
    if (videos.delete(videoId)) restart()
  }

  /** Begins again with the videos that there are now. */
  function restart (): void {
    running?.abort()
    running = undefined
    if (videos.size === 0) return
    const controller = running = new AbortController()
    const { signal } = controller
    // Several subscriptions of one moment make one start.
    Promise.resolve().then(() => {
      if (signal.aborted) return
      const ids = [...videos.keys()]
      return ids.length === 1 ? share(ids[0]!, signal) : poll(ids, signal)
    }).catch(() => {
      // Aborted.
    })
  }

  /** Follows one video for all tabs, or listens to the tab that does. */
  async function share (videoId: number, signal: AbortSignal): Promise<void> {
    const name = `halo:counters:${transport.base}:${videoId}`
    const { BroadcastChannel, navigator } = environment
    if (!BroadcastChannel || !navigator?.locks) {
      return await follow(videoId, signal, message => { deliver(videoId, message) })
    }
    let channel: Channel
    try {
      channel = new BroadcastChannel(name)
    } catch {
      // Denied, like storage: this tab follows by itself.
      return await follow(videoId, signal, message => { deliver(videoId, message) })
    }
    let heardAt = Date.now()
    channel.onmessage = ({ data }) => {
      heardAt = Date.now()
      deliver(videoId, data as Message)
    }
    signal.addEventListener('abort', () => { channel.close() })
    // The stream's first event goes to the tab that has the stream: this one asks for its first numbers. It also asks
    // when that tab is silent, because the browser may have suspended it.
    const askWhenSilent = async (): Promise<void> => {
      await pollOnce([videoId], signal)
      for (;;) {
        await sleep(silenceMs / 4, signal)
        if (Date.now() - heardAt > silenceMs) await pollOnce([videoId], signal)
      }
    }
    askWhenSilent().catch(() => {})
    // One tab holds the lock and follows. The others wait here, and one of them takes over when that tab is closed.
    await exclusively(name, () => follow(videoId, signal, message => {
      heardAt = Date.now()
      channel.postMessage(message)
      deliver(videoId, message)
    }), signal)
  }

  /** Reads the event stream of a video again and again, and polls while there is none. */
  async function follow (videoId: number, signal: AbortSignal, emit: (message: Message) => void): Promise<void> {
    let lastEventId = ''
    let failures = 0
    while (!signal.aborted) {
      let waitMs = minWaitMs
      let hasEvents = false
      let isUnsupported = false
      try {
        await readStream(videoId, signal, lastEventId, (message, id, retryMs) => {
          hasEvents = true
          lastEventId = id
          waitMs = Math.min(Math.max(retryMs ?? 0, minWaitMs), maxWaitMs)
          emit(message)
        })
      } catch (error) {
        if (error instanceof HaloError && [400, 403, 404].includes(error.status)) return fail(videoId, error)
        if (error instanceof HaloError) {
          waitMs = Math.min(Math.max(waitMs, (error.retryAfter ?? 0) * 1000), maxWaitMs)
          isUnsupported = error.code === 'unexpected_response' && error.status === 200
        }
      }
      // Not lost: it begins again, with other videos or for another user.
      if (signal.aborted) return
      failures = hasEvents ? 0 : isUnsupported ? maxFailures : failures + 1
      if (failures < maxFailures) {
        emit('lost')
        await sleep(waitMs + Math.random() * 1000, signal)
        continue
      }
      const until = performance.now() + pollForMs
      while (performance.now() < until) {
        const found = await countersOf([videoId], { signal, retryForMs: 0 }).catch(() => undefined)
        if (!found) emit('lost')
        else if (found.length === 0) return emit({ end: 'unavailable' })
        else emit({ counters: toCounters(found[0]!) })
        await sleep(pollMs, signal)
      }
    }
  }

  /** Reads one event stream to its end. @throws HaloError or the error of fetch */
  async function readStream (
    videoId: number,
    signal: AbortSignal,
    lastEventId: string,
    onMessage: (message: Message, id: string, retryMs: number | undefined) => void
  ): Promise<void> {
    const controller = new AbortController()
    const onAbort = (): void => { controller.abort() }
    signal.addEventListener('abort', onAbort)
    let timer = setTimeout(onAbort, firstEventMs)
    try {
      const bearer = await token()
      const response = await transport.request({
        path: `/videos/${videoId}/engagement/stream`,
        headers: { accept: 'text/event-stream', 'last-event-id': lastEventId || undefined },
        ...bearer === undefined ? {} : { token: bearer }
      }, controller.signal)
      if (!response.ok) throw toError(response, await response.text())
      // React Native's fetch has no streams, and some proxies answer with a page of their own.
      if (!response.body?.getReader || !response.headers.get('content-type')?.startsWith('text/event-stream')) {
        throw unexpected(response)
      }
      const reader = response.body.getReader()
      const decoder = new TextDecoder()
      const parser = createEventParser(({ type, data }) => {
        const message = messageOf(type, data)
        if (message) onMessage(message, parser.lastEventId, parser.retryMs)
      }, lastEventId)
      for (;;) {
        const { done, value } = await reader.read()
        if (done) return
        clearTimeout(timer)
        timer = setTimeout(onAbort, silenceMs)
        parser.push(decoder.decode(value, { stream: true }))
        onMessage('alive', parser.lastEventId, parser.retryMs)
      }
    } finally {
      clearTimeout(timer)
      signal.removeEventListener('abort', onAbort)
      controller.abort()
    }
  }

  /** Reads the counters of videos once. @returns the ids that the service knows; undefined when it did not answer */
  async function pollOnce (ids: number[], signal: AbortSignal): Promise<Set<number> | undefined> {
    const found = await countersOf(ids, { signal, retryForMs: 0 }).catch(() => undefined)
    if (signal.aborted) return
    for (const one of found ?? []) deliver(one.video_id, { counters: toCounters(one) })
    if (!found) for (const id of ids) deliver(id, 'lost')
    return found && new Set(found.map(one => one.video_id))
  }

  async function poll (ids: number[], signal: AbortSignal): Promise<void> {
    const seen = new Set<number>()
    while (!signal.aborted) {
      const found = await pollOnce(ids, signal)
      for (const videoId of found ? ids : []) {
        if (found!.has(videoId)) seen.add(videoId)
        else if (seen.has(videoId)) deliver(videoId, { end: 'unavailable' })
        else fail(videoId, new HaloError({ code: 'not_found', status: 404, message: `There is no video ${videoId}` }))
      }
      await sleep(pollMs, signal)
    }
  }

  return {
    /** Follows the counters of a video. @returns a function that ends it */
    subscribe (
      videoId: number,
      onCounters: (counters: LiveCounters) => void,
      options: SubscribeOptions = {}
    ): () => void {
      const subscriber: Subscriber = { ...options, onCounters }
      const others = videos.get(videoId)
      if (others) {
        const { subscribers, last } = others
        subscribers.add(subscriber)
        // It need not wait for the next change.
        if (last) Promise.resolve().then(() => { if (subscribers.has(subscriber)) callback(onCounters, last) })
      } else {
        videos.set(videoId, { subscribers: new Set([subscriber]), last: undefined, isConnected: true })
        restart()
      }
      return () => {
        const followed = videos.get(videoId)
        if (followed?.subscribers.delete(subscriber) && followed.subscribers.size === 0) forget(videoId)
      }
    },

    /** Begins again, for another user. */
    restart,

    /** Ends all subscriptions. */
    close (): void {
      videos.clear()
      restart()
    }
  }
}

/** The counters as an event of the stream has them: without the id and without `liked`, which no event has. */
function toCounters ({ video_id: _id, liked: _liked, ...counters }: CountersOfVideo): LiveCounters {
  return counters
}

/** Events of a later version, and what is no event of the service, are ignored. */
function messageOf (type: string, data: string): Message | undefined {
  try {
    const value = JSON.parse(data)
    if (type === 'end' && typeof value.reason === 'string') return { end: value.reason }
    if (type === 'counters' && typeof value.counters === 'object') return { counters: value }
  } catch {}
}

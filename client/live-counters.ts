import { environment, exclusively, sleep, type Channel } from './environment.ts'
import { HaloError } from './errors.ts'
import { createEventParser } from './event-stream.ts'
import type { components } from './schema.ts'
import { toError, type Call, type Transport } from './transport.ts'

export type LiveCounters = components['schemas']['CountersEvent']
type CountersOfVideo = components['schemas']['CountersOfVideo']

export interface SubscribeOptions {
  /** Called when the video was deleted. */
  onEnd?: (reason: string) => void
  /** Called when the video cannot be followed: it does not exist, or is not for this user. */
  onError?: (error: unknown) => void
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

/** What tabs tell each other; null: the stream is alive. */
type Message = { counters: LiveCounters } | { end: string } | null

/** Milliseconds without a first event after which a stream is taken for one that a proxy holds back. */
const firstEventMs = 5000

/** Milliseconds for which a broken stream is replaced by polls, before it is tried again. */
const pollForMs = 60_000

/**
 * Follows the counters of videos. One video is followed by an event stream, which the tabs of an origin share where
 * the browser has Web Locks and BroadcastChannel; several videos, or one without a stream, are polled together.
 */
export function createLiveCounters (options: LiveCountersOptions) {
  const { transport, token, countersOf, pollMs = 2000, silenceMs = 45_000 } = options
  const videos = new Map<number, Set<Subscriber>>()
  let running: AbortController | undefined

  function deliver (videoId: number, message: Message): void {
    for (const one of videos.get(videoId) ?? []) {
      if (message && 'counters' in message) one.onCounters(message.counters)
      else if (message) one.onEnd?.(message.end)
    }
    if (message && 'end' in message) forget(videoId)
  }

  function fail (videoId: number, error: unknown): void {
    for (const one of videos.get(videoId) ?? []) one.onError?.(error)
    forget(videoId)
  }

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
      const [videoId] = videos.keys()
      return videos.size === 1 ? share(videoId!, signal) : poll([...videos.keys()], signal)
    }).catch(() => {})
  }

  /** Follows one video for all tabs, or listens to the tab that does. */
  async function share (videoId: number, signal: AbortSignal): Promise<void> {
    const name = `halo:counters:${transport.base}:${videoId}`
    const { BroadcastChannel, navigator } = environment
    if (!BroadcastChannel || !navigator?.locks) {
      return await follow(videoId, signal, message => { deliver(videoId, message) })
    }
    const channel: Channel = new BroadcastChannel(name)
    let heardAt = Date.now()
    channel.onmessage = ({ data }) => {
      heardAt = Date.now()
      deliver(videoId, data as Message)
    }
    signal.addEventListener('abort', () => { channel.close() })
    // A browser may suspend the tab that has the stream: then this one asks by itself.
    const watch = async (): Promise<void> => {
      await pollOnce([videoId], signal)
      for (;;) {
        await sleep(silenceMs / 4, signal)
        if (Date.now() - heardAt > silenceMs) await pollOnce([videoId], signal)
      }
    }
    watch().catch(() => {})
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
      let waitMs = 1000
      let hasEvents = false
      let isUnsupported = false
      try {
        await readStream(videoId, signal, lastEventId, (message, id, retryMs) => {
          hasEvents = true
          lastEventId = id
          waitMs = retryMs ?? waitMs
          emit(message)
        })
      } catch (error) {
        if (error instanceof HaloError && [400, 403, 404].includes(error.status)) return fail(videoId, error)
        if (error instanceof HaloError) {
          waitMs = Math.max(waitMs, (error.retryAfter ?? 0) * 1000)
          isUnsupported = error.status === 200
        }
      }
      failures = hasEvents ? 0 : isUnsupported ? 2 : failures + 1
      if (failures < 2) {
        await sleep(waitMs * (0.5 + Math.random()), signal)
        continue
      }
      const until = Date.now() + pollForMs
      while (Date.now() < until) {
        const [counters] = await countersOf([videoId], { signal, retryForMs: 0 }).catch(() => [])
        emit(counters ? { counters } : null)
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
        throw new HaloError({ code: 'unexpected_response', message: 'There is no event stream', status: 200 })
      }
      const reader = response.body.getReader()
      const decoder = new TextDecoder()
      const parser = createEventParser(({ type, data }) => {
        const value = JSON.parse(data)
        onMessage(type === 'end' ? { end: value.reason } : { counters: value }, parser.lastEventId, parser.retryMs)
      }, lastEventId)
      for (;;) {
        const { done, value } = await reader.read()
        if (done) return
        clearTimeout(timer)
        timer = setTimeout(onAbort, silenceMs)
        parser.push(decoder.decode(value, { stream: true }))
        onMessage(null, parser.lastEventId, parser.retryMs)
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
    for (const { video_id: videoId, ...counters } of found ?? []) deliver(videoId, { counters })
    return found && new Set(found.map(one => one.video_id))
  }

  async function poll (ids: number[], signal: AbortSignal): Promise<void> {
    const seen = new Set<number>()
    while (!signal.aborted) {
      const found = await pollOnce(ids, signal)
      for (const videoId of found ? ids : []) {
        if (found!.has(videoId)) seen.add(videoId)
        else if (seen.has(videoId)) deliver(videoId, { end: 'deleted' })
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
      if (others) others.add(subscriber)
      else {
        videos.set(videoId, new Set([subscriber]))
        restart()
      }
      return () => {
        const rest = videos.get(videoId)
        if (!rest?.delete(subscriber) || rest.size > 0) return
        videos.delete(videoId)
        restart()
      }
    },

    /** Ends all subscriptions. */
    close (): void {
      videos.clear()
      restart()
    }
  }
}

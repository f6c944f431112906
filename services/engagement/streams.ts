import type { Counters, CountersOfVideo } from '../../schemas/engagement.ts'
import { ApiError } from '../shared/errors.ts'

/** Where events go: an HTTP response after its head, in Node's words. */
export interface EventSink {
  write (bytes: Buffer): unknown
  end (bytes?: Buffer): unknown
  destroy (): unknown
  /** Bytes that the client has not taken yet. */
  readonly writableLength: number
}

export interface EngagementStreamsOptions {
  /** The counters of those videos that exist. */
  read: (videoIds: number[]) => Promise<CountersOfVideo[]>
  /** Milliseconds between two events of a video. */
  periodMs?: number
  /** Milliseconds between two comments that keep proxies and clients from giving up. */
  pingMs?: number
  /** Listeners of this process; one more is refused, so that memory is bounded. */
  maxListeners?: number
  /** Listeners of one client address at this process. */
  maxPerClient?: number
}

/** Bytes that a listener may leave lying; whoever is slower is dropped and comes back for the newest numbers. */
const maxBacklog = 16 * 1024

/** Videos that are read in one round trip. */
const pageSize = 100

interface Event { id: string, bytes: Buffer }

interface Channel {
  /** Those who listen, and the id of the event that each has. */
  sinks: Map<EventSink, string>
  event: Event | undefined
}

export type EngagementStreams = ReturnType<typeof createEngagementStreams>

/**
 * Server-Sent Events with the counters of videos: each video that somebody listens to is read once a second,
 * its event is written down once, and the same bytes go to all who listen.
 */
export function createEngagementStreams (options: EngagementStreamsOptions) {
  const { read, periodMs = 1000, pingMs = 15_000, maxListeners = 20_000, maxPerClient = 500 } = options
  const channels = new Map<number, Channel>()
  /** Listeners by client address. */
  const clients = new Map<string, number>()
  let listeners = 0
  let dropped = 0
  let timer: NodeJS.Timeout | undefined
  let pingedAt = performance.now()

  function schedule (): void {
    timer ??= setTimeout(() => {
      timer = undefined
      tick().finally(() => { if (channels.size > 0) schedule() })
    }, periodMs)
  }

  async function tick (): Promise<void> {
    const isPing = performance.now() - pingedAt >= pingMs
    if (isPing) pingedAt = performance.now()
    const videoIds = [...channels.keys()]
    for (let start = 0; start < videoIds.length; start += pageSize) {
      const page = videoIds.slice(start, start + pageSize)
      // With both stores away nothing can be said; what was said last stands.
      const counters = await read(page).catch(() => undefined)
      const found = new Map(counters?.map(one => [one.video_id, one]))
      for (const videoId of page) {
        const channel = channels.get(videoId)
        if (!channel) continue
        const now = found.get(videoId)
        const event = now && toEvent(now)
        if (counters && !event) endAll(channel, endEvent('deleted'))
        else if (event && event.id !== channel.event?.id) {
          channel.event = event
          for (const [sink, lastId] of channel.sinks) {
            // Whoever has just come has it already.
            if (lastId !== event.id && send(sink, event.bytes)) channel.sinks.set(sink, event.id)
          }
        } else if (isPing) for (const sink of channel.sinks.keys()) send(sink, ping)
      }
    }
  }

  function send (sink: EventSink, bytes: Buffer): boolean {
    if (sink.writableLength > maxBacklog) {
      dropped++
      sink.destroy()
      return false
    }
    sink.write(bytes)
    return true
  }

  function endAll (channel: Channel, bytes: Buffer): void {
    for (const sink of channel.sinks.keys()) sink.end(bytes)
  }

  return {
    /** Listeners now, and those that were dropped because they were too slow. */
    get stats () { return { listeners, dropped } },

    /** @throws ApiError `server_busy` when the process is full; `rate_limit_exceeded` when the client has its share */
    requireRoom (client: string): void {
      if (listeners >= maxListeners) throw new ApiError('server_busy')
      if ((clients.get(client) ?? 0) < maxPerClient) return
      throw new ApiError('rate_limit_exceeded', {
        message: `This address may hold ${maxPerClient} event streams open; close one first`, retryAfter: 10, violatedPolicies: ['streams']
      })
    },

    /**
     * Adds a listener. It gets the given counters at once, unless it has them already.
     *
     * @param client its address
     * @param lastEventId what the client says it saw last
     * @returns what takes the listener out again
     */
    add (sink: EventSink, counters: CountersOfVideo, { client = '', lastEventId }: { client?: string, lastEventId?: string | undefined } = {}): () => void {
      const videoId = counters.video_id
      const event = toEvent(counters)
      const channel = channels.get(videoId) ?? { sinks: new Map(), event }
      channels.set(videoId, channel)
      channel.sinks.set(sink, event.id)
      listeners++
      clients.set(client, (clients.get(client) ?? 0) + 1)
      sink.write(event.id === lastEventId ? ping : event.bytes)
      schedule()
      return () => {
        if (!channel.sinks.delete(sink)) return
        listeners--
        const others = clients.get(client)! - 1
        if (others > 0) clients.set(client, others)
        else clients.delete(client)
        if (channel.sinks.size === 0) channels.delete(videoId)
      }
    },

    /** Sends one listener away, to come back to another process. */
    sendAway (sink: EventSink): void { sink.end(retryEvent()) },

    /** Sends everybody away: each comes back, to another process, at a moment of its own within some seconds. */
    close (): void {
      clearTimeout(timer)
      for (const channel of channels.values()) {
        for (const sink of channel.sinks.keys()) sink.end(retryEvent())
      }
    }
  }
}

const ping = Buffer.from(': ping\n\n')

/**
 * The id says all that can change, so that any process can tell whether a client that comes back has it: no
 * process remembers what it sent.
 */
function toEvent (counters: Counters): Event {
  const { live_viewers: live, like_count: likes, comment_count: comments, view_count: views, counters: { stale } } = counters
  const id = `${live ?? '-'}.${likes}.${comments}.${views}${stale ? '.stale' : ''}`
  const data = JSON.stringify({ live_viewers: live, like_count: likes, comment_count: comments, view_count: views, counters: counters.counters })
  return { id, bytes: Buffer.from(`id: ${id}\nevent: counters\ndata: ${data}\n\n`) }
}

const endEvent = (reason: string): Buffer => Buffer.from(`event: end\ndata: {"reason":"${reason}"}\n\n`)

/** One to six seconds, for each client another: ten thousand that come back at once would be an attack. */
const retryEvent = (): Buffer => Buffer.from(`retry: ${1000 + Math.floor(Math.random() * 5000)}\n\n`)

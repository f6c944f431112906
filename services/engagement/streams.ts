import type { Counters, CountersOfVideo } from '../../schemas/engagement.ts'
import { ApiError } from '../shared/errors.ts'

/** Receiver of events: an HTTP response whose head has been sent. */
export interface EventSink {
  write (bytes: Buffer): unknown
  end(bytes?: Buffer): unknown
  destroy(): unknown
  /** Bytes that are buffered for the client. */
  readonly writableLength: number
}

export interface EngagementStreamsOptions {
  /** Reads the counters of the videos that exist. */
  read: (videoIds: number[]) => Promise<CountersOfVideo[]>
  /** Milliseconds between two events of a video. */
  periodMs?: number
  /** Milliseconds between two keep-alive comments. */
  pingMs?: number
  /** Maximum listeners of this process. */
  maxListeners?: number
  /** Maximum listeners of one client address on this process. */
  maxPerClient?: number
}

/** Buffered bytes beyond which a slow listener is dropped; its client reconnects and gets the newest counters. */
const maxBacklog = 16 * 1024

/** Videos per round trip. */
const pageSize = 100

interface Event {
  id: string
  bytes: Buffer
}

interface Channel {
  /** The listeners, each with the id of the last event that it was sent. */
  sinks: Map<EventSink, string>
  event: Event | undefined
}

export type EngagementStreams = ReturnType<typeof createEngagementStreams>

/**
 * Server-Sent Events with the counters of videos: each video with listeners is read once a second, its event is
 * serialised once, and the same bytes go to all its listeners.
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
      tick().finally(() => {
        if (channels.size > 0) schedule()
      })
    }, periodMs)
  }

  async function tick (): Promise<void> {
    const isPing = performance.now() - pingedAt >= pingMs
    if (isPing) pingedAt = performance.now()
    const videoIds = [...channels.keys()]
    for (let start = 0; start < videoIds.length; start += pageSize) {
      const page = videoIds.slice(start, start + pageSize)
      // With both stores unavailable no event is sent; the last one stays valid.
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
            // A new listener has it already.
            if (lastId !== event.id && send(sink, event.bytes)) channel.sinks.set(sink, event.id)
          }
        } else if (isPing) { for (const sink of channel.sinks.keys()) send(sink, ping) }
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
    /** Present listeners, and listeners that were dropped because they were too slow. */
    get stats () {
      return { listeners, dropped }
    },

    /** Checks the limits. @throws ApiError `server_busy` (process); `rate_limit_exceeded` (client address) */
    requireRoom (client: string): void {
      if (listeners >= maxListeners) throw new ApiError('server_busy')
      if ((clients.get(client) ?? 0) < maxPerClient) return
      throw new ApiError('rate_limit_exceeded', {
        message: `This address may hold ${maxPerClient} event streams open; close one first`,
        retryAfter: 10,
        violatedPolicies: ['streams']
      })
    },

    /**
     * Adds a listener and sends it the given counters, unless it has them already.
     *
     * @param client its address
     * @param lastEventId the client's Last-Event-ID
     * @returns a function that removes the listener
     */
    add (
      sink: EventSink,
      counters: CountersOfVideo,
      { client = '', lastEventId }: { client?: string, lastEventId?: string | undefined } = {}
    ): () => void {
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

    /** Ends one stream: its client reconnects to another process. */
    sendAway (sink: EventSink): void {
      sink.end(retryEvent())
    },

    /** Ends all streams: each client reconnects to another process, at a random moment within some seconds. */
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
 * The id contains everything that can change, so that any process can tell whether a client that reconnects has the
 * event: no process stores what it has sent.
 */
function toEvent (counters: Counters): Event {
  const { live_viewers: live, like_count: likes, comment_count: comments, view_count: views, counters: { stale } } =
    counters
  const id = `${live ?? '-'}.${likes}.${comments}.${views}${stale ? '.stale' : ''}`
  const data = JSON.stringify({
    live_viewers: live,
    like_count: likes,
    comment_count: comments,
    view_count: views,
    counters: counters.counters
  })
  return { id, bytes: Buffer.from(`id: ${id}\nevent: counters\ndata: ${data}\n\n`) }
}

const endEvent = (reason: string): Buffer => Buffer.from(`event: end\ndata: {"reason":"${reason}"}\n\n`)

/** One to six seconds, random for each client: ten thousand that reconnect at once would overload the service. */
const retryEvent = (): Buffer => Buffer.from(`retry: ${1000 + Math.floor(Math.random() * 5000)}\n\n`)

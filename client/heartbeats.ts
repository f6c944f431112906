import { callback, environment } from './environment.ts'
import type { components } from './schema.ts'

type Counters = components['schemas']['Counters']

export interface WatchOptions {
  /** Called with the counters that each heartbeat is answered with. */
  onCounters?: (counters: Counters) => void
  /** Called when a heartbeat fails; the next one is sent all the same. */
  onError?: (error: unknown) => void
  /** Whether a hidden page stops watching. Leave it out for audio and picture-in-picture, which go on. */
  pauseWhileHidden?: boolean
}

export interface Heartbeats {
  beat (videoId: number, signal: AbortSignal): Promise<Counters>
  /** Says that this client has stopped watching; the request outlives the page. @param token of a user who logs out */
  leave (videoId: number, token?: string): Promise<unknown>
  /** Milliseconds between two heartbeats (15,000). */
  intervalMs?: number
}

interface Watched {
  watchers: Set<WatchOptions>
  /** Undefined while it is paused. */
  timer: ReturnType<typeof setTimeout> | undefined
  beating: AbortController | undefined
}

/** Sends heartbeats for the videos that this client watches. A video that is watched twice is sent once. */
export function createHeartbeats ({ beat, leave, intervalMs = 15_000 }: Heartbeats) {
  const watched = new Map<number, Watched>()

  const isHidden = (): boolean => environment.document?.visibilityState === 'hidden'

  /** Whether the page is hidden, and everybody who watches a video in it pauses then. */
  const isPaused = (watchers: Set<WatchOptions>): boolean =>
    isHidden() && [...watchers].every(({ pauseWhileHidden }) => pauseWhileHidden)

  function schedule (videoId: number, delayMs: number): void {
    const one = watched.get(videoId)
    if (!one) return
    clearTimeout(one.timer)
    const timer = one.timer = setTimeout(() => {
      send(videoId, one).finally(() => {
        // Unless it was paused, stopped or hurried meanwhile.
        if (watched.get(videoId) === one && one.timer === timer) schedule(videoId, intervalMs)
      })
    }, delayMs)
  }

  async function send (videoId: number, one: Watched): Promise<void> {
    const { signal } = one.beating = new AbortController()
    try {
      const counters = await beat(videoId, signal)
      for (const { onCounters } of [...one.watchers]) callback(onCounters, counters)
    } catch (error) {
      if (signal.aborted) return
      for (const { onError } of [...one.watchers]) callback(onError, error)
    }
  }

  /** Stops the heartbeats of a video. @returns whether there were any */
  function halt (videoId: number): boolean {
    const one = watched.get(videoId)
    if (one?.timer === undefined) return false
    clearTimeout(one.timer)
    one.timer = undefined
    // A heartbeat that arrives after the departure would count for another 45 seconds.
    one.beating?.abort()
    return true
  }

  async function pause (videoId: number, token?: string): Promise<void> {
    if (halt(videoId)) await leave(videoId, token).catch(() => {})
  }

  const onHide = (): void => { for (const videoId of watched.keys()) pause(videoId) }

  function resume (): void {
    for (const [videoId, { watchers, timer }] of watched) {
      if (isPaused(watchers)) pause(videoId)
      else if (timer === undefined) schedule(videoId, 0)
    }
  }

  function listen (): void {
    environment.document?.addEventListener('visibilitychange', resume)
    environment.addEventListener?.('pagehide', onHide)
    environment.addEventListener?.('pageshow', resume)
  }

  function stopListening (): void {
    environment.document?.removeEventListener('visibilitychange', resume)
    environment.removeEventListener?.('pagehide', onHide)
    environment.removeEventListener?.('pageshow', resume)
  }

  function watch (videoId: number, options: WatchOptions = {}): () => void {
    if (watched.size === 0) listen()
    let one = watched.get(videoId)
    if (!one) {
      one = { watchers: new Set(), timer: undefined, beating: undefined }
      watched.set(videoId, one)
    }
    // An object of its own, so that the same options can be given twice.
    const watcher = { ...options }
    one.watchers.add(watcher)
    if (!isPaused(one.watchers)) schedule(videoId, 0)
    return () => {
      if (!one.watchers.delete(watcher) || one.watchers.size > 0) return
      pause(videoId)
      watched.delete(videoId)
      if (watched.size === 0) stopListening()
    }
  }

  return {
    /** Begins to watch a video. @returns a function that stops it; the last one of a video tells the service */
    watch,
    /** Says with the token of a user who logs out that they have left all videos. */
    async leaveAll (token: string): Promise<void> {
      await Promise.all([...watched.keys()].map(videoId => pause(videoId, token)))
    },
    /** Stops without a word: there is nobody who could say it. */
    haltAll (): void {
      for (const videoId of watched.keys()) halt(videoId)
    },
    /** Leaves all videos and forgets them. */
    close (): void {
      onHide()
      watched.clear()
      stopListening()
    },
    /** Sends a heartbeat for each video now, for a user who has just logged in. */
    beatNow (): void {
      for (const [videoId, { watchers }] of watched) if (!isPaused(watchers)) schedule(videoId, 0)
    }
  }
}

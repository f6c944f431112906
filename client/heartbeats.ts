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
  beat (videoId: number): Promise<Counters>
  /** Says that this client has stopped watching; the request outlives the page. */
  leave (videoId: number): Promise<unknown>
  /** Milliseconds between two heartbeats (15,000). */
  intervalMs?: number
}

/** Sends heartbeats for the videos that this client watches. A video that is watched twice is sent once. */
export function createHeartbeats ({ beat, leave, intervalMs = 15_000 }: Heartbeats) {
  const watched = new Map<number, { watchers: Set<WatchOptions>, timer: ReturnType<typeof setTimeout> | undefined }>()

  const isHidden = (): boolean => environment.document?.visibilityState === 'hidden'

  function schedule (videoId: number, delayMs: number): void {
    const one = watched.get(videoId)
    if (!one) return
    clearTimeout(one.timer)
    one.timer = setTimeout(() => {
      send(videoId).finally(() => {
        // Unless it was paused or stopped meanwhile.
        if (watched.get(videoId) === one && one.timer !== undefined) schedule(videoId, intervalMs)
      })
    }, delayMs)
  }

  async function send (videoId: number): Promise<void> {
    const watchers = watched.get(videoId)?.watchers ?? []
    try {
      const counters = await beat(videoId)
      for (const { onCounters } of watchers) callback(onCounters, counters)
    } catch (error) {
      for (const { onError } of watchers) callback(onError, error)
    }
  }

  async function pause (videoId: number): Promise<void> {
    const one = watched.get(videoId)
    if (one?.timer === undefined) return
    clearTimeout(one.timer)
    one.timer = undefined
    await leave(videoId).catch(() => {})
  }

  const pauseAll = async (): Promise<void> => { await Promise.all([...watched.keys()].map(pause)) }

  function resume (): void {
    for (const [videoId, { watchers, timer }] of watched) {
      const pauses = [...watchers].every(({ pauseWhileHidden }) => pauseWhileHidden)
      if (isHidden() && pauses) pause(videoId)
      else if (timer === undefined) schedule(videoId, 0)
    }
  }

  function listen (): void {
    environment.document?.addEventListener('visibilitychange', resume)
    environment.addEventListener?.('pagehide', pauseAll)
    environment.addEventListener?.('pageshow', resume)
  }

  function stopListening (): void {
    environment.document?.removeEventListener('visibilitychange', resume)
    environment.removeEventListener?.('pagehide', pauseAll)
    environment.removeEventListener?.('pageshow', resume)
  }

  function watch (videoId: number, options: WatchOptions = {}): () => void {
    if (watched.size === 0) listen()
    let one = watched.get(videoId)
    if (!one) {
      one = { watchers: new Set(), timer: undefined }
      watched.set(videoId, one)
    }
    // An object of its own, so that the same options can be given twice.
    const watcher = { ...options }
    one.watchers.add(watcher)
    if (!(isHidden() && options.pauseWhileHidden)) schedule(videoId, 0)
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
    /** Stops watching without forgetting what was watched, while the user can still say so. */
    pauseAll,
    /** Sends a heartbeat for each video now, for a user who has just logged in. */
    beatNow (): void {
      for (const videoId of watched.keys()) schedule(videoId, 0)
    }
  }
}

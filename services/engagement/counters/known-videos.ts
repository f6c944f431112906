import { steadyNow } from '../../shared/clock.ts'
import { ExpiringMap } from '../../shared/expiring-map.ts'
import type { VideoLedgerRow } from './ledger.ts'

/** A row of the ledger, and when it was asked for, by steadyNow(). */
export interface KnownVideo extends VideoLedgerRow {
  readAt: number
}

export interface KnownVideosOptions {
  read: (videoIds: number[]) => Promise<VideoLedgerRow[]>
  /** Milliseconds after which a row is re-read in the background. */
  freshMs?: number
  /** Milliseconds after which a request waits for the re-read row, if PostgreSQL answers. */
  oldMs?: number
  /** Maximum number of cached rows. */
  maxSize?: number
  now?: () => number
}

export type KnownVideos = ReturnType<typeof createKnownVideos>

/**
 * Cache of the ledger rows of existing videos: a like costs one query per video instead of one per like, and likes go
 * on while PostgreSQL is unavailable. The counts of a row's own generation cannot become stale (the store's totals
 * replace them), and deleted videos are removed within a second (flusher.ts).
 */
export function createKnownVideos (
  { read, freshMs = 10_000, oldMs = 60_000, maxSize = 100_000, now = steadyNow }: KnownVideosOptions
) {
  // A row in use is re-read, and thereby set again, before its generation of the map is dropped.
  const known = new ExpiringMap<number, KnownVideo>({ maxAgeMs: Infinity, maxSize: Math.ceil(maxSize / 2) })
  const refreshes = new WeakMap<KnownVideo, { at: number, rows: Promise<Map<number, KnownVideo> | undefined> }>()
  let batch: { ids: Set<number>, rows: Promise<Map<number, KnownVideo>> } | undefined

  /** Reads the rows of all requests of one turn of the event loop by one statement. */
  function load (videoIds: number[]): Promise<Map<number, KnownVideo>> {
    if (!batch) {
      const ids = new Set<number>()
      batch = { ids, rows: new Promise(resolve => setImmediate(resolve)).then(() => loadNow(ids)) }
    }
    for (const id of videoIds) batch.ids.add(id)
    return batch.rows
  }

  async function loadNow (ids: Set<number>): Promise<Map<number, KnownVideo>> {
    batch = undefined
    const readAt = now()
    const rows = new Map((await read([...ids])).map(row => [row.video_id, { ...row, readAt }]))
    for (const id of ids) {
      const row = rows.get(id)
      if (row) remember(row)
      else known.delete(id)
    }
    return rows
  }

  /** Re-reads rows in the background. While PostgreSQL is unavailable, once a second and not once a request. */
  function refresh (rows: KnownVideo[]): void {
    const due = rows.filter(row => Math.abs(now() - (refreshes.get(row)?.at ?? 0)) > 1000)
    if (due.length === 0) return
    // If this fails, the old row is still good enough.
    const refreshed = load(due.map(row => row.video_id)).catch(() => undefined)
    for (const row of due) refreshes.set(row, { at: now(), rows: refreshed })
  }

  function addAll (found: Map<number, KnownVideo>, ids: number[], rows: Map<number, KnownVideo> | undefined): void {
    if (!rows) return
    for (const id of ids) {
      const row = rows.get(id)
      if (row) found.set(id, row)
      else found.delete(id)
    }
  }

  function remember (row: KnownVideo): void {
    known.set(row.video_id, row)
  }

  return {
    /** Returns the rows of the videos that exist. Rejects only if PostgreSQL is unavailable and a row is not cached. */
    async get (videoIds: number[]): Promise<Map<number, KnownVideo>> {
      const found = new Map<number, KnownVideo>()
      const unknown: number[] = []
      const aged: KnownVideo[] = []
      const old: KnownVideo[] = []
      for (const id of videoIds) {
        const row = known.get(id)
        if (!row) {
          unknown.push(id)
          continue
        }
        found.set(id, row)
        const age = Math.abs(now() - row.readAt)
        if (age > Math.min(freshMs, oldMs)) aged.push(row)
        if (age > oldMs) old.push(row)
      }
      refresh(aged)
      const added = unknown.length > 0 ? load(unknown) : undefined
      if (added) addAll(found, unknown, await added)
      for (const row of old) addAll(found, [row.video_id], await refreshes.get(row)?.rows)
      return found
    },

    /** Returns the row of a video if it is cached and fresh. */
    peek (videoId: number): KnownVideo | undefined {
      const row = known.get(videoId)
      return row && Math.abs(now() - row.readAt) <= Math.min(freshMs, oldMs) ? row : undefined
    },

    /** Re-reads rows. Returns those of the videos that exist. */
    async reload (videoIds: number[]): Promise<Map<number, KnownVideo>> {
      const rows = await load(videoIds)
      return new Map(videoIds.flatMap(id => rows.has(id) ? [[id, rows.get(id)!]] : []))
    },

    forget (videoId: number): void {
      known.delete(videoId)
    },

    /** Forgets all videos of a user. */
    forgetOwner (userId: number): void {
      for (const id of known.keys()) if (known.get(id)?.user_id === userId) known.delete(id)
    },

    get size () {
      return known.size
    }
  }
}

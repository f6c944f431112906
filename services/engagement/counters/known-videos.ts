import { steadyNow } from '../../shared/clock.ts'
import { ExpiringMap } from '../../shared/expiring-map.ts'
import type { VideoLedgerRow } from './ledger.ts'

/** A row of the ledger, and when it was asked for, by steadyNow(). */
export interface KnownVideo extends VideoLedgerRow {
  readAt: number
}

export interface KnownVideosOptions {
  read: (videoIds: number[]) => Promise<VideoLedgerRow[]>
  /** Milliseconds after which a row is read again, without anybody waiting for it. */
  freshMs?: number
  /** Milliseconds after which whoever asks waits for the new row, if PostgreSQL answers. */
  oldMs?: number
  /** Videos that are remembered. */
  maxSize?: number
  now?: () => number
}

export type KnownVideos = ReturnType<typeof createKnownVideos>

/**
 * Which videos exist, and what the ledger says of them: so that a like asks PostgreSQL once a video and not
 * once a like, and goes on while PostgreSQL is unavailable. What a row says of its own generation cannot grow old
 * (the store's total replaces it), and deleted videos are taken out within a second (flusher.ts).
 */
export function createKnownVideos ({ read, freshMs = 10_000, oldMs = 60_000, maxSize = 100_000, now = steadyNow }: KnownVideosOptions) {
  // A row that is in use is read again, and set anew by that, before its generation is dropped.
  const known = new ExpiringMap<number, KnownVideo>({ maxAgeMs: Infinity, maxSize: Math.ceil(maxSize / 2) })
  const refreshes = new WeakMap<KnownVideo, { at: number, rows: Promise<Map<number, KnownVideo> | undefined> }>()
  let batch: { ids: Set<number>, rows: Promise<Map<number, KnownVideo>> } | undefined

  /** One statement for all that is asked for in one turn of the event loop. */
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

  /** Reads rows again in the background. While PostgreSQL is unavailable that is tried once a second and not once a request. */
  function refresh (rows: KnownVideo[]): void {
    const due = rows.filter(row => Math.abs(now() - (refreshes.get(row)?.at ?? 0)) > 1000)
    if (due.length === 0) return
    // What was known is still right enough when this fails.
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
    /** Those of the videos that exist. Rejects only if PostgreSQL is unavailable and one is not known. */
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

    /** One video, if it is known well enough for nobody to wait: the way of the many. */
    peek (videoId: number): KnownVideo | undefined {
      const row = known.get(videoId)
      return row && Math.abs(now() - row.readAt) <= Math.min(freshMs, oldMs) ? row : undefined
    },

    /** Those of the videos that exist, read now. */
    async reload (videoIds: number[]): Promise<Map<number, KnownVideo>> {
      const rows = await load(videoIds)
      return new Map(videoIds.flatMap(id => rows.has(id) ? [[id, rows.get(id)!]] : []))
    },

    forget (videoId: number): void { known.delete(videoId) },

    /** All videos of a user are gone. */
    forgetOwner (userId: number): void {
      for (const id of known.keys()) if (known.get(id)?.user_id === userId) known.delete(id)
    },

    get size () { return known.size }
  }
}

import { hash } from 'node:crypto'
import { promisify } from 'node:util'
import { gzip } from 'node:zlib'
import { ApiError } from '../shared/errors.ts'

/** A serialised response. */
export interface CachedResponse {
  /** A short one is text, which leaves in one write with its head; a long one is bytes, converted once. */
  body: string | Buffer
  /** Strong: the same bytes have the same one (RFC 9110 §8.8.3). */
  etag: string
  /** Headers that belong to this response, such as Link. */
  headers: Record<string, string>
  /** When its load began, by the monotonic clock, in milliseconds: its content is at least as new as this. */
  loadedAt: number
  /** Whether compressing pays. */
  isCompressible: boolean
  /** Compressed by gzip, once a client has asked for it. */
  compressed: Buffer | undefined
  compressing: Promise<Buffer> | undefined
  /** Its heads by variant, made when they are first needed (plugins/response-cache.ts). */
  heads: unknown[]
}

export interface LoadedResponse {
  body: string
  headers?: Record<string, string>
  /** Version of the content, which becomes part of the ETag (entityTag). */
  version?: number | undefined
}

/**
 * Loads a response.
 *
 * @param isFresh whether it must be what is stored now, for a user who has just written
 * @param signal aborted when no client waits for it any more
 */
export type Load = (isFresh: boolean, signal: AbortSignal) => Promise<LoadedResponse>

export interface GetOptions {
  /** For a user who has just written: loaded now, also when another load is running. */
  isFresh?: boolean
  /** Returns a signal that is aborted when the client leaves; called only when something is loaded. */
  signal?: () => AbortSignal
}

export interface ResponseCacheOptions {
  /**
   * Maximum bytes of all entries, keys and headers included; the entry that was loaded longest ago is evicted first.
   */
  maxBytes: number
  now?: () => number
}

/** Milliseconds for which a response is fresh. */
const maxAgeMs = 950

/**
 * Milliseconds after which a response is reloaded while it is still served: no request of a hot key waits
 * (stale-while-revalidate).
 */
const refreshAfterMs = 500

/** Milliseconds for which a response is served while its loads fail (stale-if-error). */
const maxStaleMs = 10 * 60_000

/** Milliseconds for which a stale response is served while the process is overloaded. */
const maxOverloadMs = 10_000

/** Milliseconds between two loads while they fail. */
const retryMs = 250

/** Milliseconds for which the same bytes (and ETag) are kept when a load differs in nothing but `as_of`. */
const sameBytesMs = 10_000

/** Bytes below which compressing costs more than it saves: the response fits one packet anyway. */
const minCompressedBytes = 1400

const compress = promisify(gzip)

/** Maximum tags of an If-Match that are compared. */
const maxTags = 20

interface Entry {
  response: CachedResponse
  renderedAt: number
  failedAt: number
  bytes: number
}

export type ResponseCache = ReturnType<typeof createResponseCache>

/**
 * Cache of serialised responses, fresh for less than a second: however many requests a key has, it is loaded about
 * twice a second, by one load at a time (single flight). While loads fail, the last response is served
 * (stale-if-error).
 */
export function createResponseCache ({ maxBytes, now = performance.now.bind(performance) }: ResponseCacheOptions) {
  // A Map keeps the insertion order; each load moves its entry to the end.
  const entries = new Map<string, Entry>()
  let order = entries.entries()
  let candidate: { key: string, entry: Entry } | undefined
  const loads = new Map<string, { loading: Promise<CachedResponse>, join: (signal: AbortSignal | undefined) => void }>()
  let bytes = 0

  /**
   * Single flight: one load for all requests of a key. It is aborted when all their clients have left; a later
   * request begins another.
   */
  function load (key: string, ask: Load, { isFresh = false, signal }: GetOptions): Promise<CachedResponse> {
    const running = loads.get(key)
    if (running) {
      running.join(signal?.())
      return running.loading
    }
    const controller = new AbortController()
    const settle = (): void => {
      if (loads.get(key) === shared) loads.delete(key)
    }
    const shared = {
      join: shareAbort(() => {
        settle()
        controller.abort()
      }),
      loading: loadNow(key, ask, isFresh, controller.signal).finally(settle)
    }
    shared.join(signal?.())
    loads.set(key, shared)
    return shared.loading
  }

  async function loadNow (key: string, ask: Load, isFresh: boolean, signal: AbortSignal): Promise<CachedResponse> {
    const loadedAt = now()
    try {
      const loaded = await ask(isFresh, signal)
      const before = entries.get(key)
      // Overtaken by a load that began later, after a write: that one knows more.
      if (before && before.response.loadedAt > loadedAt) return before.response
      return store(key, loaded, loadedAt, before)
    } catch (error) {
      const entry = entries.get(key)
      if (signal.aborted) throw error
      if (entry && isUnavailable(error)) entry.failedAt = now()
      // It does not exist any more, or this reader may not see it.
      else if (entry && entry.response.loadedAt <= loadedAt) drop(key)
      throw error
    }
  }

  function store (
    key: string,
    { body, headers = {}, version }: LoadedResponse,
    loadedAt: number,
    before: Entry | undefined
  ): CachedResponse {
    const isSame = before !== undefined && loadedAt - before.renderedAt < sameBytesMs &&
      saysTheSame(before.response, body, headers)
    const response = isSame ? { ...before.response, loadedAt } : toResponse({ body, headers, version }, loadedAt)
    drop(key)
    const entry: Entry = { response, renderedAt: isSame ? before.renderedAt : loadedAt, failedAt: -Infinity, bytes: 0 }
    entry.bytes = sizeOf(key, response)
    entries.set(key, entry)
    bytes += entry.bytes
    for (
      let oldest = nextOldest();
      oldest && (bytes > maxBytes || now() - oldest.entry.response.loadedAt >= maxStaleMs);
      oldest = nextOldest()
    ) drop(oldest.key)
    return response
  }

  /**
   * Returns the entry that was loaded longest ago. One iterator continues where the last call stopped: a new one
   * would walk over all deleted entries (see ExpiringMap).
   */
  function nextOldest (): { key: string, entry: Entry } | undefined {
    while (entries.size > 0) {
      if (candidate && entries.get(candidate.key) === candidate.entry) return candidate
      const next = order.next()
      if (next.done) order = entries.entries()
      else candidate = { key: next.value[0], entry: next.value[1] }
    }
    return undefined
  }

  function drop (key: string): void {
    bytes -= entries.get(key)?.bytes ?? 0
    entries.delete(key)
  }

  return {
    get stats () {
      return { entries: entries.size, bytes }
    },

    /** Returns a fresh response; undefined when it must be loaded, or should be reloaded and no load is running. */
    peek (key: string): CachedResponse | undefined {
      const entry = entries.get(key)
      if (!entry) return undefined
      const age = now() - entry.response.loadedAt
      return age < refreshAfterMs || (age < maxAgeMs && loads.has(key)) ? entry.response : undefined
    },

    /** Returns a response that may be stale, for an overloaded process. */
    peekStale (key: string): CachedResponse | undefined {
      const entry = entries.get(key)
      return entry && now() - entry.response.loadedAt < maxOverloadMs ? entry.response : undefined
    },

    /**
     * Returns the response of a key, loading it if necessary. Rejects with the error of the load if nothing is
     * cached, or if the error is a 4xx.
     */
    async get (key: string, ask: Load, options: GetOptions = {}): Promise<CachedResponse> {
      const { isFresh = false } = options
      if (isFresh) loads.delete(key)
      const entry = isFresh ? undefined : entries.get(key)
      if (!entry) return await load(key, ask, options)
      const age = now() - entry.response.loadedAt
      if (age < refreshAfterMs) return entry.response
      if (now() - entry.failedAt < retryMs && age < maxStaleMs) return entry.response
      // Not aborted when this client leaves: later requests use the result.
      const loading = load(key, ask, {})
      if (age < maxAgeMs) {
        // A failed reload is seen by the requests after it.
        loading.catch(() => {})
        return entry.response
      }
      return await loading.catch((error: unknown) => {
        if (isUnavailable(error) && age < maxStaleMs) return entry.response
        throw error
      })
    },

    /** Milliseconds by which a response is stale; 0 for a fresh one. */
    overdueMs: ({ loadedAt }: CachedResponse): number => Math.max(0, now() - loadedAt - maxAgeMs),

    /** Drops all entries whose key has a prefix. */
    forget (prefix: string): void {
      for (const key of [...entries.keys(), ...loads.keys()]) {
        if (!key.startsWith(prefix)) continue
        drop(key)
        loads.delete(key)
      }
    }
  }
}

/**
 * Bytes that an entry may come to hold: text in two bytes a character, or bytes and the same again compressed; and its
 * serialised heads (plugins/response-cache.ts), one for each of four variants.
 */
function sizeOf (key: string, { body, headers }: CachedResponse): number {
  const ofHeaders = Object.entries(headers).reduce((sum, [name, value]) => sum + name.length + value.length, 0)
  return 2 * (key.length + body.length + ofHeaders) + 4 * (ofHeaders + 700) + 500
}

function toResponse ({ body, headers = {}, version }: LoadedResponse, loadedAt: number): CachedResponse {
  const isShort = Buffer.byteLength(body) < minCompressedBytes
  return {
    body: isShort ? body : Buffer.from(body),
    etag: entityTag(body, version),
    headers,
    loadedAt,
    isCompressible: !isShort,
    compressed: undefined,
    compressing: undefined,
    heads: []
  }
}

/**
 * Returns the ETag of a response: a hash of its bytes, after the version of its content if it has one. The counters of
 * a video change all the time; a conditional update (If-Match) compares the version only.
 */
export function entityTag (body: string, version: number | undefined): string {
  return `"${version === undefined ? '' : `${version.toString(36)}.`}${hash('sha1', body, 'base64url')}"`
}

/**
 * Returns the versions in an If-Match header; undefined without one, or for `*`. Weak tags never match (RFC 9110
 * §13.1.1).
 */
export function versionsOf (condition: string | undefined): number[] | undefined {
  if (condition === undefined || condition.trim() === '*') return undefined
  return condition.split(',', maxTags).flatMap(tag => {
    const [, version] = /^"(-?[0-9a-z]{1,11})\.[\w-]+"$/.exec(tag.trim()) ?? []
    return version === undefined ? [] : [Number.parseInt(version, 36)]
  })
}

/**
 * Returns a function that adds a waiting client, and calls back when all of them have left. A client without a signal
 * stays.
 */
function shareAbort (onAllLeft: () => void): (signal: AbortSignal | undefined) => void {
  let waiting = 0
  const leave = (): void => {
    if (--waiting === 0) onAllLeft()
  }
  return signal => {
    waiting++
    if (signal?.aborted) leave()
    else signal?.addEventListener('abort', leave, { once: true })
  }
}

/** Whether a response equals another one in everything but the time of the read. */
function saysTheSame (response: CachedResponse, body: string, headers: Record<string, string>): boolean {
  return withoutTimes(String(response.body)) === withoutTimes(body) &&
    Object.keys({ ...response.headers, ...headers }).every(name => response.headers[name] === headers[name])
}

/** Matches members only: a quote within a JSON string is escaped. */
const withoutTimes = (body: string): string => body.replace(/"as_of":"[^"]*"/g, '')

/** Compresses a response when it is first needed: once for all requests that wait for it. */
export async function compressResponse (response: CachedResponse): Promise<void> {
  response.compressing ??= compress(response.body).finally(() => {
    response.compressing = undefined
  })
  response.compressed = await response.compressing
}

/** Whether a load failed because a dependency is unavailable: then a stale response is better than none. */
const isUnavailable = (error: unknown): boolean => !(error instanceof ApiError) || error.statusCode >= 500

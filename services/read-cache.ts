import { hash } from 'node:crypto'
import { promisify } from 'node:util'
import { gzip } from 'node:zlib'
import { ApiError } from './errors.ts'
import { Interest } from './interest.ts'

/** What a read answers with, ready to be sent. */
export interface CachedAnswer {
  /** A short one is text, which leaves in one write with its head; a long one is bytes, written down once. */
  body: string | Buffer
  /** Strong: the same bytes have the same one (RFC 9110 §8.8.3). */
  etag: string
  /** Headers that belong to this answer, such as Link. */
  headers: Record<string, string>
  /** When its load began, by a clock that never goes back: what it says is at least as new as this. */
  loadedAt: number
  /** Whether compressing pays. */
  isCompressible: boolean
  /** Compressed, once somebody has wanted it so. */
  compressed: Buffer | undefined
}

/** What a load brings. */
export interface LoadedAnswer {
  body: string
  headers?: Record<string, string>
}

/**
 * Loads an answer.
 *
 * @param isFresh whether it must be what is there now, for who has just written
 * @param interest whether anybody still waits for it
 */
export type Ask = (isFresh: boolean, interest: Interest) => Promise<LoadedAnswer>

export interface GetOptions {
  /** For somebody who has just written: loaded now, also when another load is under way. */
  isFresh?: boolean
  /** Tells whether the one who asks still waits; without it they do. Asked only if something is loaded. */
  interest?: () => Interest
}

export interface ReadCacheOptions {
  /** Bytes that all entries may hold, keys and headers included; what was loaded longest ago goes first. */
  maxBytes: number
  now?: () => number
}

/** Milliseconds for which an answer stands. */
const maxAgeMs = 950

/** Milliseconds after which an answer is loaded anew while it is still given: a hot one never makes anybody wait. */
const refreshAfterMs = 500

/** Milliseconds for which an answer goes on being given while its load fails. */
const maxStaleMs = 10 * 60_000

/** Milliseconds for which an answer goes on being given while there is too much to do to load all of them. */
const maxOverloadMs = 10_000

/** Milliseconds between two loads that fail. */
const retryMs = 250

/** Milliseconds for which bytes are given again, with the time that they tell, when nothing but that time is new. */
const sameBytesMs = 10_000

/** Bytes below which compressing costs more than it saves: one packet stays one packet. */
const minCompressedBytes = 1400

const compress = promisify(gzip)

interface Entry {
  answer: CachedAnswer
  renderedAt: number
  failedAt: number
  bytes: number
}

export type ReadCache = ReturnType<typeof createReadCache>

/**
 * Answers that many ask for, as bytes, for less than a second: however many ask, each is loaded about twice a
 * second, and by one load at a time. While loads fail, what was known goes on being given.
 */
export function createReadCache ({ maxBytes, now = performance.now.bind(performance) }: ReadCacheOptions) {
  // A Map keeps the order of insertion; what is used is put at the end once a load.
  const entries = new Map<string, Entry>()
  let order = entries.entries()
  let candidate: { key: string, entry: Entry } | undefined
  const underWay = new Map<string, { loading: Promise<CachedAnswer>, interest: Interest }>()
  let bytes = 0

  /** One load for all who ask meanwhile; when all of them have left, it may stop, and whoever comes then begins another one. */
  function load (key: string, ask: Ask, { isFresh = false, interest: own }: GetOptions): Promise<CachedAnswer> {
    const running = underWay.get(key)
    if (running) {
      running.interest.join(own?.())
      return running.loading
    }
    const interest = new Interest()
    interest.join(own?.())
    const settle = (): void => { if (underWay.get(key)?.interest === interest) underWay.delete(key) }
    const loading = loadNow(key, ask, isFresh, interest).finally(settle)
    underWay.set(key, { loading, interest })
    interest.onEnd(settle)
    return loading
  }

  async function loadNow (key: string, ask: Ask, isFresh: boolean, interest: Interest): Promise<CachedAnswer> {
    const loadedAt = now()
    try {
      const loaded = await ask(isFresh, interest)
      const before = entries.get(key)
      // Overtaken by a load that began later, after a write: that one knows more.
      if (before && before.answer.loadedAt > loadedAt) return before.answer
      return store(key, loaded, loadedAt, before)
    } catch (error) {
      const entry = entries.get(key)
      if (interest.isOver) throw error
      if (entry && isAway(error)) entry.failedAt = now()
      // It is not there any more, or not for this viewer.
      else if (entry && entry.answer.loadedAt <= loadedAt) drop(key)
      throw error
    }
  }

  function store (key: string, { body, headers = {} }: LoadedAnswer, loadedAt: number, before: Entry | undefined): CachedAnswer {
    const isSame = before !== undefined && loadedAt - before.renderedAt < sameBytesMs && saysTheSame(before.answer, body, headers)
    const answer = isSame ? { ...before.answer, loadedAt } : toAnswer(body, headers, loadedAt)
    drop(key)
    const entry: Entry = { answer, renderedAt: isSame ? before.renderedAt : loadedAt, failedAt: -Infinity, bytes: 0 }
    entry.bytes = sizeOf(key, answer)
    entries.set(key, entry)
    bytes += entry.bytes
    for (let oldest = nextOldest(); oldest && (bytes > maxBytes || now() - oldest.entry.answer.loadedAt >= maxStaleMs); oldest = nextOldest()) drop(oldest.key)
    return answer
  }

  /**
   * The entry that was loaded longest ago. One iterator goes on from where the last call left it: a new one would walk over
   * all that was deleted before (see ExpiringMap).
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
    get stats () { return { entries: entries.size, bytes } },

    /** An answer that stands, at once; undefined when one would have to be loaded, or should be and nobody does. */
    peek (key: string): CachedAnswer | undefined {
      const entry = entries.get(key)
      if (!entry) return undefined
      const age = now() - entry.answer.loadedAt
      return age < refreshAfterMs || (age < maxAgeMs && underWay.has(key)) ? entry.answer : undefined
    },

    /** An answer that may be older than it should be, for who would get none. */
    peekStale (key: string): CachedAnswer | undefined {
      const entry = entries.get(key)
      return entry && now() - entry.answer.loadedAt < maxOverloadMs ? entry.answer : undefined
    },

    /**
     * The answer for a key. Rejects with the error of the load, if nothing is known or the error is the answer.
     */
    async get (key: string, ask: Ask, options: GetOptions = {}): Promise<CachedAnswer> {
      const { isFresh = false } = options
      if (isFresh) underWay.delete(key)
      const entry = isFresh ? undefined : entries.get(key)
      if (!entry) return await load(key, ask, options)
      const age = now() - entry.answer.loadedAt
      if (age < refreshAfterMs) return entry.answer
      if (now() - entry.failedAt < retryMs && age < maxStaleMs) return entry.answer
      // It is for all who come after as well.
      const loading = load(key, ask, {})
      if (age < maxAgeMs) {
        // Whoever comes after it failed hears of it.
        loading.catch(() => {})
        return entry.answer
      }
      return await loading.catch((error: unknown) => {
        if (isAway(error) && age < maxStaleMs) return entry.answer
        throw error
      })
    },

    /** Milliseconds by which an answer is older than it may be; 0 for one that stands. */
    overdueMs: ({ loadedAt }: CachedAnswer): number => Math.max(0, now() - loadedAt - maxAgeMs),

    /** Forgets all keys that begin so. */
    forget (prefix: string): void {
      for (const key of [...entries.keys(), ...underWay.keys()]) {
        if (!key.startsWith(prefix)) continue
        drop(key)
        underWay.delete(key)
      }
    }
  }
}

/**
 * Bytes that an entry may come to hold: text in two bytes a character, or bytes and the same again compressed; and its
 * serialised heads (hot-reads.ts), one for each of four variants.
 */
function sizeOf (key: string, { body, headers }: CachedAnswer): number {
  const ofHeaders = Object.entries(headers).reduce((sum, [name, value]) => sum + name.length + value.length, 0)
  return 2 * (key.length + body.length + ofHeaders) + 4 * (ofHeaders + 700) + 500
}

function toAnswer (body: string, headers: Record<string, string>, loadedAt: number): CachedAnswer {
  const isShort = Buffer.byteLength(body) < minCompressedBytes
  return {
    body: isShort ? body : Buffer.from(body),
    etag: `"${hash('sha1', body, 'base64url')}"`,
    headers,
    loadedAt,
    isCompressible: !isShort,
    compressed: undefined
  }
}

/** Whether an answer is the same to a client as another one, although their bytes tell the times of two reads. */
function saysTheSame (answer: CachedAnswer, body: string, headers: Record<string, string>): boolean {
  return withoutTimes(String(answer.body)) === withoutTimes(body) &&
    Object.keys({ ...answer.headers, ...headers }).every(name => answer.headers[name] === headers[name])
}

/** A quote within a text is escaped in JSON: this finds members alone. */
const withoutTimes = (body: string): string => body.replace(/"as_of":"[^"]*"/g, '')

/** The bytes of a compressible answer, compressed: by whoever wants them first, for all who come after. */
export async function compressAnswer (answer: CachedAnswer): Promise<Buffer> {
  answer.compressed ??= await compress(answer.body)
  return answer.compressed
}

/** Whether a load failed because a part of the service is away: then what is known is better than nothing. */
const isAway = (error: unknown): boolean => !(error instanceof ApiError) || error.statusCode >= 500

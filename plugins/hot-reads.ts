import type { IncomingMessage, ServerResponse } from 'node:http'
import fp from 'fastify-plugin'
import type { Arrival } from '../services/arrival.ts'
import { compressAnswer, type CachedAnswer } from '../services/read-cache.ts'
import { serializeFields } from '../services/serialized-head.ts'
import type { AdultView } from '../services/viewers.ts'
import { hasBody, type HotAnswer } from './hot-path.ts'
import { answerHeaders, contentType, isKnown, overdueHeaders, takesGzip } from './read-cache.ts'

const address = /^\/api\/v1\/videos\/([1-9]\d{0,14})$/

/** A GET whose answer stands in the cache, or is one video, of anybody or of a bearer who was seen a moment ago. */
export default fp(async function hotReads (app) {
  const { readCache, cachedReads, recentWriters, bearers, corsHeaders, hotPath, log, viewers, services: { cachedVideos } } = app
  const heads = new WeakMap<CachedAnswer, Map<object, Heads>>()

  function headsOf (answer: CachedAnswer, cors: Record<string, string>): Heads {
    let ofAnswer = heads.get(answer)
    if (!ofAnswer) heads.set(answer, ofAnswer = new Map())
    let found = ofAnswer.get(cors)
    if (!found) ofAnswer.set(cors, found = createHeads(answer, cors['vary']))
    return found
  }

  /** What the sender is shown; undefined when that has to be asked, or must not come from memory. */
  function viewOf ({ headers: { authorization } }: IncomingMessage): AdultView | undefined {
    if (authorization === undefined) return viewers.anonymous
    const bearer = bearers.peek(authorization)
    if (!bearer || recentWriters.has(bearer.user_id)) return undefined
    const view = viewers.peek(bearer.user_id)
    return view?.ownerId === undefined ? view : undefined
  }

  function answerOf ({ headers }: IncomingMessage, answer: CachedAnswer, isCompressed: boolean): HotAnswer {
    const head = headsOf(answer, corsHeaders(headers.origin))({ isCompressed, isPublic: headers.authorization === undefined })
    return headers['if-none-match'] !== undefined && isKnown(headers['if-none-match'], answer) ? head.notModified : head.ok
  }

  const wantsGzip = ({ headers }: IncomingMessage, { isCompressible }: CachedAnswer): boolean =>
    isCompressible && takesGzip(headers['accept-encoding'])

  /** Where an answer would stand in the cache, if a request is a plain read of somebody whose rights are known. */
  function placeOf (request: IncomingMessage): Place | undefined {
    if (request.method !== 'GET' || hasBody(request)) return undefined
    const url = request.url!
    const isSeen = cachedReads.hasAny(url)
    const videoId = isSeen ? undefined : videoIdOf(url)
    if (!isSeen && videoId === undefined) return undefined
    const view = viewOf(request)
    if (view === undefined) return undefined
    return { view, isSeen, key: isSeen ? cachedReads.get(url, view.seesAll) : cachedVideos.one(videoId!, view).key }
  }

  /** Sends an answer of the cache, and how overdue it is, if it is. */
  function sendCached (arrival: Arrival, request: IncomingMessage, response: ServerResponse, cached: CachedAnswer, isCompressed: boolean): void {
    const answer = answerOf(request, cached, isCompressed)
    const overdueMs = readCache.overdueMs(cached)
    hotPath.send(arrival, request, response, overdueMs > 0
      ? { ...answer, fields: answer.fields + serializeFields(Object.entries(overdueHeaders(overdueMs)).flat()) }
      : answer)
  }

  function answerFromMemory (arrival: Arrival, request: IncomingMessage, response: ServerResponse, find: (key: string) => CachedAnswer | undefined): boolean {
    const place = placeOf(request)
    const cached = place?.key === undefined ? undefined : find(place.key)
    if (!cached) return false
    const isCompressed = wantsGzip(request, cached)
    if (isCompressed && !cached.compressed) return false
    sendCached(arrival, request, response, cached, isCompressed)
    if (!place!.isSeen) cachedReads.set(request.url!, place!.view.seesAll, place!.key!)
    return true
  }

  hotPath.fromMemory.push((arrival, request, response) => answerFromMemory(arrival, request, response, readCache.peek))
  hotPath.insteadOfRefusal.push((arrival, request, response) => answerFromMemory(arrival, request, response, readCache.peekStale))

  async function loadVideo (arrival: Arrival, request: IncomingMessage, response: ServerResponse, id: number, view: AdultView): Promise<void> {
    const { key, load } = cachedVideos.one(id, view)
    let loaded: CachedAnswer
    try {
      loaded = await readCache.get(key, load)
    } catch (error) {
      hotPath.sendError(arrival, request, response, error)
      return
    }
    const isCompressed = wantsGzip(request, loaded)
    if (isCompressed && !loaded.compressed) await compressAnswer(loaded)
    sendCached(arrival, request, response, loaded, isCompressed)
  }

  hotPath.shortcuts.push((arrival, request, response) => {
    const id = videoIdOf(request.url!)
    const place = id === undefined ? undefined : placeOf(request)
    if (!place) return false
    loadVideo(arrival, request, response, id!, place.view).catch((error: unknown) => {
      log.error({ err: error, reqId: arrival.id }, 'an answer could not be sent')
      response.destroy()
    })
    return true
  })
}, { name: 'halo:hot-reads', dependencies: ['halo:hot-path', 'halo:auth', 'halo:read-cache', 'halo:recent-writers', 'halo:services', 'halo:viewers'] })

function videoIdOf (url: string): number | undefined {
  const match = address.exec(url)
  return match ? Number(match[1]) : undefined
}

interface Place {
  view: AdultView
  /** Whether the address was read before. */
  isSeen: boolean
  key: string | undefined
}

/** An answer of the cache in one of its ways, and what those get who know it. */
interface Head { ok: HotAnswer, notModified: HotAnswer }

interface Variant { isCompressed: boolean, isPublic: boolean }

type Heads = (variant: Variant) => Head

function createHeads (answer: CachedAnswer, vary: string | undefined): Heads {
  function headFor (variant: Variant): Head {
    const fields = Object.entries(answerHeaders(answer, { ...variant, vary })).flat()
    const ofBody = ['content-type', contentType, ...(variant.isCompressed ? ['content-encoding', 'gzip'] : [])]
    const body = variant.isCompressed ? answer.compressed! : answer.body
    return {
      notModified: { status: 304, fields: serializeFields(fields), hasVary: true },
      ok: { status: 200, fields: serializeFields([...fields, ...ofBody]), hasVary: true, body, length: Buffer.byteLength(body) }
    }
  }
  // Most answers are asked for in one of the four ways.
  const made: (Head | undefined)[] = []
  return variant => {
    const index = 2 * Number(variant.isCompressed) + Number(variant.isPublic)
    return (made[index] ??= headFor(variant))
  }
}

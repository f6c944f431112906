import type { FastifyReply, FastifyRequest, onRequestHookHandler } from 'fastify'
import fp from 'fastify-plugin'
import {
  compressResponse,
  createResponseCache,
  type CachedResponse,
  type LoadedResponse,
  type ResponseCache
} from '../services/http/response-cache.ts'
import { serializeFields, writeSerializedHead } from '../services/http/response-head.ts'
import { labelsOf } from '../services/runtime/metrics.ts'
import type { AdultView } from '../services/accounts/adult-access.ts'

declare module 'fastify' {
  interface FastifyInstance {
    responseCache: ResponseCache
  }
  interface FastifyContextConfig {
    /**
     * Serves the route from memory: the cache key of a validated request and of what its sender may see. Requests
     * with the same key get the same bytes, so that nothing else that a client sends may be part of the response.
     */
    cacheKey?: (request: FastifyRequest, view: AdultView) => string
  }
  interface FastifyReply {
    /** Answers a miss: loads the response for the route's `cacheKey`, keeps it, and sends it. */
    sendCached (load: LoadValue): Promise<FastifyReply>
  }
}

export interface LoadContext {
  /** Which adult content is shown. */
  view: AdultView
  /** Whether the primary must be read, because the reader has just written. */
  isFresh: boolean
  /** Aborted when no client waits for the response any more. */
  signal: AbortSignal
}

/** Loads the value that the route's response schema serialises, and headers that belong to it. */
export type LoadValue = (
  context: LoadContext
) => Promise<{ value: unknown } & Pick<LoadedResponse, 'headers' | 'version'>>

export const contentType = 'application/json; charset=utf-8'

/**
 * The response cache, for routes with a `cacheKey` in their `config`. A hook after validation answers a hit; a miss
 * goes to the handler, which fills the same entry by `sendCached`. Both are written by `send` below: ETag, 304, gzip,
 * Cache-Control.
 */
export default fp(async function responseCache (app) {
  const { adultAccess, recentWriters, responseHeaders } = app
  const cache = createResponseCache({ maxBytes: app.config.readCache.maxBytes })
  const reads = { hit: 0, miss: 0, stale: 0 }
  app.meters.counter('halo_response_cache_reads_total', 'Reads of the response cache; stale ones are among hits and misses too', () =>
    Object.entries(reads).map(([result, value]) => [labelsOf({ result }), value] as const)
  )
  const corsVary = app.corsHeaders(undefined)['vary']
  app.decorate('responseCache', cache)

  /**
   * Returns the view of the reader; undefined when it must be read from the database, or the cache must be bypassed.
   */
  function peekView (request: FastifyRequest): AdultView | undefined {
    if (request.headers.authorization === undefined) return adultAccess.anonymous
    const userId = app.callerOf(request)
    if (userId === undefined) return adultAccess.anonymous
    return recentWriters.has(userId) ? undefined : adultAccess.peek(userId)
  }

  async function readView (userId: number | undefined): Promise<AdultView> {
    // Read-your-writes: a user's own first adult video changes their view.
    if (userId !== undefined && recentWriters.has(userId)) adultAccess.forget(userId)
    return await adultAccess.viewOf(userId)
  }

  const wantsGzip = ({ headers }: FastifyRequest, { isCompressible }: CachedResponse): boolean =>
    isCompressible && takesGzip(headers['accept-encoding'])

  /** Sends a cached response. The head of each variant is serialised once. */
  function send (request: FastifyRequest, reply: FastifyReply, response: CachedResponse, isCompressed: boolean): void {
    const { headers } = request
    const isPublic = headers.authorization === undefined
    const head = headOf(response, { isCompressed, isPublic, corsVary })
    const overdueMs = cache.overdueMs(response)
    if (overdueMs > 0) reads.stale++
    const fields = responseHeaders.serialized(request) +
      (overdueMs > 0 ? head.fields + serializeFields(overdueFields(overdueMs)) : head.fields)
    reply.hijack()
    if (headers['if-none-match'] !== undefined && isKnown(headers['if-none-match'], response)) {
      writeSerializedHead(reply.raw, 304, fields, undefined)
      reply.raw.end()
      return
    }
    writeSerializedHead(reply.raw, 200, fields + head.bodyFields, head.length)
    // Text of as many bytes as characters is ASCII, and Node writes it faster when it knows.
    if (typeof head.body === 'string') reply.raw.end(head.body, head.body.length === head.length ? 'latin1' : 'utf8')
    else reply.raw.end(head.body)
  }

  const serveHit = (cacheKey: (request: FastifyRequest, view: AdultView) => string): onRequestHookHandler =>
    (
      request,
      reply,
      done
    ) => {
      const view = peekView(request)
      if (view !== undefined) {
        const key = cacheKey(request, view)
        const response = request.isCacheOnly ? cache.peekStale(key) : cache.peek(key)
        if (response) {
          const isCompressed = wantsGzip(request, response)
          if (!isCompressed || response.compressed) {
            reads.hit++
            send(request, reply, response, isCompressed)
            return
          }
        }
      }
      done(request.isCacheOnly ? app.loadShedding.refuse() : undefined)
    }
  app.addHook('onRoute', route => {
    const { cacheKey } = route.config ?? {}
    if (cacheKey) route.preHandler = [route.preHandler ?? [], serveHit(cacheKey)].flat()
  })

  app.decorateReply('sendCached', async function (load) {
    const { request } = this
    reads.miss++
    const userId = app.callerOf(request)
    const view = await readView(userId)
    const key = request.routeOptions.config.cacheKey!(request, view)
    const response = await cache.get(key, async (isFresh, signal) => {
      const { value, headers, version } = await load({ view, isFresh, signal })
      return { body: this.serialize(value) as string, headers: headers ?? {}, version }
    }, {
      isFresh: userId !== undefined && recentWriters.has(userId),
      signal: () => abortedWith(this)
    })
    const isCompressed = wantsGzip(request, response)
    if (isCompressed && !response.compressed) await compressResponse(response)
    send(request, this, response, isCompressed)
    return this
  })
}, {
  name: 'halo:response-cache',
  dependencies: ['halo:auth', 'halo:load-shedding', 'halo:recent-writers', 'halo:response-headers', 'halo:adult-access']
})

/** A signal that is aborted when the client of a response leaves. */
function abortedWith ({ raw: response }: FastifyReply): AbortSignal {
  const controller = new AbortController()
  if (response.destroyed) controller.abort()
  else {
    response.on('close', () => {
      if (!response.writableFinished) controller.abort()
    })
  }
  return controller.signal
}

interface Variant {
  isCompressed: boolean
  isPublic: boolean
  corsVary: string | undefined
}

interface Head {
  fields: string
  bodyFields: string
  body: string | Buffer
  length: number
}

/**
 * The serialised head of a variant of a cached response. There are four variants: compressed or not, public or
 * private.
 */
function headOf (response: CachedResponse, variant: Variant): Head {
  const index = 2 * Number(variant.isCompressed) + Number(variant.isPublic)
  return (response.heads[index] ??= createHead(response, variant)) as Head
}

function createHead (
  { etag, headers, body: plain, compressed }: CachedResponse,
  { isCompressed, isPublic, corsVary }: Variant
): Head {
  const body = isCompressed ? compressed! : plain
  return {
    fields: serializeFields([
      ...Object.entries(headers).flat(),
      'etag',
      isCompressed ? `${etag.slice(0, -1)}-gzip"` : etag,
      // The response to a token may be for its bearer alone; the response to none is for everybody.
      'cache-control',
      isPublic ? 'public, max-age=1, stale-while-revalidate=5' : 'private, max-age=1',
      'vary',
      `${corsVary === undefined ? '' : `${corsVary}, `}Authorization, Accept-Encoding`
    ]),
    bodyFields: serializeFields(['content-type', contentType, ...isCompressed ? ['content-encoding', 'gzip'] : []]),
    body,
    length: Buffer.byteLength(body)
  }
}

/** The fields of a response that is older than it should be, because nothing newer can be loaded (RFC 9211). */
const overdueFields = (
  overdueMs: number
): string[] => ['cache-status', 'halo; hit; detail=stale', 'age', String(Math.ceil(overdueMs / 1000))]

/**
 * Whether a client accepts gzip (RFC 9110 §12.5.3): the weight of `gzip` decides where it is named, else that of `*`.
 */
export function takesGzip (accepted: string | string[] | undefined): boolean {
  if (accepted === undefined) return false
  const header = String(accepted)
  // Nearly all clients send this.
  if (/^(?:gzip|x-gzip)(?:,|$)/.test(header)) return true
  let any = false
  for (const item of header.split(',', 50)) {
    const [coding = '', ...parameters] = item.split(';', 5)
    const name = coding.trim().toLowerCase()
    if (name !== 'gzip' && name !== 'x-gzip' && name !== '*') continue
    const weight = parameters.map(one => /^\s{0,9}q\s{0,9}=\s{0,9}([01](?:\.\d{0,3})?)\s{0,9}$/i.exec(one)?.[1]).find(
      one => one !== undefined
    )
    const isAccepted = parameters.length === 0 || (weight !== undefined && Number(weight) > 0)
    if (name !== '*') return isAccepted
    any = isAccepted
  }
  return any
}

/** If-None-Match compares weakly (RFC 9110 §13.1.2), and the compressed answer is the same answer. */
export function isKnown (condition: string | undefined, { etag }: Pick<CachedResponse, 'etag'>): boolean {
  if (condition === undefined) return false
  if (condition.trim() === '*') return true
  const bare = etag.slice(1, -1)
  return condition.split(',').some(one => /^(?:W\/)?"(.*?)(?:-gzip)?"$/.exec(one.trim())?.[1] === bare)
}

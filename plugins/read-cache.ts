import type { ServerResponse } from 'node:http'
import type { FastifyReply, FastifyRequest } from 'fastify'
import fp from 'fastify-plugin'
import { createCachedReads, type CachedReads } from '../services/cached-reads.ts'
import { Interest } from '../services/interest.ts'
import { compressAnswer, createReadCache, type Ask, type CachedAnswer, type ReadCache } from '../services/read-cache.ts'

declare module 'fastify' {
  interface FastifyInstance {
    readCache: ReadCache
    /** Keys of the cache by the address as it was sent: hot-reads.ts looks here. */
    cachedReads: CachedReads
  }
  interface FastifyReply {
    /** Sends what the cache has for a key, or loads it: with an ETag, 304, compression and the right Cache-Control. */
    sendCached (key: string, load: Ask): Promise<FastifyReply>
  }
  interface FastifyRequest {
    /** Who asks, and what they may see. */
    viewer: Viewer | undefined
  }
}

/** Who reads. */
export interface Viewer {
  /** Undefined without a token. */
  userId: number | undefined
  seesAdultContent: boolean
}

/** Reads that many make, answered from memory. */
export default fp(async function readCache (app) {
  const cache = createReadCache({ maxBytes: app.config.readCache.maxBytes })
  const cachedReads = createCachedReads()
  app.decorate('readCache', cache)
  app.decorate('cachedReads', cachedReads)
  app.decorateRequest('viewer', undefined)

  app.decorateReply('sendCached', async function (key, load) {
    const { method, url, viewer } = this.request
    const answer = await cache.get(key, load, {
      isFresh: viewer?.userId !== undefined && app.recentWriters.has(viewer.userId),
      interest: () => interestIn(this.raw)
    })
    if (method === 'GET' && viewer) cachedReads.set(url, viewer.seesAdultContent, key)
    return await send(this.request, this, answer, cache.overdueMs(answer))
  })
}, { name: 'halo:read-cache', dependencies: ['halo:config', 'halo:recent-writers'] })

/** Whether the client of a response still waits for it. */
function interestIn (response: ServerResponse): Interest {
  const interest = new Interest()
  if (response.destroyed) interest.end()
  else response.on('close', () => { if (!response.writableFinished) interest.end() })
  return interest
}

async function send (request: FastifyRequest, reply: FastifyReply, answer: CachedAnswer, overdueMs: number): Promise<FastifyReply> {
  const { headers } = request
  const compressed = answer.isCompressible && takesGzip(headers['accept-encoding']) ? await compressAnswer(answer) : undefined
  const before = reply.getHeader('vary')
  reply.headers(answerHeaders(answer, { isCompressed: compressed !== undefined, isPublic: headers.authorization === undefined, vary: before as string | undefined }))
  if (overdueMs > 0) reply.headers(overdueHeaders(overdueMs))
  if (isKnown(headers['if-none-match'], answer)) return await reply.code(304).send()
  reply.header('content-type', contentType)
  return await (compressed ? reply.header('content-encoding', 'gzip').send(compressed) : reply.send(answer.body))
}

export const contentType = 'application/json; charset=utf-8'

/** What an answer from the cache says of itself, with a body or as a 304. */
export function answerHeaders (answer: CachedAnswer, { isCompressed, isPublic, vary }: { isCompressed: boolean, isPublic: boolean, vary: string | undefined }): Record<string, string> {
  return {
    ...answer.headers,
    etag: isCompressed ? `${answer.etag.slice(0, -1)}-gzip"` : answer.etag,
    // What a token shows may be for its bearer alone; what is shown without one is for everybody.
    'cache-control': isPublic ? 'public, max-age=1, stale-while-revalidate=5' : 'private, max-age=1',
    vary: `${vary === undefined ? '' : `${vary}, `}Authorization, Accept-Encoding`
  }
}

/** Of an answer that was kept for longer than it may be, because there is nothing newer to be had (RFC 9211). */
export const overdueHeaders = (overdueMs: number): Record<string, string> =>
  ({ 'cache-status': 'halo; hit; detail=stale', age: String(Math.ceil(overdueMs / 1000)) })

/** Whether gzip is welcome (RFC 9110 §12.5.3); `gzip;q=0` says that it is not. */
export function takesGzip (accepted: string | string[] | undefined): boolean {
  return accepted !== undefined && /(?:^|,)\s*(?:gzip|x-gzip|\*)\s*(?:$|,|;\s*q=(?:1|0\.0*[1-9]))/i.test(String(accepted))
}

/** If-None-Match compares weakly (RFC 9110 §13.1.2), and the compressed answer is the same answer. */
export function isKnown (condition: string | undefined, { etag }: CachedAnswer): boolean {
  if (condition === undefined) return false
  if (condition.trim() === '*') return true
  const bare = etag.slice(1, -1)
  return condition.split(',').some(one => /^(?:W\/)?"(.*?)(?:-gzip)?"$/.exec(one.trim())?.[1] === bare)
}

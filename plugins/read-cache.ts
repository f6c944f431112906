import type { ServerResponse } from 'node:http'
import type { FastifyReply, FastifyRequest } from 'fastify'
import fp from 'fastify-plugin'
import { createCachedReads, type CachedReads } from '../services/cached-reads.ts'
import { Interest } from '../services/interest.ts'
import type { AdultView } from '../services/viewers.ts'
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
    /** Who asks, and which adult content they are shown. */
    viewer: Viewer | undefined
  }
}

/** Who reads. */
export interface Viewer {
  /** Undefined without a token. */
  userId: number | undefined
  view: AdultView
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
    // The hot path knows two views; the few who see only their own adult content are not answered there.
    if (method === 'GET' && viewer && viewer.view.ownerId === undefined) cachedReads.set(url, viewer.view.seesAll, key)
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

/**
 * Whether a client accepts gzip (RFC 9110 §12.5.3): the weight of `gzip` decides where it is named, else that of `*`.
 */
export function takesGzip (accepted: string | string[] | undefined): boolean {
  if (accepted === undefined) return false
  const header = String(accepted)
  // What nearly all clients send.
  if (/^(?:gzip|x-gzip)(?:,|$)/.test(header)) return true
  let any = false
  for (const item of header.split(',', 50)) {
    const [coding = '', ...parameters] = item.split(';', 5)
    const name = coding.trim().toLowerCase()
    if (name !== 'gzip' && name !== 'x-gzip' && name !== '*') continue
    const weight = parameters.map(one => /^\s{0,9}q\s{0,9}=\s{0,9}([01](?:\.\d{0,3})?)\s{0,9}$/i.exec(one)?.[1]).find(one => one !== undefined)
    const isAccepted = parameters.length === 0 || (weight !== undefined && Number(weight) > 0)
    if (name !== '*') return isAccepted
    any = isAccepted
  }
  return any
}

/** If-None-Match compares weakly (RFC 9110 §13.1.2), and the compressed answer is the same answer. */
export function isKnown (condition: string | undefined, { etag }: Pick<CachedAnswer, 'etag'>): boolean {
  if (condition === undefined) return false
  if (condition.trim() === '*') return true
  const bare = etag.slice(1, -1)
  return condition.split(',').some(one => /^(?:W\/)?"(.*?)(?:-gzip)?"$/.exec(one.trim())?.[1] === bare)
}

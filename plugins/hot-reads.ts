import type { IncomingMessage } from 'node:http'
import fp from 'fastify-plugin'
import type { CachedAnswer } from '../services/read-cache.ts'
import { hasBody } from './hot-path.ts'
import { answerHeaders, contentType, isKnown, takesGzip } from './read-cache.ts'

/** A GET whose answer stands in the cache, of anybody or of a bearer who was seen a moment ago. */
export default fp(async function hotReads (app) {
  const { readCache, cachedReads, recentWriters, bearers, securityHeaders, corsHeaders, hotPath, services: { viewers } } = app
  const heads = new WeakMap<CachedAnswer, Map<object, Heads>>()

  function headsOf (answer: CachedAnswer, cors: Record<string, string>): Heads {
    let ofAnswer = heads.get(answer)
    if (!ofAnswer) heads.set(answer, ofAnswer = new Map())
    let found = ofAnswer.get(cors)
    if (!found) ofAnswer.set(cors, found = createHeads(answer, securityHeaders, cors))
    return found
  }

  /** Whether the sender sees adult content; undefined when that has to be asked, or must not come from memory. */
  function seesAdultContent ({ headers: { authorization } }: IncomingMessage): boolean | undefined {
    if (authorization === undefined) return false
    const bearer = bearers.peek(authorization)
    if (!bearer || recentWriters.has(bearer.user_id)) return undefined
    return viewers.peek(bearer.user_id)
  }

  hotPath.add((request, response) => {
    if (request.method !== 'GET' || hasBody(request)) return false
    const url = request.url!
    if (!cachedReads.hasAny(url)) return false
    const sees = seesAdultContent(request)
    if (sees === undefined) return false
    const key = cachedReads.get(url, sees)
    const answer = key === undefined ? undefined : readCache.peek(key)
    if (!answer) return false
    const { headers } = request
    const isCompressed = answer.isCompressible && takesGzip(headers['accept-encoding'])
    if (isCompressed && !answer.compressed) return false
    const admitted = hotPath.admit(request)
    if (!admitted) return false

    const head = headsOf(answer, corsHeaders(headers.origin))({ isCompressed, isPublic: headers.authorization === undefined })
    if (headers['if-none-match'] !== undefined && isKnown(headers['if-none-match'], answer)) {
      response.writeHead(304, ['x-request-id', admitted.id, ...head.notModified]).end()
    } else {
      response.writeHead(200, ['x-request-id', admitted.id, ...head.ok]).end(isCompressed ? answer.compressed : answer.body)
    }
    hotPath.log(admitted, request, response)
    return true
  })
}, { name: 'halo:hot-reads', dependencies: ['halo:hot-path', 'halo:auth', 'halo:cors', 'halo:read-cache', 'halo:security-headers', 'halo:services'] })

/** Names and values in turn, as writeHead takes them fastest. */
interface Head { ok: string[], notModified: string[] }

interface Variant { isCompressed: boolean, isPublic: boolean }

type Heads = (variant: Variant) => Head

function createHeads (answer: CachedAnswer, security: Record<string, string>, cors: Record<string, string>): Heads {
  function headFor (variant: Variant): Head {
    const notModified = Object.entries({ ...security, ...cors, ...answerHeaders(answer, { ...variant, vary: cors['vary'] }) }).flat()
    const length = variant.isCompressed ? answer.compressed!.length : Buffer.byteLength(answer.body)
    return {
      notModified,
      ok: [...notModified, 'content-type', contentType, ...(variant.isCompressed ? ['content-encoding', 'gzip'] : []), 'content-length', String(length)]
    }
  }
  // Most answers are asked for in one of the four ways.
  const made: (Head | undefined)[] = []
  return variant => {
    const index = 2 * Number(variant.isCompressed) + Number(variant.isPublic)
    return (made[index] ??= headFor(variant))
  }
}

import { buffer } from 'node:stream/consumers'
import swagger from '@fastify/swagger'
import swaggerUi from '@fastify/swagger-ui'
import type { FastifyReply, FastifyRequest } from 'fastify'
import fp from 'fastify-plugin'
import { catalogue } from '../schemas/error-catalogue.ts'
import { Problem, problemExamples } from '../schemas/problem.ts'
import { finishDocument } from '../services/http/openapi-document.ts'
import { description, tags } from '../services/http/openapi-guides.ts'
import { createStaticResponse, type StaticResponse } from '../services/http/static-response.ts'
import { isKnown, takesGzip } from './response-cache.ts'

declare module 'fastify' {
  interface FastifyReply {
    /** Sends a static response: with ETag, 304, compression and caching. @param maxAge seconds */
    sendStatic (response: StaticResponse, maxAge: number): FastifyReply
  }
}

const logo =
  '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 150 40" height="40"><circle cx="20" cy="20" r="13" fill="none" stroke="#ffd166" stroke-width="5"/><text x="44" y="28" font-family="sans-serif" font-size="24" font-weight="700" fill="#fff">HALO</text></svg>'

/** Seconds for which clients may cache the files of the API page: they change with the version of a package. */
const fileMaxAge = 86_400

/** The path of the API page or one of its files, without escapes, empty segments or dot segments. */
const plainPath = /^\/docs(?:\/static)?(?:\/\w[\w.-]*)?\/?$/

/** Tokens that a file of the API page costs: sending the largest one, compressed, takes about 0.5 ms of CPU. */
const fileCost = 10

/** OpenAPI 3.1, generated from the schemas of the routes: `/openapi.json`, and an interactive page, `/docs`. */
export default fp(async function openapi (app) {
  app.addSchema(Problem)
  app.decorateReply('sendStatic', sendStatic)
  if (!app.config.hasApiDocs) return
  await app.register(swagger, {
    transformObject: document =>
      'openapiObject' in document
        ? finishDocument(document.openapiObject, { codes: Object.keys(catalogue), examples: problemExamples })
        : document.swaggerObject,
    refResolver: { buildLocalReference: json => json['title'] as string },
    openapi: {
      openapi: '3.1.0',
      info: {
        title: 'HALO API',
        version: '1.0.0',
        description,
        contact: { name: 'The maintainers of the HALO API' },
        license: { name: 'MIT', identifier: 'MIT' }
      },
      servers: [{ url: app.config.publicUrl || '/' }],
      tags,
      components: {
        securitySchemes: {
          bearer: {
            type: 'http',
            scheme: 'bearer',
            bearerFormat: 'JWT',
            description: 'The access token: `token` of register, login or refresh'
          }
        }
      }
    }
  })
  app.register(async function docs (scope) {
    scope.addHook('onRequest', app.costing(fileCost))
    keepResponses(scope)
    await scope.register(swaggerUi, {
      routePrefix: '/docs',
      // The page may load its own files and call this service. No upgrade to https, which a local server does not have.
      staticCSP: {
        'default-src': "'self'",
        'img-src': "'self' data:",
        'style-src': "'self' 'unsafe-inline'",
        'object-src': "'none'",
        'base-uri': "'none'",
        'frame-ancestors': "'none'"
      },
      theme: { title: 'HALO API' },
      logo: { type: 'image/svg+xml', content: Buffer.from(logo) },
      uiConfig: { tryItOutEnabled: true, persistAuthorization: true, displayRequestDuration: true }
    })
  })
}, { name: 'halo:openapi', dependencies: ['halo:config', 'halo:security-headers', 'halo:rate-limit'] })

/**
 * Caches the responses of a scope for ever: the files of the API page are read and compressed once per process. A
 * file is cached under its plain path only: it has any number of spellings (%73wagger, static//), and each would take
 * CPU time and memory.
 */
function keepResponses (scope: { addHook: Function }): void {
  const kept = new Map<string, StaticResponse>()
  const pathOf = ({ url }: FastifyRequest): string => url.split('?', 1)[0]!

  scope.addHook('preHandler', async (request: FastifyRequest, reply: FastifyReply) => {
    const response = kept.get(pathOf(request))
    if (response) return await reply.sendStatic(response, fileMaxAge)
  })
  scope.addHook('onSend', async (request: FastifyRequest, reply: FastifyReply, payload: unknown) => {
    const path = pathOf(request)
    if (request.method !== 'GET' || reply.statusCode !== 200 || kept.has(path) || !plainPath.test(path)) return payload
    const body = await bytesOf(payload)
    // Another request may have compressed it meanwhile.
    const response = kept.get(path) ?? createStaticResponse(body, String(reply.getHeader('content-type') ?? ''))
    kept.set(path, response)
    return encode(request, reply, response, fileMaxAge) ?? ''
  })
}

async function bytesOf (payload: unknown): Promise<Buffer> {
  if (Buffer.isBuffer(payload)) return payload
  if (typeof payload === 'string') return Buffer.from(payload)
  return await buffer(payload as AsyncIterable<Buffer>)
}

function sendStatic (this: FastifyReply, response: StaticResponse, maxAge: number): FastifyReply {
  return this.send(encode(this.request, this, response, maxAge))
}

/** Sets the headers of a static response. @returns its body; undefined for a 304 */
function encode (
  { headers }: FastifyRequest,
  reply: FastifyReply,
  { body, compressed, etag, contentType }: StaticResponse,
  maxAge: number
): Buffer | undefined {
  const isCompressed = compressed !== undefined && takesGzip(headers['accept-encoding'])
  const before = reply.getHeader('vary')
  for (const name of ['last-modified', 'accept-ranges', 'content-length']) reply.removeHeader(name)
  reply.headers({
    etag: isCompressed ? `${etag.slice(0, -1)}-gzip"` : etag,
    'cache-control': `public, max-age=${maxAge}`,
    vary: before === undefined ? 'Accept-Encoding' : `${String(before)}, Accept-Encoding`
  })
  if (headers['if-none-match'] !== undefined && isKnown(headers['if-none-match'], { etag })) {
    reply.code(304).removeHeader('content-type')
    return undefined
  }
  reply.header('content-type', contentType)
  if (isCompressed) reply.header('content-encoding', 'gzip')
  const bytes = isCompressed ? compressed : body
  reply.header('content-length', bytes.length)
  return bytes
}

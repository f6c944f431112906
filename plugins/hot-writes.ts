import type { IncomingMessage, ServerResponse } from 'node:http'
import buildSerializer from 'fast-json-stringify'
import fp from 'fastify-plugin'
import { Engagement } from '../schemas/engagement.ts'
import { recorded } from '../services/engagement.ts'
import { answerError } from './errors.ts'
import { hasBody, type Admitted } from './hot-path.ts'
import { contentType } from './read-cache.ts'

const address = /^\/api\/v1\/videos\/([1-9]\d{0,14})\/engagement\/(likes|live_viewers|comments)$/

/**
 * Likes, heartbeats and comments without a body, a key or anything else to be looked at, of a bearer who was seen a
 * moment ago.
 */
export default fp(async function hotWrites (app) {
  const { bearers, recentWriters, securityHeaders, corsHeaders, hotPath, log } = app
  const { engagement } = app.counters
  const serialize = buildSerializer(Engagement)
  const operations: Record<string, (videoId: number, userId: number) => Promise<Engagement>> = {
    'POST likes': async (videoId, userId) => recorded(await engagement.like(videoId, userId)),
    'DELETE likes': async (videoId, userId) => recorded(await engagement.unlike(videoId, userId)),
    'POST live_viewers': async (videoId, userId) => recorded(await engagement.heartbeat(videoId, userId)),
    'DELETE live_viewers': async (videoId, userId) => recorded(await engagement.leave(videoId, userId)),
    'POST comments': async (videoId, userId) => (await engagement.comment(videoId, userId, { payload: undefined })).body
  }
  const heads = new Map<object, string[]>()

  function headFor (cors: Record<string, string>): string[] {
    let head = heads.get(cors)
    if (!head) heads.set(cors, head = Object.entries({ ...securityHeaders, ...cors }).flat())
    return head
  }

  function send (request: IncomingMessage, response: ServerResponse, admitted: Admitted, status: number, headers: string[], body: string): void {
    response.writeHead(status, [
      'x-request-id', admitted.id, ...headFor(corsHeaders(request.headers.origin)), ...headers, 'content-length', String(Buffer.byteLength(body))
    ]).end(body)
    hotPath.log(admitted, request, response)
  }

  hotPath.add((request, response) => {
    if ((request.method !== 'POST' && request.method !== 'DELETE') || hasBody(request)) return false
    const { authorization, 'idempotency-key': idempotencyKey } = request.headers
    if (authorization === undefined || idempotencyKey !== undefined) return false
    const match = address.exec(request.url!)
    const operate = match && operations[`${request.method} ${match[2]}`]
    if (!operate) return false
    const bearer = bearers.peek(authorization)
    const admitted = bearer && hotPath.admit(request)
    if (!admitted) return false

    operate(Number(match[1]), bearer.user_id).then(answer => {
      recentWriters.add(bearer.user_id)
      send(request, response, admitted, 200, ['content-type', contentType], serialize(answer))
    }, (error: unknown) => {
      const { status, headers, body } = answerError(app, error, {
        url: request.url!, requestId: admitted.id, hasToken: true, log: log.child({ reqId: admitted.id })
      })
      send(request, response, admitted, status, Object.entries(headers).flat(), JSON.stringify(body))
    }).catch((error: unknown) => {
      log.error({ err: error, reqId: admitted.id }, 'an answer could not be sent')
      response.destroy()
    })
    return true
  })
}, { name: 'halo:hot-writes', dependencies: ['halo:hot-path', 'halo:auth', 'halo:cors', 'halo:counters', 'halo:errors', 'halo:read-cache', 'halo:security-headers'] })

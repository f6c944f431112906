import buildSerializer from 'fast-json-stringify'
import fp from 'fastify-plugin'
import { Engagement } from '../schemas/engagement.ts'
import { recorded } from '../services/engagement.ts'
import { serializeFields } from '../services/serialized-head.ts'
import { hasBody } from './hot-path.ts'
import { contentType } from './read-cache.ts'

const address = /^\/api\/v1\/videos\/([1-9]\d{0,14})\/engagement\/(likes|live_viewers|comments)$/

/**
 * Likes, heartbeats and comments without a body, a key or anything else to be looked at, of a bearer who was seen a
 * moment ago.
 */
export default fp(async function hotWrites (app) {
  const { bearers, recentWriters, hotPath, limits: { engagement: limit }, log } = app
  const { engagement } = app.counters
  const serialize = buildSerializer(Engagement)
  const fields = serializeFields(['content-type', contentType])
  const operations: Record<string, (videoId: number, userId: number) => Promise<Engagement>> = {
    'POST likes': async (videoId, userId) => recorded(await engagement.like(videoId, userId)),
    'DELETE likes': async (videoId, userId) => recorded(await engagement.unlike(videoId, userId)),
    'POST live_viewers': async (videoId, userId) => recorded(await engagement.heartbeat(videoId, userId)),
    'DELETE live_viewers': async (videoId, userId) => recorded(await engagement.leave(videoId, userId)),
    'POST comments': async (videoId, userId) => (await engagement.comment(videoId, userId, { payload: undefined })).body
  }

  hotPath.shortcuts.push((arrival, request, response) => {
    if ((request.method !== 'POST' && request.method !== 'DELETE') || hasBody(request)) return false
    const { authorization, 'idempotency-key': idempotencyKey } = request.headers
    if (authorization === undefined || idempotencyKey !== undefined) return false
    const match = address.exec(request.url!)
    const operate = match && operations[`${request.method} ${match[2]}`]
    if (!operate) return false
    const bearer = bearers.peek(authorization)
    if (!bearer) return false
    const left = limit.take(String(bearer.user_id))
    arrival.ownToken = { limit, left }
    if (left < 0) {
      hotPath.sendError(arrival, request, response, limit.refusal(-left))
      return true
    }

    operate(Number(match[1]), bearer.user_id).then(answer => {
      recentWriters.add(bearer.user_id)
      hotPath.send(arrival, request, response, { status: 200, fields, body: serialize(answer) })
    }, (error: unknown) => {
      hotPath.sendError(arrival, request, response, error)
    }).catch((error: unknown) => {
      log.error({ err: error, reqId: arrival.id }, 'an answer could not be sent')
      response.destroy()
    })
    return true
  })
}, { name: 'halo:hot-writes', dependencies: ['halo:hot-path', 'halo:auth', 'halo:counters', 'halo:recent-writers'] })

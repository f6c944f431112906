import { Type } from '@sinclair/typebox'
import type { FastifyReply, FastifyRequest, onRequestAsyncHookHandler } from 'fastify'
import { Id, IdempotencyKey, optionalToken, PathId } from '../../../schemas/atoms.ts'
import { Counters, CountersOfVideo, Engagement, Metric, StreamEvent } from '../../../schemas/engagement.ts'
import { responses, withHeaders } from '../../../schemas/problem.ts'
import type { Handler, Routes } from '../../../schemas/route.ts'
import { clientKey } from '../../../services/http/client-key.ts'
import { recorded } from '../../../services/engagement/engagement.ts'
import { ApiError } from '../../../services/shared/errors.ts'

const tags = ['engagement']
const params = Type.Object({ id: PathId('Id of the video') })
const ofWriting = [
  'invalid_id',
  'unauthorized',
  'adult_content_restricted',
  'not_found',
  'payload_too_large',
  'engagement_unavailable'
] as const

const likeSchema = {
  operationId: 'likeVideo',
  summary: 'Like a video',
  description:
    'A user likes a video once, however often this is sent. It is safe to repeat.',
  tags,
  params,
  response: responses({ 200: Engagement }, [...ofWriting, 'engagement_unconfirmed'])
}
const unlikeSchema = {
  ...likeSchema,
  operationId: 'unlikeVideo',
  summary: 'Take a like back',
  description: 'It is safe to repeat, also for a video that the caller does not like.'
}
const commentSchema = {
  operationId: 'countComment',
  summary: 'Count one comment',
  description:
    'A request that is repeated with the same `Idempotency-Key` within a day gets the same answer and counts once. A key is the caller’s own, for one video.',
  tags,
  params,
  headers: Type.Object({
    'idempotency-key': IdempotencyKey('Repeated with the same key, the comment counts once')
  }),
  response: responses({ 200: withHeaders(Engagement, { 'Idempotency-Replayed': 'true for a repeated request' }) }, [
    ...ofWriting,
    'engagement_unconfirmed',
    'idempotency_in_flight',
    'idempotency_key_reused',
    'unsupported_media_type'
  ])
}
const heartbeatSchema = {
  operationId: 'sendHeartbeat',
  summary: 'Say that the caller is watching, every 15 seconds',
  description:
    'A viewer counts at once and for 45 seconds after the last heartbeat. The first heartbeat 30 seconds or more after the first one is a view, once in half an hour. A user who watches in several tabs or on several devices is one viewer.',
  tags,
  params,
  headers: Type.Object({
    'x-client-id': Type.Optional(
      Type.String({
        pattern: '^[\\x21-\\x7e]{0,64}$',
        description:
          'Name of the tab or device, chosen by the client: a departure ends the part of this client only. At most 8 of a user and video are kept',
        examples: ['tab-5f2c']
      })
    )
  }),
  response: responses({ 200: Engagement }, [...ofWriting])
}
const leaveSchema = {
  ...heartbeatSchema,
  operationId: 'leaveVideo',
  summary: 'Say that the caller has stopped watching',
  description:
    'Without it a viewer is gone 45 seconds after the last heartbeat. A user with another client that is watching stays.'
}
const otherMetricSchema = {
  ...likeSchema,
  operationId: 'refuseMetric',
  summary: 'Any other metric is refused',
  hide: true,
  params: Type.Object({ id: PathId('Id of the video'), metric: Metric }),
  response: responses({ 200: Engagement }, [...ofWriting, 'invalid_metric'])
}
const getSchema = {
  operationId: 'getCounters',
  summary: 'The counters of one video',
  description:
    'With a token the answer also says whether the caller likes the video.',
  tags,
  params,
  security: optionalToken,
  response: responses({ 200: Counters }, ['invalid_id', 'adult_content_restricted', 'not_found'])
}
const listSchema = {
  operationId: 'listCounters',
  summary: 'The counters of up to 100 videos',
  description: 'In the order of the ids; videos that do not exist, or are not for the caller, are left out.',
  tags,
  querystring: Type.Object({
    ids: Type.Array(Id, {
      minItems: 1,
      maxItems: 100,
      description: 'Ids, with commas between them',
      examples: [[1, 2, 3]]
    })
  }),
  security: optionalToken,
  response: responses({ 200: Type.Array(CountersOfVideo) })
}
const streamSchema = {
  operationId: 'streamCounters',
  summary: 'The counters of one video, as Server-Sent Events',
  description:
    'An event `counters` at once, and then at most one a second when something has changed; an event `end` when the video is deleted. `data` of each event is JSON, as the schema of the answer describes it. The id of an event identifies its counts: a client that reconnects with `Last-Event-ID` is not sent what it knows. A comment every 15 seconds keeps the connection open. Clients that cannot read a response before it ends set `duration`.',
  tags,
  params,
  produces: ['text/event-stream'],
  security: optionalToken,
  querystring: Type.Object({
    duration: Type.Optional(
      Type.Integer({
        minimum: 1,
        maximum: 3600,
        description: 'Seconds after which the service ends the stream; without it the stream has no end',
        examples: [3]
      })
    )
  }),
  headers: Type.Object({
    'last-event-id': Type.Optional(
      Type.String({
        description: 'Id of the last event that the client has received'
      })
    )
  }),
  response: responses({
    200: StreamEvent
  }, ['invalid_id', 'adult_content_restricted', 'not_found', 'server_busy'])
}

const routes: Routes = async app => {
  // Reading 100 counters takes as much CPU as some 20 hot reads.
  const preHandler = app.costing(request => Math.ceil((request.query as { ids: number[] }).ids.length / 5))
  app.get('/videos/engagement', { schema: listSchema, preHandler }, list)
  app.get('/videos/:id/engagement', { schema: getSchema }, get)
  app.get('/videos/:id/engagement/stream', { schema: streamSchema, exposeHeadRoute: false }, stream)

  app.authenticated(scope => {
    const onRequest = scope.limited('engagement')
    scope.post('/videos/:id/engagement/likes', { schema: likeSchema, onRequest }, like)
    scope.delete('/videos/:id/engagement/likes', { schema: unlikeSchema, onRequest }, unlike)
    scope.post('/videos/:id/engagement/comments', {
      schema: commentSchema,
      onRequest: [onRequest, onlyWithKey(scope.limited('idempotency', { isSilent: true }))]
    }, comment)
    const ofPresence = { onRequest, config: { isNoContentWrite: true } }
    scope.post('/videos/:id/engagement/live_viewers', { schema: heartbeatSchema, ...ofPresence }, heartbeat)
    scope.delete('/videos/:id/engagement/live_viewers', { schema: leaveSchema, ...ofPresence }, leave)
    scope.post('/videos/:id/engagement/:metric', { schema: otherMetricSchema, onRequest }, refuseMetric)
  })
}
export default routes

const like: Handler<typeof likeSchema> = async function (request) {
  return recorded(await this.counters.engagement.like(request.params.id, request.user.user_id))
}

const unlike: Handler<typeof unlikeSchema> = async function (request) {
  return recorded(await this.counters.engagement.unlike(request.params.id, request.user.user_id))
}

const comment: Handler<typeof commentSchema> = async function (request, reply) {
  const { body, isReplay } = await this.counters.engagement.comment(request.params.id, request.user.user_id, {
    key: request.headers['idempotency-key'],
    payload: request.body
  })
  if (isReplay) reply.header('idempotency-replayed', 'true')
  return body
}

const presenceOf = (
  { params, user, headers }: { params: { id: number }, user: { user_id: number }, headers: { 'x-client-id'?: string } }
): [videoId: number, userId: number, client: string] => [params.id, user.user_id, headers['x-client-id'] ?? '']

const heartbeat: Handler<typeof heartbeatSchema> = async function (request) {
  return recorded(await this.counters.engagement.heartbeat(...presenceOf(request)))
}

const leave: Handler<typeof leaveSchema> = async function (request) {
  return recorded(await this.counters.engagement.leave(...presenceOf(request)))
}

const refuseMetric: Handler<typeof otherMetricSchema> = async function () {
  throw new ApiError('invalid_metric')
}

const get: Handler<typeof getSchema> = async function (request, reply) {
  const counters = await this.counters.engagement.countersOf(request.params.id, this.callerOf(request))
  return await reply.header('cache-control', 'no-store').send(counters)
}

const list: Handler<typeof listSchema> = async function (request, reply) {
  return await reply.header('cache-control', 'no-store')
    .send(await this.counters.engagement.countersShown(request.query.ids, this.callerOf(request)))
}

/** Applies a limit to comments with an Idempotency-Key only: each key takes memory in Redis for a day. */
function onlyWithKey (limit: onRequestAsyncHookHandler): onRequestAsyncHookHandler {
  return async function (request, reply) {
    if (request.headers['idempotency-key'] !== undefined) await limit.call(this, request, reply)
  }
}

const stream: Handler<typeof streamSchema> = async function (request, reply) {
  const { streams } = this.services
  const client = clientKey(request.clientAddress)
  streams.requireRoom(client)
  const counters = await this.counters.engagement.countersOf(request.params.id, this.callerOf(request))
  const { raw } = openEventStream(request, reply)
  // A client that left while the counters were read would emit no further `close` event.
  if (raw.destroyed || raw.socket === null || raw.socket.destroyed) return
  raw.on(
    'close',
    streams.add(raw, counters, { client, lastEventId: request.headers['last-event-id'] })
  )
  const { duration } = request.query
  if (duration !== undefined) {
    const timer = setTimeout(() => raw.end(), duration * 1000)
    raw.on('close', () => clearTimeout(timer))
  }
  if (this.lifecycle.isDraining) streams.sendAway(raw)
}

/** Turns a reply into an event stream: Fastify sends nothing more, and idle connections are not closed. */
function openEventStream (request: FastifyRequest, reply: FastifyReply): FastifyReply {
  reply.hijack()
  request.server.requests.markAsStream(request)
  reply.raw.writeHead(200, {
    ...request.server.responseHeaders.of(request),
    'content-type': 'text/event-stream; charset=utf-8',
    'cache-control': 'no-cache, no-transform',
    // Otherwise nginx buffers the events.
    'x-accel-buffering': 'no'
  })
  reply.raw.on('error', () => {})
  reply.raw.socket?.setTimeout(0)
  return reply
}

import { Type } from '@sinclair/typebox'
import type { FastifyRequest } from 'fastify'
import { IdempotencyKey, optionalToken, PathId } from '../../../schemas/atoms.ts'
import { cachingHeaders, Nothing, NotModified, responses, withHeaders } from '../../../schemas/problem.ts'
import type { Handler, Routes } from '../../../schemas/route.ts'
import { entityTag, versionsOf } from '../../../services/http/response-cache.ts'
import { pageAddress, pageKey, videoKey, videoKeyPrefix } from '../../../services/videos/cache-keys.ts'
import type { AdultView } from '../../../services/accounts/adult-access.ts'
import { NewVideo, Video, VideoListQuery, VideoPatch } from '../../../schemas/video.ts'

/** Maximum extra tokens of a deep page: a statement is stopped after half a second. */
const maxCost = 100

const tags = ['videos']
const params = Type.Object({ id: PathId('Id of the video') })
const ofBody = ['unauthorized', 'payload_too_large', 'unsupported_media_type'] as const
const pages =
  'Newest first. `Link` with `rel="next"` and `X-Next-Cursor` lead to the next page; the last one has neither.'

const pageHeaders = {
  ...cachingHeaders,
  Link: 'Address of the next page, with rel="next"; the last page has none',
  'X-Next-Cursor': 'Cursor of the next page; the last page has none'
}
const ofPages = { 200: withHeaders(Type.Array(Video), pageHeaders), 304: withHeaders(Nothing, pageHeaders) }

const listSchema = {
  operationId: 'listVideos',
  summary: 'List videos, newest first',
  description: pages,
  tags,
  querystring: VideoListQuery,
  security: optionalToken,
  response: responses(ofPages, ['invalid_cursor'])
}
const listOfUserSchema = {
  operationId: 'listVideosOfUser',
  summary: 'List the videos of one user, newest first',
  description: pages,
  tags,
  params: Type.Object({ user_id: PathId('Id of the user') }),
  querystring: VideoListQuery,
  security: optionalToken,
  response: responses(ofPages, ['invalid_id', 'invalid_cursor'])
}
const getSchema = {
  operationId: 'getVideo',
  summary: 'Get one video',
  description:
    'Can be cached: it has an `ETag`, which `If-None-Match` and `If-Match` take.',
  tags,
  params,
  security: optionalToken,
  response: responses({ 200: withHeaders(Video, cachingHeaders), 304: NotModified }, [
    'invalid_id',
    'not_found',
    'adult_content_restricted'
  ])
}
const createSchema = {
  operationId: 'publishVideo',
  summary: 'Publish a video, or go live',
  description:
    'A request that is repeated with the same `Idempotency-Key` within a day answers with the video that the first one published.',
  tags,
  headers: Type.Object({ 'idempotency-key': IdempotencyKey('Repeated with the same key, the video is published once') }),
  body: NewVideo,
  response: responses({ 201: withHeaders(Video, { Location: 'Path of the video', 'Idempotency-Replayed': 'true for a repeated request' }) }, [
    ...ofBody,
    'not_an_adult',
    'not_found',
    'too_many_live_videos',
    'idempotency_key_reused'
  ])
}
const updateSchema = {
  operationId: 'updateVideo',
  summary: 'Change an own video, go live or stop',
  description:
    'Only the members that are sent are changed. With `If-Match`, only the version that was read is changed.',
  tags,
  params,
  headers: Type.Object({
    'if-match': Type.Optional(
      Type.String({
        maxLength: 2000,
        description:
          'The `ETag` of the video as it was read: if its content has changed since, nothing is changed. Counters do not matter'
      })
    )
  }),
  body: VideoPatch,
  response: responses({ 200: withHeaders(Video, { ETag: 'Validator for If-Match' }) }, [
    ...ofBody,
    'invalid_id',
    'forbidden',
    'not_an_adult',
    'not_found',
    'precondition_failed',
    'too_many_live_videos'
  ])
}
const removeSchema = {
  operationId: 'deleteVideo',
  summary: 'Delete an own video and all that was counted for it',
  description:
    'Its counters, likes and viewers are deleted with it. Streams of its counters end with the event `end`.',
  tags,
  params,
  response: responses({ 204: Nothing }, [
    'unauthorized',
    'invalid_id',
    'forbidden',
    'not_found',
    'payload_too_large'
  ])
}

const routes: Routes = async app => {
  const preHandler = app.costing(request => 1 + Math.min(maxCost, Math.floor(pageOf(request).query.offset / 10_000)))
  app.get('/videos', { schema: listSchema, preHandler, config: { cacheKey: pageKeyOf } }, list)
  app.get('/users/:user_id/videos', { schema: listOfUserSchema, preHandler, config: { cacheKey: pageKeyOf } }, list)
  app.get('/videos/:id', { schema: getSchema, config: { cacheKey: videoKeyOf } }, get)

  app.authenticated(scope => {
    scope.post('/videos', { schema: createSchema, preHandler: scope.limited('publishing') }, create)
    scope.patch('/videos/:id', { schema: updateSchema }, update)
    scope.delete('/videos/:id', { schema: removeSchema }, remove)
  })
}
export default routes

const videoKeyOf = ({ params }: FastifyRequest, view: AdultView): string =>
  videoKey((params as { id: number }).id, view)

/** The list of all videos, or of one user's. */
const pageOf = ({ query, params }: FastifyRequest) => ({
  query: query as VideoListQuery,
  userId: (params as { user_id?: number }).user_id
})

function pageKeyOf (request: FastifyRequest, view: AdultView): string {
  const { query, userId } = pageOf(request)
  return pageKey(query, userId, view)
}

const list: Handler<typeof listSchema> = async function (request, reply) {
  const { services: { videos }, config: { publicUrl } } = this
  const { query, userId } = pageOf(request as FastifyRequest)
  const { limit, offset, cursor, live, adult } = query
  return await reply.sendCached(async reader => {
    const { videos: value, nextCursor } = await videos.list({ live, adult, userId }, { limit, offset, cursor }, reader)
    if (nextCursor === undefined) return { value }
    const next = pageAddress({ ...query, offset: 0, cursor: nextCursor }, userId)
    return { value, headers: { link: `<${publicUrl}${next}>; rel="next"`, 'x-next-cursor': nextCursor } }
  })
}

const get: Handler<typeof getSchema> = async function (request, reply) {
  const { id } = request.params
  return await reply.sendCached(async reader => {
    const video = await this.services.videos.get(id, reader)
    return { value: video, version: video.version }
  })
}

const create: Handler<typeof createSchema> = async function (request, reply) {
  const { user: { user_id: userId }, body, headers } = request
  const { video, isReplay } = await this.services.videos.create(userId, body, headers['idempotency-key'])
  if (isReplay) reply.header('idempotency-replayed', 'true')
  return await reply.code(201).header('location', `/api/v1/videos/${video.id}`).send(video)
}

const update: Handler<typeof updateSchema> = async function (request, reply) {
  const { params: { id }, user: { user_id: userId }, body } = request
  const video = await this.services.videos.update(id, userId, body, versionsOf(request.headers['if-match']))
  this.responseCache.forget(videoKeyPrefix(id))
  return await reply.header('etag', entityTag(reply.serialize(video) as string, video.version)).send(video)
}

const remove: Handler<typeof removeSchema> = async function (request, reply) {
  const { id } = request.params
  await this.services.videos.remove(id, request.user.user_id)
  this.responseCache.forget(videoKeyPrefix(id))
  return await reply.code(204).send(null)
}

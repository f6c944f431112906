import { Type } from '@sinclair/typebox'
import type { FastifyReply, FastifyRequest } from 'fastify'
import { PathId } from '../../../schemas/atoms.ts'
import { responses } from '../../../schemas/problem.ts'
import type { Handler, Routes } from '../../../schemas/route.ts'
import { viewKey } from '../../../services/cached-videos.ts'
import type { AdultView } from '../../../services/viewers.ts'
import { NewVideo, Video, VideoListQuery, VideoPatch } from '../../../schemas/video.ts'

const tags = ['videos']
const params = Type.Object({ id: PathId('Id of the video') })
const ofBody = ['unauthorized', 'payload_too_large', 'unsupported_media_type'] as const
const pages = 'Newest first. `Link` with `rel="next"` and `X-Next-Cursor` lead to the next page; the last one has neither.'

const listSchema = {
  summary: 'Videos',
  description: pages,
  tags,
  querystring: VideoListQuery,
  response: responses({ 200: Type.Array(Video) }, ['invalid_cursor'])
}
const listOfUserSchema = {
  summary: 'Videos of one user',
  description: pages,
  tags,
  params: Type.Object({ user_id: PathId('Id of the user') }),
  querystring: VideoListQuery,
  response: responses({ 200: Type.Array(Video) }, ['invalid_id', 'invalid_cursor'])
}
const getSchema = {
  summary: 'One video',
  tags,
  params,
  response: responses({ 200: Video }, ['invalid_id', 'not_found', 'adult_content_restricted'])
}
const createSchema = {
  summary: 'Publish a video, or go live',
  tags,
  body: NewVideo,
  response: responses({ 201: Video }, [...ofBody, 'not_an_adult', 'too_many_live_videos'])
}
const updateSchema = {
  summary: 'Change an own video; `is_live` goes live and stops',
  tags,
  params,
  body: VideoPatch,
  response: responses({ 200: Video }, [...ofBody, 'invalid_id', 'forbidden', 'not_an_adult', 'not_found', 'too_many_live_videos'])
}
const removeSchema = {
  summary: 'Delete an own video and all that was counted for it',
  tags,
  params,
  response: responses({ 204: Type.Null({ title: 'Nothing' }) }, ['unauthorized', 'invalid_id', 'forbidden', 'not_found'])
}

const routes: Routes = async app => {
  app.get('/videos', { schema: listSchema }, list)
  app.get('/users/:user_id/videos', { schema: listOfUserSchema }, listOfUser)
  app.get('/videos/:id', { schema: getSchema }, get)

  app.authenticated(scope => {
    scope.post('/videos', { schema: createSchema, preHandler: scope.limited('publishing') }, create)
    scope.patch('/videos/:id', { schema: updateSchema }, update)
    scope.delete('/videos/:id', { schema: removeSchema }, remove)
  })
}
export default routes

const list: Handler<typeof listSchema> = async function (request, reply) {
  return await sendPage(request, reply, request.query)
}

const listOfUser: Handler<typeof listOfUserSchema> = async function (request, reply) {
  return await sendPage(request, reply, request.query, request.params.user_id)
}

const get: Handler<typeof getSchema> = async function (request, reply) {
  const { id } = request.params
  const { key, load } = this.services.cachedVideos.one(id, await readViewer(request))
  return await reply.sendCached(key, load)
}

const create: Handler<typeof createSchema> = async function (request, reply) {
  const video = await this.services.videos.create(request.user.user_id, request.body)
  return await reply.code(201).header('location', `/api/v1/videos/${video.id}`).send(video)
}

const update: Handler<typeof updateSchema> = async function (request) {
  const { id } = request.params
  const video = await this.services.videos.update(id, request.user.user_id, request.body)
  this.readCache.forget(this.services.cachedVideos.prefix(id))
  return video
}

const remove: Handler<typeof removeSchema> = async function (request, reply) {
  const { id } = request.params
  await this.services.videos.remove(id, request.user.user_id)
  this.readCache.forget(this.services.cachedVideos.prefix(id))
  return await reply.code(204).send(null)
}

/** Who reads, and which adult content they are shown. */
async function readViewer (request: FastifyRequest): Promise<AdultView> {
  const { server } = request
  const userId = server.callerOf(request)
  // Read-your-writes: their own first adult video changes what they are shown.
  if (userId !== undefined && server.recentWriters.has(userId)) server.viewers.forget(userId)
  const view = await server.viewers.viewOf(userId)
  request.viewer = { userId, view }
  return view
}

async function sendPage (request: FastifyRequest, reply: FastifyReply, query: VideoListQuery, userId?: number): Promise<FastifyReply> {
  const { services: { videos }, config: { publicUrl } } = request.server
  const view = await readViewer(request)
  const { limit, offset, cursor, live, adult } = query
  return await reply.sendCached(`videos:${viewKey(view)}:${addressOf(query, userId)}`, async (isFresh, interest) => {
    const { videos: shown, nextCursor } = await videos.list({ live, adult, userId }, { limit, offset, cursor }, { view, isFresh, interest })
    return {
      body: serialize(reply, shown),
      ...nextCursor === undefined ? {} : { headers: { link: `<${publicUrl}${addressOf({ ...query, offset: 0, cursor: nextCursor }, userId)}>; rel="next"`, 'x-next-cursor': nextCursor } }
    }
  })
}

/**
 * The address of a page, from its parsed query alone. It is the cache key as well as the address in Link (RFC 8288): what
 * a client sends beyond the query that was parsed cannot reach another client's response.
 */
function addressOf ({ limit, offset, cursor, live, adult }: VideoListQuery, userId: number | undefined): string {
  const query = new URLSearchParams({ limit: String(limit) })
  if (offset > 0) query.set('offset', String(offset))
  if (live !== undefined) query.set('live', String(live))
  if (adult !== undefined) query.set('adult', adult)
  if (cursor !== undefined) query.set('cursor', cursor)
  return `/api/v1${userId === undefined ? '' : `/users/${userId}`}/videos?${query.toString()}`
}

/** By the schema of the route, as Fastify would. */
const serialize = (reply: FastifyReply, answer: unknown): string => reply.serialize(answer) as string

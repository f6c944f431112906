import { Type } from '@sinclair/typebox'
import type { FastifyReply, FastifyRequest } from 'fastify'
import { PathId } from '../../../schemas/atoms.ts'
import { responses } from '../../../schemas/problem.ts'
import type { Handler, Routes } from '../../../schemas/route.ts'
import { NewVideo, Video, VideoListOfUserQuery, VideoListQuery, VideoPatch } from '../../../schemas/video.ts'
import type { PageRequest, VideoFilters } from '../../../services/videos.ts'

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
  querystring: VideoListOfUserQuery,
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
  response: responses({ 201: Video }, [...ofBody])
}
const updateSchema = {
  summary: 'Change an own video; `is_live` goes live and stops',
  tags,
  params,
  body: VideoPatch,
  response: responses({ 200: Video }, [...ofBody, 'invalid_id', 'forbidden', 'not_found'])
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
    scope.post('/videos', { schema: createSchema }, create)
    scope.patch('/videos/:id', { schema: updateSchema }, update)
    scope.delete('/videos/:id', { schema: removeSchema }, remove)
  })
}
export default routes

const list: Handler<typeof listSchema> = async function (request, reply) {
  const { limit, offset, cursor, ...filters } = request.query
  return await sendPage(request, reply, filters, { limit, offset, cursor })
}

const listOfUser: Handler<typeof listOfUserSchema> = async function (request, reply) {
  const { limit, offset, cursor, adult } = request.query
  return await sendPage(request, reply, { adult, userId: request.params.user_id }, { limit, offset, cursor })
}

const get: Handler<typeof getSchema> = async function (request, reply) {
  const { id } = request.params
  const seesAdultContent = await readViewer(request)
  const { key, load } = this.services.cachedVideos.one(id, seesAdultContent)
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

/** Whether the caller may see adult content; reads are the same for all who may, and for all who may not. */
async function readViewer (request: FastifyRequest): Promise<boolean> {
  const { server } = request
  const userId = server.callerOf(request)
  const seesAdultContent = await server.services.viewers.seesAdultContent(userId)
  request.viewer = { userId, seesAdultContent }
  return seesAdultContent
}

async function sendPage (request: FastifyRequest, reply: FastifyReply, filters: VideoFilters, page: PageRequest): Promise<FastifyReply> {
  const { videos } = request.server.services
  const seesAdultContent = await readViewer(request)
  return await reply.sendCached(`videos:${seesAdultContent}:${JSON.stringify([filters, page])}`, async (isFresh, interest) => {
    const { videos: shown, nextCursor } = await videos.list(filters, page, { seesAdultContent, isFresh, interest })
    return {
      body: serialize(reply, shown),
      ...nextCursor === undefined ? {} : { headers: { link: linkToNext(request, nextCursor), 'x-next-cursor': nextCursor } }
    }
  })
}

/** Where the next page is (RFC 8288): the same address with another cursor and no offset. */
function linkToNext ({ url, server }: FastifyRequest, nextCursor: string): string {
  const next = new URL(url, 'http://service')
  next.searchParams.delete('offset')
  next.searchParams.set('cursor', nextCursor)
  return `<${server.config.publicUrl}${next.pathname}${next.search}>; rel="next"`
}

/** By the schema of the route, as Fastify would. */
const serialize = (reply: FastifyReply, answer: unknown): string => reply.serialize(answer) as string

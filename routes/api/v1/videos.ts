import { Type } from '@sinclair/typebox'
import type { FastifyReply, FastifyRequest } from 'fastify'
import { PathId } from '../../../schemas/atoms.ts'
import { responses } from '../../../schemas/problem.ts'
import type { Handler, Routes } from '../../../schemas/route.ts'
import { NewVideo, Video, VideoListOfUserQuery, VideoListQuery, VideoPatch } from '../../../schemas/video.ts'
import type { VideoPage } from '../../../services/videos.ts'

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
  const seesAdultContent = await this.services.viewers.seesAdultContent(this.callerOf(request))
  return sendPage(request, reply, await this.services.videos.list(filters, { limit, offset, cursor }, seesAdultContent))
}

const listOfUser: Handler<typeof listOfUserSchema> = async function (request, reply) {
  const { limit, offset, cursor, adult } = request.query
  const seesAdultContent = await this.services.viewers.seesAdultContent(this.callerOf(request))
  const filters = { adult, userId: request.params.user_id }
  return sendPage(request, reply, await this.services.videos.list(filters, { limit, offset, cursor }, seesAdultContent))
}

const get: Handler<typeof getSchema> = async function (request) {
  const seesAdultContent = await this.services.viewers.seesAdultContent(this.callerOf(request))
  return await this.services.videos.get(request.params.id, seesAdultContent)
}

const create: Handler<typeof createSchema> = async function (request, reply) {
  const video = await this.services.videos.create(request.user.user_id, request.body)
  return await reply.code(201).header('location', `/api/v1/videos/${video.id}`).send(video)
}

const update: Handler<typeof updateSchema> = async function (request) {
  return await this.services.videos.update(request.params.id, request.user.user_id, request.body)
}

const remove: Handler<typeof removeSchema> = async function (request, reply) {
  await this.services.videos.remove(request.params.id, request.user.user_id)
  return await reply.code(204).send(null)
}

/** The page, and where the next one is (RFC 8288): the same address with another cursor and no offset. */
function sendPage (request: FastifyRequest, reply: FastifyReply, { videos, nextCursor }: VideoPage): Video[] {
  if (nextCursor !== undefined) {
    const next = new URL(request.url, 'http://service')
    next.searchParams.delete('offset')
    next.searchParams.set('cursor', nextCursor)
    reply.header('link', `<${request.server.config.publicUrl}${next.pathname}${next.search}>; rel="next"`).header('x-next-cursor', nextCursor)
  }
  return videos
}

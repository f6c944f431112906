import { Type } from '@sinclair/typebox'
import { PathId } from '../../../schemas/atoms.ts'
import { responses } from '../../../schemas/problem.ts'
import type { Handler, Routes } from '../../../schemas/route.ts'
import { Page, Video, VideoListQuery } from '../../../schemas/video.ts'

const listSchema = {
  summary: 'Videos, newest first',
  tags: ['videos'],
  querystring: VideoListQuery,
  response: responses({ 200: Type.Array(Video) })
}
const getSchema = {
  summary: 'One video',
  tags: ['videos'],
  params: Type.Object({ id: PathId('Id of the video') }),
  response: responses({ 200: Video }, ['invalid_id', 'not_found'])
}
const listOfUserSchema = {
  summary: 'Videos of one user, newest first',
  tags: ['videos'],
  params: Type.Object({ user_id: PathId('Id of the user') }),
  querystring: Page,
  response: responses({ 200: Type.Array(Video) }, ['invalid_id'])
}
const routes: Routes = async app => {
  app.get('/videos', { schema: listSchema }, list)
  app.get('/videos/:id', { schema: getSchema }, get)
  app.get('/users/:user_id/videos', { schema: listOfUserSchema }, listOfUser)
}
export default routes

const list: Handler<typeof listSchema> = async function (request) {
  return await this.services.videos.list(request.query, request.query.live)
}

const get: Handler<typeof getSchema> = async function (request) {
  return await this.services.videos.get(request.params.id)
}

const listOfUser: Handler<typeof listOfUserSchema> = async function (request) {
  return await this.services.videos.listOfUser(request.params.user_id, request.query)
}

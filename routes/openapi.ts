import { Type } from '@sinclair/typebox'
import { responses } from '../schemas/problem.ts'
import type { Handler, Routes } from '../schemas/route.ts'

const documentSchema = {
  summary: 'This API as OpenAPI 3.1',
  tags: ['operations'],
  response: responses({ 200: Type.Object({}, { additionalProperties: true, title: 'OpenAPI' }) })
}

const routes: Routes = async app => {
  app.get('/openapi.json', { schema: documentSchema }, document)
}
export default routes

const document: Handler<typeof documentSchema> = async function () {
  return { ...this.swagger() }
}

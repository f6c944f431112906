import { Type } from '@sinclair/typebox'
import { cachingHeaders, NotModified, responses, withHeaders } from '../schemas/problem.ts'
import type { Handler, Routes } from '../schemas/route.ts'
import { createStaticResponse, type StaticResponse } from '../services/http/static-response.ts'

const documentSchema = {
  operationId: 'getDocument',
  summary: 'This API as OpenAPI 3.1',
  description:
    'This document, generated from the schemas that validate requests and serialise responses.',
  tags: ['operations'],
  response: responses({
    200: withHeaders(Type.Object({}, { additionalProperties: true, title: 'OpenAPI' }), cachingHeaders),
    304: NotModified
  })
}

/** Seconds for which clients may cache the document: it changes with the version of the service. */
const maxAge = 300

const routes: Routes = async app => {
  if (!app.config.hasApiDocs) return
  let response: StaticResponse | undefined

  const document: Handler<typeof documentSchema> = async function (request, reply) {
    response ??= createStaticResponse(Buffer.from(JSON.stringify(this.swagger())), 'application/json; charset=utf-8')
    return reply.sendStatic(response, maxAge) as never
  }
  app.get('/openapi.json', { schema: documentSchema, onRequest: app.costing(2) }, document)
}
export default routes

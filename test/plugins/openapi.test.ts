import t from 'tap'
import { createApp } from '../helpers/app.ts'
import { anyStores } from '../helpers/stores.ts'

interface Schema {
  type?: string | string[]
  properties?: Record<string, Schema>
  items?: Schema
  examples?: unknown[]
  enum?: unknown[]
  $ref?: string
}
interface Operation {
  summary?: string
  tags?: string[]
  security?: object[]
  parameters?: { name: string, in: string, example?: unknown, description?: string }[]
  requestBody?: { content: Record<string, { schema: Schema }> }
  responses: Record<
    string,
    { description: string, headers?: object, content?: Record<string, { schema: Schema, example?: unknown }> }
  >
}
interface Document {
  openapi: string
  paths: Record<string, Record<string, Operation>>
  components: { schemas: Record<string, Schema> }
  tags: { name: string }[]
}

/** Every member of an object that has neither an example nor a fixed set of values. */
function withoutExample (schema: Schema, path = ''): string[] {
  if (schema.properties) {
    return Object.entries(schema.properties).flatMap(([name, member]) => withoutExample(member, `${path}/${name}`))
  }
  if (schema.items) return withoutExample(schema.items, `${path}[]`)
  return schema.examples || schema.enum || path === '' ? [] : [path]
}

t.test('the document is OpenAPI 3.1 and describes every route with its errors and examples', async t => {
  const app = await createApp(t, { stores: anyStores() })
  const response = await app.inject('/openapi.json')
  t.equal(response.statusCode, 200)
  const document = response.json<Document>()
  t.equal(document.openapi, '3.1.0')
  t.strictSame(Object.keys(document.components.schemas), ['Problem'])
  const tags = document.tags.map(tag => tag.name)

  const operations = Object.entries(document.paths).flatMap(([path, methods]) =>
    Object.entries(methods).map(([method, operation]) => ({ name: `${method.toUpperCase()} ${path}`, operation }))
  )
  for (
    const contracted of [
      'GET /health',
      'POST /api/v1/auth/register',
      'POST /api/v1/auth/login',
      'GET /api/v1/auth/me',
      'GET /api/v1/videos',
      'GET /api/v1/videos/{id}',
      'GET /api/v1/users/{user_id}/videos',
      ...['likes', 'comments', 'live_viewers'].map(metric => `POST /api/v1/videos/{id}/engagement/${metric}`)
    ]
  ) {
    t.ok(operations.some(({ name }) => name === contracted), contracted)
  }
  for (const { name, operation } of operations) {
    t.match(operation.summary, /^[A-Z].{5}/, `${name} has a summary`)
    t.ok(operation.tags?.every(tag => tags.includes(tag)), `${name} has a known tag`)
    t.strictSame(
      (operation.parameters ?? []).filter(({ example, description }) => example === undefined || !description),
      [],
      `${name}: parameters have examples`
    )
    const needsToken =
      (await app.inject({ method: name.split(' ')[0] as 'GET', url: name.split(' ')[1]!.replaceAll(/\{\w+\}/g, '1') }))
        .statusCode === 401
    t.equal(operation.security !== undefined, needsToken, `${name}: security is documented where it is asked for`)
    t.equal('401' in operation.responses && operation.security !== undefined, needsToken)
    for (const status of ['400', '429', '500', '503']) t.ok(operation.responses[status], `${name} documents ${status}`)
    for (const [status, { description, content, headers }] of Object.entries(operation.responses)) {
      t.not(description, 'Default Response', `${name} ${status} is described`)
      if (content && 'application/problem+json' in content) {
        t.strictSame(content['application/problem+json']!.schema, { $ref: '#/components/schemas/Problem' })
        t.match(content['application/problem+json']!.example, { status: Number(status), error: /^[a-z_]+$/ })
        if (['401', '429', '503'].includes(status)) t.ok(headers, `${name} ${status} documents its header`)
      } else if (status === '204') {
        t.equal(content, undefined, `${name} ${status} has no body`)
      } else {
        const [type] = Object.keys(content!)
        t.equal(
          type,
          name.endsWith('/stream')
            ? 'text/event-stream'
            : name.endsWith('/metrics')
              ? 'text/plain'
              : 'application/json',
          `${name} ${status}: the media type`
        )
        t.strictSame(withoutExample(content![type!]!.schema), [], `${name} ${status}: every member has an example`)
      }
    }
    if (operation.requestBody) {
      t.strictSame(
        withoutExample(operation.requestBody.content['application/json']!.schema),
        [],
        `${name}: the body has examples`
      )
    }
  }
})

t.test('every code of the catalogue can be looked up where a problem points at', async t => {
  const app = await createApp(t, { stores: anyStores(), env: { PUBLIC_URL: 'https://api.halo.example/' } })
  const kinds = (await app.inject('/errors')).json<{ error: string }[]>()
  t.ok(kinds.length > 10)
  for (const kind of kinds) t.strictSame((await app.inject(`/errors/${kind.error}`)).json(), kind)
  for (const code of ['nope', '__proto__', 'constructor', 'toString']) {
    t.equal((await app.inject(`/errors/${code}`)).statusCode, 404, code)
  }
  t.equal((await app.inject('/nope')).json<{ type: string }>().type, 'https://api.halo.example/errors/not_found')
})

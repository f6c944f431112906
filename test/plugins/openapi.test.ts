import t from 'tap'
import { catalogue } from '../../schemas/error-catalogue.ts'
import { addVideo, createApp, signUp } from '../helpers/app.ts'
import { anyStores } from '../helpers/stores.ts'

interface Schema {
  type?: string | string[]
  properties?: Record<string, Schema>
  items?: Schema
  anyOf?: Schema[]
  examples?: unknown[]
  enum?: unknown[]
  $ref?: string
}
interface Operation {
  operationId?: string
  summary?: string
  tags?: string[]
  security?: object[]
  parameters?: {
    name: string
    in: string
    example?: unknown
    description?: string
    required?: boolean
    schema: Schema
    style?: string
    explode?: boolean
  }[]
  requestBody?: { content: Record<string, { schema: Schema }> }
  responses: Record<
    string,
    {
      description: string
      headers?: object
      content?: Record<string, { schema: Schema, examples?: Record<string, { $ref: string }> }>
    }
  >
}
interface Document {
  openapi: string
  paths: Record<string, Record<string, Operation>>
  components: { schemas: Record<string, Schema>, examples: Record<string, { value: { status: number } }> }
  tags: { name: string }[]
}

/** Parameters for which no value is right twice: the API page would send it with every request. */
const withoutExamples = ['cursor', 'idempotency-key', 'if-match', 'last-event-id', 'x-client-id']

/** Every member of an object that has neither an example nor a fixed set of values. */
function withoutExample (given: Schema, resolve: (schema: Schema) => Schema, path = ''): string[] {
  const schema = resolve(given)
  if (schema.properties) {
    return Object.entries(schema.properties).flatMap(([name, member]) => withoutExample(member, resolve, `${path}/${name}`))
  }
  if (schema.anyOf) return schema.anyOf.flatMap(member => withoutExample(member, resolve, path))
  if (schema.items) return withoutExample(schema.items, resolve, `${path}[]`)
  return schema.examples || schema.enum || path === '' ? [] : [path]
}

t.test('the document is OpenAPI 3.1 and describes every route with its errors and examples', async t => {
  const app = await createApp(t, { stores: anyStores() })
  const response = await app.inject('/openapi.json')
  t.equal(response.statusCode, 200)
  const document = response.json<Document>()
  t.equal(document.openapi, '3.1.0')
  for (const name of ['Problem', 'Account', 'Session', 'Video', 'NewVideo', 'Counters', 'Engagement', 'Profile']) {
    t.ok(document.components.schemas[name], `${name} is a named schema`)
  }
  t.match(document.components.schemas['Problem']!.properties!['error'], {
    anyOf: [{ $ref: '#/components/schemas/ErrorCode' }, { type: 'string' }]
  })
  t.strictSame(document.components.schemas['ErrorCode']!.enum, Object.keys(catalogue))
  const resolve = (schema: Schema): Schema =>
    schema.$ref ? document.components.schemas[schema.$ref.split('/').at(-1)!]! : schema
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
      (operation.parameters ?? []).filter(({ name, example, description }) =>
        (example === undefined && !withoutExamples.includes(name)) || !description
      ),
      [],
      `${name}: parameters have examples`
    )
    const needsToken =
      (await app.inject({ method: name.split(' ')[0] as 'GET', url: name.split(' ')[1]!.replaceAll(/\{\w+\}/g, '1') }))
        .statusCode === 401
    const security = operation.security!
    const isRequired = security.length > 0 && security.every(one => Object.keys(one).length > 0)
    t.equal(isRequired, needsToken, `${name}: security is documented where it is asked for`)
    t.equal('401' in operation.responses && isRequired, needsToken)
    t.match(operation.operationId, /^[a-z][A-Za-z]+$/, `${name} has an operationId`)
    for (const status of ['400', '429', '500', '503']) t.ok(operation.responses[status], `${name} documents ${status}`)
    for (const [status, { description, content, headers }] of Object.entries(operation.responses)) {
      t.not(description, 'Default Response', `${name} ${status} is described`)
      if (content && 'application/problem+json' in content) {
        t.strictSame(content['application/problem+json']!.schema, { $ref: '#/components/schemas/Problem' })
        const codes = Object.keys(content['application/problem+json']!.examples!)
        t.ok(codes.length > 0, `${name} ${status} documents its codes`)
        for (const code of codes) t.equal(document.components.examples[code]!.value.status, Number(status), code)
        if (['401', '429', '503'].includes(status)) t.ok(headers, `${name} ${status} documents its header`)
      } else if (status === '204' || status === '304') {
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
        t.strictSame(withoutExample(content![type!]!.schema, resolve), [], `${name} ${status}: every member has an example`)
      }
    }
    if (operation.requestBody) {
      t.strictSame(
        withoutExample(operation.requestBody.content['application/json']!.schema, resolve),
        [],
        `${name}: the body has examples`
      )
    }
  }
})

t.test('a generated client compiles: operationIds are unique, defaults are optional, lists have commas', async t => {
  const app = await createApp(t, { stores: anyStores() })
  const document = (await app.inject('/openapi.json')).json<Document>()
  const operations = Object.values(document.paths).flatMap(methods => Object.values(methods))
  const ids = operations.map(({ operationId }) => operationId)
  t.equal(new Set(ids).size, ids.length)
  for (const { operationId, parameters = [], responses } of operations) {
    for (const { name, schema, required, style, explode } of parameters) {
      t.notOk(required && 'default' in schema, `${operationId}: ${name} is optional`)
      if (schema.type === 'array') t.strictSame([style, explode], ['form', false], `${operationId}: ${name}`)
    }
    for (const [status, { headers }] of Object.entries(responses)) {
      t.ok(headers && 'X-Request-Id' in headers && 'RateLimit' in headers, `${operationId} ${status}`)
    }
  }
  const list = document.paths['/api/v1/videos']!['get']!
  t.strictSame(list.security, [{}, { bearer: [] }], 'the token is optional')
  t.match(list.responses['200']!.headers, { ETag: {}, Link: {}, 'X-Next-Cursor': {} })
  t.ok(list.responses['304'])
  t.match(document.paths['/api/v1/videos']!['post']!.responses['201']!.headers, { Location: {} })
})

t.test('lists of ids are taken with commas and as repeated members', async t => {
  const app = await createApp(t, { stores: anyStores() })
  const { user } = await signUp(app)
  const ids = [await addVideo(app, user.id), await addVideo(app, user.id), await addVideo(app, user.id)]
  for (const query of [`ids=${ids.join()}`, ids.map(id => `ids=${id}`).join('&'), `ids=${ids[0]}&ids=${ids[1]},${ids[2]}`]) {
    const answer = await app.inject(`/api/v1/videos/engagement?${query}`)
    t.strictSame(answer.json<{ video_id: number }[]>().map(one => one.video_id), ids, query)
  }
  const many = Array.from({ length: 101 }, () => 'ids=1').join('&')
  t.equal((await app.inject(`/api/v1/videos/engagement?${many}`)).statusCode, 400)
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

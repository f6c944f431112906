/** JSON, as far as this file looks into it. */
type Json = Record<string, unknown>

interface Operation {
  security?: object[]
  parameters?: { required?: boolean, schema: Json, style?: string, explode?: boolean }[]
  responses: Record<string, { headers?: Json, $ref?: string }>
}

export interface Document {
  paths: Record<string, Record<string, Operation>>
  components: { schemas: Record<string, Json>, headers?: Json, examples?: Json }
}

/** Headers of every response. */
const commonHeaders: Record<string, Json> = {
  'X-Request-Id': {
    description: 'Finds the request in the log of the service',
    schema: { type: 'string', examples: ['066af438-5'] }
  },
  RateLimit: {
    description: 'What is left of each limit (IETF draft-ietf-httpapi-ratelimit-headers)',
    schema: { type: 'string', examples: ['"address";r=1999;t=1'] }
  },
  'RateLimit-Policy': {
    description: 'The limits that apply',
    schema: { type: 'string', examples: ['"address";q=2000;w=2'] }
  }
}

interface Errors {
  codes: readonly string[]
  /** An example of the problem of each code. */
  examples: Json
}

/**
 * Finishes the document that @fastify/swagger generates, so that other programs can generate from it: schemas with a
 * title are named components, parameters with a default are optional, lists are separated by commas, the code of a
 * problem is a known one or any other text, every response has the common headers, and every operation says
 * whether it takes a token.
 *
 * @throws Error when two different schemas have the same title
 */
export function finishDocument<T extends object> (generated: T, { codes, examples }: Errors): T {
  const document = structuredClone(generated) as unknown as Document
  const { schemas } = document.components
  for (const operation of Object.values(document.paths).flatMap(methods => Object.values(methods))) {
    operation.security ??= []
    for (const parameter of operation.parameters ?? []) {
      if ('default' in parameter.schema) parameter.required = false
      if (parameter.schema['type'] === 'array') Object.assign(parameter, { style: 'form', explode: false })
    }
    for (const response of Object.values(operation.responses)) {
      response.headers = {
        ...response.headers,
        ...Object.fromEntries(Object.keys(commonHeaders).map(name => [name, { $ref: `#/components/headers/${name}` }]))
      }
    }
  }
  document.paths = nameSchemas(document.paths, schemas) as Document['paths']
  document.components.headers = commonHeaders
  const paths = JSON.stringify(document.paths)
  document.components.examples = Object.fromEntries(
    Object.entries(examples).filter(([code]) => paths.includes(`"#/components/examples/${code}"`))
  )
  schemas['ErrorCode'] = { type: 'string', enum: codes, title: 'ErrorCode', description: 'The error codes of this version' }
  const { error } = schemas['Problem']!['properties'] as Record<string, Json>
  // Clients compile against the known codes, and must expect new ones.
  Object.assign(error!, { anyOf: [{ $ref: '#/components/schemas/ErrorCode' }, { type: 'string' }] })
  Reflect.deleteProperty(error!, 'type')
  return document as unknown as T
}

/** Replaces each object schema with a title by a reference, innermost first, and puts it into `schemas`. */
function nameSchemas (value: unknown, schemas: Record<string, Json>): unknown {
  if (Array.isArray(value)) return value.map(item => nameSchemas(item, schemas))
  if (typeof value !== 'object' || value === null) return value
  const named = Object.fromEntries(Object.entries(value).map(([name, member]) => [name, nameSchemas(member, schemas)]))
  const { title, type } = named
  if (type !== 'object' || typeof title !== 'string' || !/^[A-Z]\w+$/.test(title)) return named
  const known = schemas[title]
  if (known && JSON.stringify(known) !== JSON.stringify(named)) {
    throw new Error(`Two different schemas have the title ${title}`)
  }
  schemas[title] = named
  return { $ref: `#/components/schemas/${title}` }
}

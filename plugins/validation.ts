import { Type } from '@sinclair/typebox'
import { Ajv, type ErrorObject, type SchemaValidateFunction } from 'ajv'
import buildSerializer, { type Schema } from 'fast-json-stringify'
import type { FastifyInstance } from 'fastify'
import fp from 'fastify-plugin'
import { visit } from 'jsonc-parser'
import { Problem } from '../schemas/problem.ts'
import { ApiError } from '../services/shared/errors.ts'
import { isHttpUrl, maxUrlLength } from '../services/http/urls.ts'
import { isEmail } from '../services/accounts/emails.ts'
import { isPlainName } from '../services/accounts/usernames.ts'
import { faultOfText, isStorable, trimInvisible } from '../services/shared/visible-text.ts'

/** Maximum items of a query list that are parsed: one more than any schema accepts. */
const maxListItems = 101

/** Maximum nesting of objects and arrays; no schema comes near it. */
const maxDepth = 16

/** The media type that is accepted, strictly: parsers differ about other spellings, which attackers exploit. */
const jsonMediaType = /^application\/json[ \t]*(?:;[ \t]*charset="?utf-?8"?[ \t]*)?$/i

/**
 * Parsing and validation of requests: strict JSON, conversion of path and query parameters only, nothing dropped
 * silently.
 */
export default fp(async function validation (app) {
  const isStrict = app.config.strictQuery
  app.setValidatorCompiler(({ schema, httpPart }) => compileValidator(schema, httpPart, isStrict))
  // A route without a query schema accepts no query members.
  app.addHook('onRoute', route => {
    if (route.url.includes('*')) return
    route.schema = { ...route.schema, querystring: route.schema?.querystring ?? Type.Object({}) }
  })
  app.setSerializerCompiler(({ schema }) => serializers(schema))
  acceptStrictJson(app)
}, { name: 'halo:validation', dependencies: ['halo:config', 'halo:errors'] })

interface ObjectSchema {
  required?: string[]
  properties?: Record<string, { type?: string, items?: { type?: string } }>
}

const maxTextUnits = 64 * 1024

/**
 * Text formats, each with the maximum length in UTF-16 code units: a longer text fails without being checked. With
 * `allErrors`, Ajv runs a format even if `maxLength` has failed, and NFKC takes a second for 64 KB of combining
 * marks.
 */
const textFormats: Record<string, [maxUnits: number, isValid: (text: string) => boolean]> = {
  storable: [maxTextUnits, isStorable],
  line: [maxTextUnits, text => faultOfText(text, { isLine: true }) === undefined],
  text: [maxTextUnits, text => faultOfText(text, { isLine: false }) === undefined],
  'http-url': [maxUrlLength, isHttpUrl],
  username: [60, text => isStorable(text) && isPlainName(text)],
  email: [255, isEmail],
  // Formats of responses: Ajv compiles them and never runs them.
  'date-time': [64, () => true],
  'uri-reference': [maxUrlLength, () => true]
}

function createAjv (): Ajv {
  const ajv = new Ajv({
    allErrors: true,
    useDefaults: true,
    coerceTypes: false,
    removeAdditional: false,
    strict: true,
    // Errors contain the value: the sentence for a text says what is wrong with it.
    verbose: true
  })
  for (const [name, [maxUnits, isValid]] of Object.entries(textFormats)) {
    ajv.addFormat(name, text => text.length <= maxUnits && isValid(text))
  }
  ajv.addKeyword({
    keyword: 'x-trimmed',
    type: 'string',
    schemaType: 'boolean',
    before: 'maxLength',
    modifying: true,
    validate: ((isTrimmed, text: string, schema, context) => {
      if (isTrimmed === true && text.length <= maxTextUnits) {
        context!.parentData[context!.parentDataProperty] = trimInvisible(text)
      }
      return true
    }) satisfies SchemaValidateFunction
  })
  return ajv
}

const ajv = createAjv()

/** Compiled schemas by their JSON: routes, and the applications of one process (tests), share them. */
const validators = createMemo(schema => ajv.compile(schema))
const serializers = createMemo(schema =>
  buildSerializer(schema as Schema, { schema: { Problem: Problem as unknown as Schema } })
)

function createMemo<Compiled> (compile: (schema: object) => Compiled): (schema: unknown) => Compiled {
  const compiled = new Map<string, Compiled>()
  return schema => {
    const key = JSON.stringify(schema)
    const known = compiled.get(key) ?? compile(JSON.parse(key) as object)
    compiled.set(key, known)
    return known
  }
}

function compileValidator (schema: unknown, httpPart: string | undefined, isStrict: boolean) {
  const validate = validators(schema)
  const read = httpPart === 'params' || httpPart === 'querystring' ? createTextReader(schema as ObjectSchema) : () => {}
  const dropNulls = httpPart === 'body' ? createNullFilter(schema as ObjectSchema) : () => {}
  const takeUnknown = httpPart === 'querystring' ? createQueryFilter(schema as ObjectSchema) : () => []
  const wrapped = (data: Record<string, unknown>): boolean => {
    const unknown = takeUnknown(data)
    read(data)
    dropNulls(data)
    const isValid = validate(data)
    wrapped.errors = unknown.length > 0 && isStrict
      ? [...unknown.map(unknownMember), ...validate.errors ?? []]
      : validate.errors
    return isValid && (unknown.length === 0 || !isStrict)
  }
  wrapped.errors = validate.errors
  return wrapped
}

/** The error that Ajv reports for `additionalProperties: false`. */
const unknownMember = (name: string): ErrorObject => ({
  keyword: 'additionalProperties',
  instancePath: '',
  schemaPath: '#/additionalProperties',
  params: { additionalProperty: name }
})

/**
 * Returns a function that removes the members of a query that its schema does not have, so that none becomes part of
 * a cache key. It returns their names, except names that begin with `_`, which caches and libraries append.
 */
function createQueryFilter (
  schema: ObjectSchema & { additionalProperties?: boolean }
): (query: Record<string, unknown>) => string[] {
  const known = new Set(Object.keys(schema.properties ?? {}))
  return query => {
    const unknown: string[] = []
    for (const name of Object.keys(query)) {
      if (known.has(name)) continue
      if (!name.startsWith('_') && schema.additionalProperties !== true) unknown.push(name)
      Reflect.deleteProperty(query, name)
    }
    return unknown
  }
}

/** Returns a function that removes optional members that are null: as with the Go service, they count as left out. */
function createNullFilter ({ properties = {}, required = [] }: ObjectSchema): (body: unknown) => void {
  const optional = Object.keys(properties).filter(name => !required.includes(name))
  return body => {
    if (typeof body !== 'object' || body === null) return
    for (const name of optional) {
      if ((body as Record<string, unknown>)[name] === null) Reflect.deleteProperty(body, name)
    }
  }
}

/**
 * Returns a function that converts path and query parameters to the numbers and booleans of their schema. Only the
 * plain spelling is converted; others ("1e3", "0x10", " 5", "TRUE"), which Ajv's own coercion accepts, stay text and
 * fail the validation. Items of a list are separated by commas, or come as members of the same name.
 */
function createTextReader (schema: ObjectSchema): (data: Record<string, unknown>) => void {
  const typed = Object.entries(schema.properties ?? {})
    .filter(([, { type }]) => type === 'integer' || type === 'boolean' || type === 'array')
  return data => {
    for (const [name, { type, items }] of typed) {
      const text = data[name]
      if (type === 'array' && (typeof text === 'string' || Array.isArray(text))) {
        data[name] = readList(text).map(item => readScalar(item, items?.type))
      } else if (typeof text === 'string') {
        data[name] = readScalar(text, type)
      }
    }
  }
}

/** Items that are separated by commas, or come as repeated members. */
const readList = (given: string | unknown[]): string[] =>
  [given].flat().slice(0, maxListItems).flatMap(text => String(text).split(',', maxListItems)).slice(0, maxListItems)

function readScalar (text: string, type: string | undefined): unknown {
  if (type === 'boolean') return text === 'true' || text === 'false' ? text === 'true' : text
  if (type === 'integer') return /^(?:0|-?[1-9]\d{0,15})$/.test(text) ? Number(text) : text
  return text
}

/** Replaces Fastify's body parsers by one for strict JSON: UTF-8, unique member names, bounded nesting. */
function acceptStrictJson (app: FastifyInstance): void {
  const parse = app.getDefaultJsonParser('error', 'error')
  const utf8 = new TextDecoder('utf-8', { fatal: true, ignoreBOM: false })

  app.removeAllContentTypeParsers()
  app.addContentTypeParser('*', { parseAs: 'buffer' }, (request, body: Buffer, done) => {
    // Clients send a Content-Type with an empty POST: accept it.
    if (body.length === 0) return done(null, undefined)
    if (!jsonMediaType.test(request.headers['content-type'] ?? '')) {
      return done(new ApiError('unsupported_media_type'))
    }
    let text: string
    try {
      text = utf8.decode(body)
      refuseAmbiguity(text)
    } catch (error) {
      return done(
        error instanceof ApiError
          ? error
          : new ApiError('invalid_request', { message: 'The body is not UTF-8', cause: error })
      )
    }
    parse(request, text, (error, value) => {
      done(error ? new ApiError('invalid_request', { message: 'The body is not JSON', cause: error }) : null, value)
    })
  })
}

/**
 * Refuses JSON that parsers read differently (a name twice in one object, RFC 7493 §2.3), and deep nesting. The
 * parser checks the syntax afterwards.
 */
function refuseAmbiguity (text: string): void {
  const open: Set<string>[] = []
  const enter = () => {
    open.push(new Set())
    if (open.length > maxDepth) {
      throw new ApiError('invalid_request', { message: `The body nests deeper than ${maxDepth} levels` })
    }
  }
  const leave = () => {
    open.pop()
  }
  visit(text, {
    onObjectBegin: enter,
    onObjectEnd: leave,
    onArrayBegin: enter,
    onArrayEnd: leave,
    onObjectProperty (name) {
      const names = open.at(-1)
      if (names?.has(name)) {
        throw new ApiError('invalid_request', {
          message: `The body has the name ${JSON.stringify(name.slice(0, 50))} twice`
        })
      }
      names?.add(name)
    }
  })
}

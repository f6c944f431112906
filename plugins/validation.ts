import { Type } from '@sinclair/typebox'
import { Ajv, type ErrorObject } from 'ajv'
import formats from 'ajv-formats'
import buildSerializer, { type Schema } from 'fast-json-stringify'
import type { FastifyInstance } from 'fastify'
import fp from 'fastify-plugin'
import { visit } from 'jsonc-parser'
import { Problem } from '../schemas/problem.ts'
import { ApiError } from '../services/shared/errors.ts'
import { isHttpUrl, maxUrlLength } from '../services/http/urls.ts'
import { isPlainName } from '../services/accounts/usernames.ts'

/** Items of a list in a query that are looked at; one more than any schema takes. */
const maxListItems = 101

/** Objects and arrays inside each other; nothing that the API takes comes near. */
const maxDepth = 16

/** A media type in the one spelling that is taken; parsers that differ about the rest cannot be played off. */
const jsonMediaType = /^application\/json[ \t]*(?:;[ \t]*charset="?utf-?8"?[ \t]*)?$/i

/** How requests are read: strict JSON, nothing converted that was not text, nothing dropped silently. */
export default fp(async function validation (app) {
  const isStrict = app.config.strictQuery
  app.setValidatorCompiler(({ schema, httpPart }) => compileValidator(schema, httpPart, isStrict))
  // A route without a query takes none: what it does not know is an error there as well.
  app.addHook('onRoute', route => {
    if (route.url.includes('*')) return
    route.schema = { ...route.schema, querystring: route.schema?.querystring ?? Type.Object({}) }
  })
  app.setSerializerCompiler(({ schema }) => serializers(schema))
  acceptStrictJson(app)
}, { name: 'halo:validation', dependencies: ['halo:config', 'halo:errors'] })

interface ObjectSchema {
  properties?: Record<string, { type?: string, items?: { type?: string } }>
}

/**
 * Formats of texts, each with the most UTF-16 code units that it is checked for; a longer text fails at once. With
 * `allErrors` Ajv runs a format although `maxLength` has failed, and NFKC takes a second for 64 KB of combining marks.
 */
const textFormats: Record<string, [maxUnits: number, isValid: (text: string) => boolean]> = {
  text: [64 * 1024, isStorable],
  'http-url': [maxUrlLength, isHttpUrl],
  username: [60, text => isStorable(text) && isPlainName(text)],
  email: [255, text => emailPattern.test(text)],
  // Of answers: Ajv compiles them and never runs them.
  'date-time': [64, () => true],
  'uri-reference': [maxUrlLength, () => true]
}

const emailPattern = formats.default.get('email') as RegExp

function createAjv (): Ajv {
  const ajv = new Ajv({ allErrors: true, useDefaults: true, coerceTypes: false, removeAdditional: false, strict: true })
  for (const [name, [maxUnits, isValid]] of Object.entries(textFormats)) {
    ajv.addFormat(name, text => text.length <= maxUnits && isValid(text))
  }
  return ajv
}

const ajv = createAjv()

/** Compiled schemas by their JSON: many routes share one, and so do the applications of one process. */
const validators = createMemo(schema => ajv.compile(schema))
const serializers = createMemo(schema => buildSerializer(schema as Schema, { schema: { Problem: Problem as unknown as Schema } }))

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
  const takeUnknown = httpPart === 'querystring' ? createQueryFilter(schema as ObjectSchema) : () => []
  const wrapped = (data: Record<string, unknown>): boolean => {
    const unknown = takeUnknown(data)
    read(data)
    const isValid = validate(data)
    wrapped.errors = unknown.length > 0 && isStrict ? [...unknown.map(unknownMember), ...validate.errors ?? []] : validate.errors
    return isValid && (unknown.length === 0 || !isStrict)
  }
  wrapped.errors = validate.errors
  return wrapped
}

/** As Ajv writes it down for `additionalProperties: false`. */
const unknownMember = (name: string): ErrorObject =>
  ({ keyword: 'additionalProperties', instancePath: '', schemaPath: '#/additionalProperties', params: { additionalProperty: name } })

/**
 * Takes the members out of a query that its schema does not name, so that none becomes part of a cache key.
 *
 * @returns their names; names that begin with `_`, which caches and libraries append, are not among them
 */
function createQueryFilter (schema: ObjectSchema & { additionalProperties?: boolean }): (query: Record<string, unknown>) => string[] {
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

/** Whether PostgreSQL can keep a text (no NUL) and UTF-8 can say it (no unpaired surrogate). */
function isStorable (text: string): boolean {
  return text.isWellFormed() && !text.includes('\0')
}

/**
 * Paths and queries are text. Where the schema wants a number or a boolean, its one plain spelling is
 * turned into it; anything else ("1e3", "0x10", " 5", "TRUE") stays text and is refused as such. Ajv's own
 * coercion takes all of these. A list of numbers is written with commas.
 */
function createTextReader (schema: ObjectSchema): (data: Record<string, unknown>) => void {
  const typed = Object.entries(schema.properties ?? {})
    .filter(([, { type }]) => type === 'integer' || type === 'boolean' || type === 'array')
  return data => {
    for (const [name, { type, items }] of typed) {
      const text = data[name]
      if (typeof text !== 'string') continue
      data[name] = type === 'array' ? text.split(',', maxListItems).map(item => readScalar(item, items?.type)) : readScalar(text, type)
    }
  }
}

function readScalar (text: string, type: string | undefined): unknown {
  if (type === 'boolean') return text === 'true' || text === 'false' ? text === 'true' : text
  if (type === 'integer') return /^(?:0|-?[1-9]\d{0,15})$/.test(text) ? Number(text) : text
  return text
}

/** Replaces Fastify's parsers: UTF-8 JSON with unique names or nothing, whatever the Content-Type is called. */
function acceptStrictJson (app: FastifyInstance): void {
  const parse = app.getDefaultJsonParser('error', 'error')
  const utf8 = new TextDecoder('utf-8', { fatal: true, ignoreBOM: false })

  app.removeAllContentTypeParsers()
  app.addContentTypeParser('*', { parseAs: 'buffer' }, (request, body: Buffer, done) => {
    // Clients send a Content-Type with an empty POST; there is nothing in it to misread.
    if (body.length === 0) return done(null, undefined)
    if (!jsonMediaType.test(request.headers['content-type'] ?? '')) {
      return done(new ApiError('unsupported_media_type'))
    }
    let text: string
    try {
      text = utf8.decode(body)
      refuseAmbiguity(text)
    } catch (error) {
      return done(error instanceof ApiError ? error : new ApiError('invalid_request', { message: 'The body is not UTF-8', cause: error }))
    }
    parse(request, text, (error, value) => {
      done(error ? new ApiError('invalid_request', { message: 'The body is not JSON', cause: error }) : null, value)
    })
  })
}

/**
 * Refuses what parsers read differently: a name twice in one object (RFC 7493 §2.3), and depth that
 * exhausts a stack. Whether it is JSON at all, the parser decides after this.
 */
function refuseAmbiguity (text: string): void {
  const open: Set<string>[] = []
  const enter = () => {
    open.push(new Set())
    if (open.length > maxDepth) {
      throw new ApiError('invalid_request', { message: `The body nests deeper than ${maxDepth} levels` })
    }
  }
  const leave = () => { open.pop() }
  visit(text, {
    onObjectBegin: enter,
    onObjectEnd: leave,
    onArrayBegin: enter,
    onArrayEnd: leave,
    onObjectProperty (name) {
      const names = open.at(-1)
      if (names?.has(name)) {
        throw new ApiError('invalid_request', { message: `The body has the name ${JSON.stringify(name.slice(0, 50))} twice` })
      }
      names?.add(name)
    }
  })
}

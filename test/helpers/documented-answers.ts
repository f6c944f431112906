import { appendFileSync } from 'node:fs'
import type { ServerResponse } from 'node:http'
import { join } from 'node:path'
import { Ajv2020, type ValidateFunction } from 'ajv/dist/2020.js'
import type { buildApp } from '../../app.ts'

type App = Awaited<ReturnType<typeof buildApp>>

interface Content {
  schema?: object
}
interface Operation {
  operationId: string
  responses: Record<string, { headers?: object, content?: Record<string, Content> }>
}
export interface ApiDocument {
  paths: Record<string, Record<string, Operation>>
  components: { schemas: Record<string, object> }
}

/** An answer of the service, as a client got it. */
export interface SeenAnswer {
  method: string
  url: string
  status: number
  headers: Record<string, unknown>
  body: string
}

/** Headers that any answer may have (HTTP itself, security, CORS), so that operations do not list them. */
const headersOfAll = new Set(
  `access-control-allow-credentials access-control-allow-headers access-control-allow-methods
  access-control-allow-origin access-control-expose-headers access-control-max-age age allow cache-control
  cache-status connection content-encoding content-language content-length content-security-policy content-type
  cross-origin-embedder-policy cross-origin-opener-policy cross-origin-resource-policy date keep-alive
  origin-agent-cluster referrer-policy strict-transport-security transfer-encoding vary x-accel-buffering
  x-content-type-options x-dns-prefetch-control x-download-options x-frame-options x-permitted-cross-domain-policies
  x-ratelimit-limit x-ratelimit-remaining x-ratelimit-reset x-xss-protection`.split(/\s+/)
)

/** Statuses that the server answers before an operation is reached: they are not documented for each. */
const statusesOfAll = new Set([405, 408, 413, 414, 415, 417, 431])

/**
 * Returns a function that compares an answer with the document. It returns a sentence about the first difference, or
 * undefined. Addresses that the document does not have are not compared: tests add routes of their own.
 */
export function createDocumentCheck (document: ApiDocument) {
  const ajv = new Ajv2020({ strict: false, validateFormats: false })
  ajv.addSchema({ $id: 'document', components: document.components })
  const validators = new Map<object, ValidateFunction>()
  const validatorOf = (schema: object): ValidateFunction => {
    const known = validators.get(schema)
    if (known) return known
    // References are to the document, which Ajv knows by this name.
    const made = ajv.compile(JSON.parse(JSON.stringify(schema).replaceAll('"#/components', '"document#/components')))
    validators.set(schema, made)
    return made
  }
  const templates = Object.keys(document.paths).map(path => ({
    path,
    // Fixed paths first: /videos/engagement is no video.
    order: path.split('{').length,
    pattern: new RegExp(`^${path.replaceAll('.', '\\.').replaceAll(/\{\w+\}/g, '[^/]+')}/?$`)
  })).sort((a, b) => a.order - b.order)

  return function undocumented ({ method, url, status, headers, body }: SeenAnswer): string | undefined {
    const path = url.split('?', 1)[0]!
    const template = templates.find(({ pattern }) => pattern.test(path))
    const operation = template && document.paths[template.path]![method === 'HEAD' ? 'get' : method.toLowerCase()]
    if (!operation || statusesOfAll.has(status)) return undefined
    const name = `${operation.operationId} ${status}`
    const response = operation.responses[status]
    if (!response) return `${name}: the status is not documented: ${body.slice(0, 200)}`
    const documented = new Set(Object.keys(response.headers ?? {}).map(header => header.toLowerCase()))
    const extra = Object.keys(headers).filter(header => !headersOfAll.has(header) && !documented.has(header))
    if (extra.length > 0) return `${name}: headers that are not documented: ${extra.join(', ')}`
    if (method === 'HEAD') return undefined
    if (body === '') return response.content ? `${name}: the body is missing` : undefined
    const type = String(headers['content-type']).split(';', 1)[0]!
    const content = response.content?.[type]
    if (!content) return `${name}: the media type ${type} is not documented`
    // The same bodies are compared when they are not compressed.
    if (headers['content-encoding'] !== undefined || type === 'text/plain' || !content.schema) return undefined
    const validate = validatorOf(content.schema)
    for (const value of type === 'text/event-stream' ? eventsOf(body) : [JSON.parse(body) as unknown]) {
      if (!validate(value)) return `${name}: ${ajv.errorsText(validate.errors)} in ${JSON.stringify(value).slice(0, 300)}`
    }
    return undefined
  }
}

const eventsOf = (body: string): unknown[] =>
  [...body.matchAll(/^data: (.*)\n\n/gm)].map(([, data]) => JSON.parse(data!) as unknown)

let check: ReturnType<typeof createDocumentCheck> | undefined

/**
 * Compares every answer of an application with its OpenAPI document. What differs is written to the folder of the
 * run's logs, and test/run.ts fails the run.
 */
export function watchAnswers (app: App): void {
  const folder = process.env['HALO_TEST_LOGS']
  if (folder === undefined || !app.config.hasApiDocs) return
  app.addHook('onReady', async () => {
    check ??= createDocumentCheck(app.swagger() as unknown as ApiDocument)
  })
  app.addHook('onRequest', async (request, reply) => {
    const chunks: Buffer[] = []
    const raw = reply.raw as ServerResponse & { _header: string }
    const { write, end } = raw
    const keep = (chunk: unknown): void => {
      if (typeof chunk === 'string' || chunk instanceof Uint8Array) chunks.push(Buffer.from(chunk as string))
    }
    raw.write = function (this: ServerResponse, ...args: unknown[]) {
      keep(args[0])
      return write.apply(raw, args as never)
    } as never
    raw.end = function (this: ServerResponse, ...args: unknown[]) {
      keep(args[0])
      raw.write = write // `end` may call it with this chunk, which is kept already
      return end.apply(raw, args as never)
    } as never
    raw.on('finish', () => {
      let difference: string | undefined
      try {
        difference = check?.({
          method: request.method,
          url: request.raw.url!,
          status: raw.statusCode,
          headers: headersOf(raw._header),
          body: Buffer.concat(chunks).toString()
        })
      } catch (error) {
        difference = `${request.method} ${request.raw.url!}: ${String(error)}`
      }
      if (difference !== undefined) appendFileSync(join(folder, 'undocumented'), `${difference}\n`)
    })
  })
}

/** Headers as they were sent: those of writeHead are in no other place. */
function headersOf (head: string): Record<string, string> {
  return Object.fromEntries(
    head.split('\r\n').slice(1).filter(Boolean).map(line => {
      const colon = line.indexOf(':')
      return [line.slice(0, colon).toLowerCase(), line.slice(colon + 1).trim()]
    })
  )
}

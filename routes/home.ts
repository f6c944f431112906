import { existsSync, readdirSync, readFileSync } from 'node:fs'
import { stripTypeScriptTypes } from 'node:module'
import { join } from 'node:path'
import type { FastifyReply, FastifyRequest } from 'fastify'
import type { Routes } from '../schemas/route.ts'
import { createStaticResponse, type StaticResponse } from '../services/http/static-response.ts'

const folder = join(import.meta.dirname, '..', 'client')

/** The page may load its own files and call this service. */
const policy = "default-src 'self'; img-src 'self' data:; base-uri 'none'; frame-ancestors 'none'; form-action 'self'"

const contentTypes: Record<string, string> = {
  html: 'text/html; charset=utf-8',
  css: 'text/css; charset=utf-8',
  js: 'text/javascript; charset=utf-8'
}

/**
 * The page at `/`, in development only: it is written with @halo/client, whose sources are served without their types.
 * Browsers need no other build.
 */
const routes: Routes = async app => {
  if (app.config.environment === 'production' || !existsSync(join(folder, 'page'))) return
  const responses = new Map<string, StaticResponse>()
  const files = ['', 'page'].flatMap(part =>
    readdirSync(join(folder, part))
      .filter(name => /^[\w-]+\.(?:ts|css|html)$/.test(name))
      .map(name => join(part, name))
  )

  for (const file of files) {
    const extension = file.split('.').at(-1)!
    const url = addressOf(file)
    const options = { schema: { hide: true }, onRequest: app.costing(2) }
    app.get(url, options, async (request: FastifyRequest, reply: FastifyReply) => {
      const response = responses.get(url) ?? read(file, extension)
      responses.set(url, response)
      return reply.header('content-security-policy', policy).sendStatic(response, 0)
    })
  }
}
export default routes

function addressOf (file: string): string {
  if (file === join('page', 'index.html')) return '/'
  return `/client/${file.replaceAll('\\', '/').replace(/page\.ts$/, 'page.js')}`
}

function read (file: string, extension: string): StaticResponse {
  const source = readFileSync(join(folder, file))
  return extension === 'ts'
    ? createStaticResponse(Buffer.from(stripTypeScriptTypes(source.toString())), contentTypes['js']!)
    : createStaticResponse(source, contentTypes[extension]!)
}

import { createListStatement, videoById } from '../services/videos/videos.ts'
import type { BareTask } from './bare-server.ts'
import type { Kind } from './load.ts'
import type { LimitName } from './scenarios.ts'
import { headersOf, type Server, type World } from './world.ts'

/** A bare server that does the least that a scenario asks for, and how it is asked. */
export interface Limit {
  title: string
  server: Server
  /** The requests of a scenario, as this server takes them. */
  kinds: (kinds: Kind[]) => Kind[]
}

const atRoot = (
  kinds: Kind[]
): Kind[] => [{ ...kinds[0]!, name: 'limit', weight: 1, method: 'GET', paths: ['/'], expect: [200] }]
const alike = (kinds: Kind[]): Kind[] => kinds

/** The limits, each started when it is first asked for; they send the bytes and headers that the service sends. */
export function createLimits (world: World, service: Server) {
  const base = `http://${service.host}:${service.port}/api/v1`
  const started = new Map<LimitName | 'fastify', Promise<Limit>>()

  async function answer (path: string): Promise<{ headers: Record<string, string>, body: string }> {
    const response = await fetch(base + path, {
      headers: { origin: 'https://app.example', 'accept-encoding': 'identity' }
    })
    return { headers: headersOf(response), body: await response.text() }
  }

  async function start (name: LimitName | 'fastify'): Promise<Limit> {
    const video = await answer(`/videos/${world.videos[0]}`)
    const { 'content-length': _, etag: __, ...constant } = video.headers
    const connectionString = world.databaseUrl
    const tasks: Record<typeof name, () => Promise<[string, BareTask, Limit['kinds']]>> = {
      video: async () => ['bare node:http, same bytes', { kind: 'bytes', ...video }, atRoot],
      fastify: async () => ['bare Fastify, same bytes', { kind: 'fastify', ...video }, atRoot],
      list: async () => ['bare node:http, same bytes', { kind: 'bytes', ...await answer('/videos?limit=20') }, atRoot],
      incr: async () => ['node:http and INCR alone', { kind: 'incr', redisUrl: world.redisUrl, ...video }, atRoot],
      'video-query': async () => ['node:http and pg, same statement', {
        kind: 'statement',
        connectionString,
        text: videoById.text,
        values: [],
        isList: false,
        headers: constant
      }, alike],
      'list-query': async () => ['node:http and pg, same statement', {
        kind: 'statement',
        connectionString,
        text: createListStatement({ live: undefined, adult: 'exclude' }, false).text,
        values: [21],
        isList: true,
        headers: constant
      }, alike]
    }
    const [title, task, kinds] = await tasks[name]()
    return { title, server: await world.startBare(task), kinds }
  }

  return (name: LimitName | 'fastify'): Promise<Limit> => {
    let limit = started.get(name)
    if (!limit) started.set(name, limit = start(name))
    return limit
  }
}

export type Limits = ReturnType<typeof createLimits>

import { createServer, type RequestListener } from 'node:http'
import fastify from 'fastify'
import { Redis } from 'ioredis'
import pg from 'pg'
import { integersAsNumbers } from '../db/integers.ts'

/**
 * The limits that the service is measured against, started by a bench, which says which one: node:http, or Fastify with
 * one route, that answers every request with the same bytes and headers; node:http with `pg` alone, which runs one
 * statement for the number at the end of the address and writes its rows down as JSON; node:http with ioredis alone,
 * which increments a counter for each request and answers with the same bytes.
 */
export type BareTask =
  | { kind: 'bytes', headers: Record<string, string>, body: string }
  | { kind: 'fastify', headers: Record<string, string>, body: string }
  | {
    kind: 'statement'
    connectionString: string
    text: string
    values: number[]
    isList: boolean
    headers: Record<string, string>
  }
  | { kind: 'incr', redisUrl: string, headers: Record<string, string>, body: string }

process.once('message', (task: BareTask) => {
  if (task.kind === 'fastify') {
    startFastify(task).catch((error: unknown) => {
      throw error
    })
    return
  }
  const server = createServer(listenerOf(task))
  server.keepAliveTimeout = 120_000
  server.listen(0, '127.0.0.1', () => process.send!((server.address() as { port: number }).port))
})

function listenerOf (task: Exclude<BareTask, { kind: 'fastify' }>): RequestListener {
  if (task.kind === 'statement') return answerStatement(task)
  return task.kind === 'incr' ? answerCount(task) : answerBytes(task)
}

async function startFastify ({ headers, body }: { headers: Record<string, string>, body: string }): Promise<void> {
  const app = fastify({ keepAliveTimeout: 120_000 })
  app.get('/', (request, reply) => {
    reply.headers(headers).send(body)
  })
  await app.listen({ port: 0, host: '127.0.0.1' })
  process.send!((app.server.address() as { port: number }).port)
}

function answerBytes ({ headers, body }: { headers: Record<string, string>, body: string }): RequestListener {
  const bytes = Buffer.from(body)
  return (request, response) => {
    response.writeHead(200, headers)
    response.end(bytes)
  }
}

function answerCount ({ redisUrl, headers, body }: Extract<BareTask, { kind: 'incr' }>): RequestListener {
  const redis = new Redis(redisUrl, { enableAutoPipelining: true })
  const bytes = Buffer.from(body)
  return (request, response) => {
    redis.incr('bench:count').then(() => {
      response.writeHead(200, headers)
      response.end(bytes)
    }, () => {
      response.writeHead(500)
      response.end()
    })
  }
}

function answerStatement (
  { connectionString, text, values, isList, headers }: Extract<BareTask, { kind: 'statement' }>
): RequestListener {
  const pool = new pg.Pool({ connectionString, max: 100, types: integersAsNumbers })
  return (request, response) => {
    const number = Number(/\d+$/.exec(request.url!)![0])
    pool.query({ name: 'bare', text, values: [...values, number] }).then(({ rows }) => {
      const body = JSON.stringify(isList ? rows : rows[0])
      response.writeHead(200, { ...headers, 'content-length': Buffer.byteLength(body) })
      response.end(body)
    }, () => {
      response.writeHead(500)
      response.end()
    })
  }
}

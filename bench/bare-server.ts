import { createServer, type RequestListener } from 'node:http'
import pg from 'pg'
import { integersAsNumbers } from '../db/integers.ts'

/**
 * The limits that the service is measured against, started by a bench, which says which one. Either node:http that
 * answers every request with the same bytes and headers, or node:http with `pg` alone, which runs one statement
 * for the number at the end of the address and writes its row down as JSON.
 */
export type BareTask =
  | { kind: 'bytes', headers: Record<string, string>, body: string }
  | { kind: 'statement', connectionString: string, text: string, headers: Record<string, string> }

process.once('message', (task: BareTask) => {
  const server = createServer(task.kind === 'bytes' ? answerBytes(task) : answerStatement(task))
  server.keepAliveTimeout = 120_000
  server.listen(0, '127.0.0.1', () => process.send!((server.address() as { port: number }).port))
})

function answerBytes ({ headers, body }: Extract<BareTask, { kind: 'bytes' }>): RequestListener {
  const bytes = Buffer.from(body)
  return (request, response) => {
    response.writeHead(200, headers)
    response.end(bytes)
  }
}

function answerStatement ({ connectionString, text, headers }: Extract<BareTask, { kind: 'statement' }>): RequestListener {
  const pool = new pg.Pool({ connectionString, max: 100, types: integersAsNumbers })
  return (request, response) => {
    const id = Number(request.url!.slice(request.url!.lastIndexOf('/') + 1))
    pool.query({ name: 'bare', text, values: [id] }).then(({ rows }) => {
      const body = JSON.stringify(rows[0])
      response.writeHead(200, { ...headers, 'content-length': Buffer.byteLength(body) })
      response.end(body)
    }, () => {
      response.writeHead(500)
      response.end()
    })
  }
}

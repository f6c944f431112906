import type { Server } from 'node:http'
import { metricsContentType, toText, type Family } from '../runtime/metrics.ts'
import { createServer } from './node-http.ts'

export interface OperationsSource {
  metrics (): Promise<Family[]>
  /** Answers a probe: `/livez`, `/readyz` or `/startupz`. */
  probe (path: string): Promise<{ status: number, body: string }>
}

const probes = ['/livez', '/readyz', '/startupz']

/** The second port (METRICS_PORT), for operators: `GET /metrics` and the probes, and nothing else. */
export function createOperationsServer ({ metrics, probe }: OperationsSource): Server {
  return createServer({ requestTimeout: 5000, headersTimeout: 5000 }, (request, response) => {
    const path = request.url?.split('?', 1)[0] ?? ''
    const isRead = request.method === 'GET' || request.method === 'HEAD'
    const answer = async (): Promise<void> => {
      if (isRead && path === '/metrics') {
        const text = toText(await metrics())
        response.writeHead(200, { 'content-type': metricsContentType, 'cache-control': 'no-store' }).end(text)
      } else if (isRead && probes.includes(path)) {
        const { status, body } = await probe(path)
        response.writeHead(status, { 'content-type': 'application/json; charset=utf-8', 'cache-control': 'no-store' }).end(body)
      } else response.writeHead(404, { 'content-type': 'text/plain' }).end(`GET /metrics, ${probes.join(', ')}\n`)
    }
    answer().catch(() => {
      response.writeHead(503).end()
    })
  })
}

/** Opens the port. @throws Error that names the setting when the port is taken */
export function listenForOperations (server: Server, host: string, port: number): Promise<void> {
  return new Promise((resolve, reject) => {
    server.once('error', error => {
      reject(
        (error as NodeJS.ErrnoException).code === 'EADDRINUSE'
          ? new Error(`port ${port} is taken: stop the other process, or set METRICS_PORT`)
          : error
      )
    })
    server.listen({ port, host }, resolve)
  })
}

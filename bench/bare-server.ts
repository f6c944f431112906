import { createServer } from 'node:http'

/**
 * The limit that the service is measured against: node:http that answers every request with the same bytes
 * and headers, and does nothing else. Started by a bench, which sends the answer to give.
 */
process.once('message', ({ headers, body }: { headers: Record<string, string>, body: string }) => {
  const bytes = Buffer.from(body)
  const server = createServer((request, response) => {
    response.writeHead(200, headers)
    response.end(bytes)
  })
  server.keepAliveTimeout = 120_000
  server.listen(0, '127.0.0.1', () => process.send!((server.address() as { port: number }).port))
})

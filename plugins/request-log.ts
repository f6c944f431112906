import { LogController, type FastifyReply, type FastifyRequest } from 'fastify'
import fp from 'fastify-plugin'
import { loggableUrl } from '../services/loggable.ts'

/** One line for each request, when it is answered; Fastify's own would be two. */
export class OneLineLog extends LogController {
  override incomingRequest (): void {}

  override requestCompleted (error: Error | null, request: FastifyRequest, reply: FastifyReply): void {
    // An error here is one of the connection: the client has left, of which hot-path.ts tells.
    if (error) return
    request.log.info({
      method: request.method,
      url: loggableUrl(request.url),
      status: reply.statusCode,
      ms: Math.round(reply.elapsedTime * 10) / 10,
      ip: request.clientAddress
    }, 'request')
  }
}

/** Tells each client the id under which its request stands in the log. */
export default fp(async function requestLog (app) {
  app.addHook('onRequest', (request, reply, done) => {
    reply.header('x-request-id', request.id)
    done()
  })
}, { name: 'halo:request-log', dependencies: ['halo:errors'] })

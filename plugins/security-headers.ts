import helmet from '@fastify/helmet'
import fastify from 'fastify'
import fp from 'fastify-plugin'

declare module 'fastify' {
  interface FastifyInstance {
    securityHeaders: Record<string, string>
  }
}

/**
 * @fastify/helmet decides which security headers there are, once: it answers one request of a throw-away server here,
 *   and what
 * it set goes out with every response (plugins/response-headers.ts). As a hook of every request it halves the speed
 * of a hot read, to set the same constants each time.
 */
export default fp(async function securityHeaders (app) {
  app.decorate('securityHeaders', await headersOfHelmet())
}, { name: 'halo:security-headers', dependencies: ['halo:errors'] })

async function headersOfHelmet (): Promise<Record<string, string>> {
  const model = fastify()
  await model.register(helmet, {
    // An API's answers load nothing and are shown in no frame; the API page brings a policy of its own.
    contentSecurityPolicy: { useDefaults: false, directives: { defaultSrc: ["'none'"], frameAncestors: ["'none'"] } },
    // Web apps of other origins are the clients of this API; CORS decides which.
    crossOriginResourcePolicy: { policy: 'cross-origin' },
    crossOriginOpenerPolicy: false,
    // For pages of Internet Explorer and Flash.
    xDownloadOptions: false,
    xPermittedCrossDomainPolicies: false
  })
  model.get('/', (request, reply) => {
    reply.code(204).send()
  })
  const { headers } = await model.inject('/')
  await model.close()
  const ofTransport = ['date', 'connection', 'content-length', 'keep-alive']
  return Object.fromEntries(
    Object.entries(headers)
      .filter(([name]) => !ofTransport.includes(name))
      .map(([name, value]) => [name, String(value)])
  )
}

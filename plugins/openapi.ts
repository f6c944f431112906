import swagger from '@fastify/swagger'
import swaggerUi from '@fastify/swagger-ui'
import fp from 'fastify-plugin'

/** OpenAPI 3.1 from the schemas of the routes: `/openapi.json`, and as a page that can try them `/docs`. */
export default fp(async function openapi (app) {
  await app.register(swagger, {
    openapi: {
      openapi: '3.1.0',
      info: {
        title: 'HALO API',
        version: '1.0.0',
        description: 'The back end of the HALO live streaming platform. Every answer that is not 2xx or 304 is ' +
          '`application/problem+json` (RFC 9457) with a stable code in `error`.',
        license: { name: 'MIT', identifier: 'MIT' }
      },
      servers: [{ url: app.config.publicUrl || '/' }],
      tags: [
        { name: 'auth', description: 'Registration, login and the own profile' },
        { name: 'videos', description: 'Videos and live streams' },
        { name: 'engagement', description: 'Likes, comments and live viewers' },
        { name: 'operations', description: 'Health and documentation' }
      ],
      components: {
        securitySchemes: {
          bearer: { type: 'http', scheme: 'bearer', bearerFormat: 'JWT', description: 'The `token` of register or login' }
        }
      }
    }
  })
  await app.register(swaggerUi, {
    routePrefix: '/docs',
    // The page's own policy: its scripts and styles by hash, and requests to this service alone.
    staticCSP: true,
    uiConfig: { tryItOutEnabled: true, persistAuthorization: true, displayRequestDuration: true }
  })
}, { name: 'halo:openapi', dependencies: ['halo:config', 'halo:security-headers'] })

import swagger from '@fastify/swagger'
import swaggerUi from '@fastify/swagger-ui'
import fp from 'fastify-plugin'
import { Problem } from '../schemas/problem.ts'

const logo = '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 150 40" height="40"><circle cx="20" cy="20" r="13" fill="none" stroke="#ffd166" stroke-width="5"/><text x="44" y="28" font-family="sans-serif" font-size="24" font-weight="700" fill="#fff">HALO</text></svg>'

/** OpenAPI 3.1 from the schemas of the routes: `/openapi.json`, and as a page that can try them `/docs`. */
export default fp(async function openapi (app) {
  app.addSchema(Problem)
  await app.register(swagger, {
    refResolver: { buildLocalReference: json => json['title'] as string },
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
        { name: 'users', description: 'Public profiles' },
        { name: 'engagement', description: 'Likes, comments, live viewers and views' },
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
    // The page's own policy: its files and this service, and no upgrade to https where there is none.
    staticCSP: {
      'default-src': "'self'", 'img-src': "'self' data:", 'style-src': "'self' 'unsafe-inline'", 'object-src': "'none'", 'base-uri': "'none'", 'frame-ancestors': "'none'"
    },
    theme: { title: 'HALO API' },
    logo: { type: 'image/svg+xml', content: Buffer.from(logo) },
    uiConfig: { tryItOutEnabled: true, persistAuthorization: true, displayRequestDuration: true }
  })
}, { name: 'halo:openapi', dependencies: ['halo:config', 'halo:security-headers'] })

import jwt from '@fastify/jwt'
import type { FastifyInstance, FastifyRequest } from 'fastify'
import fp from 'fastify-plugin'
import type { Account } from '../schemas/user.ts'
import { createBearers, type Bearers, type Claims } from '../services/bearers.ts'
import { ApiError } from '../services/errors.ts'

declare module '@fastify/jwt' {
  interface FastifyJWT {
    payload: Omit<Claims, 'exp'> & { nbf: number }
    user: Claims
  }
}

declare module 'fastify' {
  interface FastifyInstance {
    /** Whose tokens they are. */
    bearers: Bearers
    /** A scope in which every route needs a valid token; its bearer is `request.user`. */
    authenticated (routes: (scope: FastifyInstance) => Promise<void> | void): void
    /** Who asks, where a token is welcome and not needed; undefined without one, or with one that is not valid (any more). */
    callerOf (request: FastifyRequest): number | undefined
    /** A new access token for a user. */
    issueToken (account: Account): string
  }
}

/** Who is asking: tokens are made and read here and nowhere else. */
export default fp(async function auth (app) {
  const { secret, expiresInSeconds } = app.config.jwt
  await app.register(jwt, {
    secret,
    sign: { algorithm: 'HS256', expiresIn: `${expiresInSeconds}s` },
    verify: {
      // fast-jwt takes every algorithm that fits the key unless told.
      algorithms: ['HS256'],
      requiredClaims: ['user_id', 'exp']
    }
  })

  const bearers = createBearers({ verify: authorization => claimsOf(app, authorization) })
  app.decorate('bearers', bearers)

  app.decorate('issueToken', ({ id, email, username }: Account) =>
    app.jwt.sign({ user_id: id, email, username, nbf: Math.floor(Date.now() / 1000) }))

  // An app whose token has just expired still shows public pages: no 401 where none is needed.
  app.decorate('callerOf', request => {
    if (request.headers.authorization === undefined) return undefined
    try {
      return bearers.read(request.headers.authorization).user_id
    } catch {
      return undefined
    }
  })

  app.decorate('authenticated', function (this: FastifyInstance, routes: (scope: FastifyInstance) => Promise<void> | void) {
    this.register(async scope => {
      scope.addHook('onRequest', (request, reply, done) => {
        try {
          request.user = bearers.read(request.headers.authorization)
          done()
        } catch (error) {
          done(error as Error)
        }
      })
      // The protection and its documentation are one thing.
      scope.addHook('onRoute', route => {
        route.schema = { ...route.schema, security: [{ bearer: [] }] }
      })
      await routes(scope)
    })
  })
}, { name: 'halo:auth', dependencies: ['halo:config', 'halo:errors', 'halo:rate-limit'] })

function claimsOf (app: FastifyInstance, authorization: string | undefined): Claims {
  const token = /^bearer ([\w.~+/=-]+)$/i.exec(authorization ?? '')?.[1]
  if (token === undefined) throw new ApiError('unauthorized')
  try {
    const claims = app.jwt.verify<Claims>(token)
    if (!Number.isSafeInteger(claims.user_id) || claims.user_id < 1) throw new Error('The claim user_id is no id')
    return claims
  } catch (cause) {
    const isExpired = (cause as { code?: string }).code === 'FAST_JWT_EXPIRED'
    throw new ApiError('unauthorized', { message: `The access token ${isExpired ? 'has expired' : 'is not valid'}`, cause })
  }
}

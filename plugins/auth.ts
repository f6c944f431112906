import jwt from '@fastify/jwt'
import type { FastifyInstance, FastifyRequest } from 'fastify'
import fp from 'fastify-plugin'
import type { Session } from '../schemas/user.ts'
import { createAccessTokens, type Claims, type TokenSigner } from '../services/accounts/access-tokens.ts'
import type { LoggedIn } from '../services/accounts/accounts.ts'
import { createVerifiedTokens, type VerifiedTokens } from '../services/accounts/verified-tokens.ts'
import { publicKeys, readTokenKeys, type TokenKey } from '../services/accounts/token-keys.ts'

declare module '@fastify/jwt' {
  interface FastifyJWT {
    user: Claims
  }
}

declare module 'fastify' {
  interface FastifyInstance {
    /** Cache of verified access tokens. */
    verifiedTokens: VerifiedTokens
    /** Registers routes that need a valid token; its claims are `request.user`. */
    authenticated (routes: (scope: FastifyInstance) => Promise<void> | void): void
    /** Returns the id of the user on routes where a token is optional; undefined without a valid one. */
    callerOf (request: FastifyRequest): number | undefined
    /** Issues the tokens of a session. */
    tokensOf(loggedIn: LoggedIn): Session
    /** The public keys of access tokens (RFC 7517). */
    publicKeys: ReturnType<typeof publicKeys>
  }
}

/** Authentication: issues and verifies access tokens. */
export default fp(async function auth (app) {
  const { jwt: settings } = app.config
  const { refreshTokens, revocations, sessionActivity } = app.services
  const keys = readTokenKeys(settings)
  for (const key of keys) await registerKey(app, key)
  const signers = app.jwt as unknown as Record<string, TokenSigner>
  const accessTokens = createAccessTokens({
    keys,
    signerOf: key => signers[key.kid]!,
    issuer: settings.issuer,
    audience: settings.audience,
    lifetimeSeconds: settings.expiresInSeconds,
    acceptsLegacy: settings.acceptsLegacy
  })
  const verifiedTokens = createVerifiedTokens({ verify: accessTokens.verify, revocations, onUse: sessionActivity.note })
  app.decorate('verifiedTokens', verifiedTokens)
  app.decorate('publicKeys', publicKeys(keys))

  app.decorate('tokensOf', ({ account, session }) => {
    const { token, expiresIn } = accessTokens.issue(account, session.sid, session.expiresAt)
    return { token, expires_in: expiresIn, refresh_token: refreshTokens.encode(session), user: account }
  })

  // An app whose token has just expired still shows public pages: an invalid token is not an error where it is
  // optional.
  app.decorate('callerOf', request => {
    if (request.headers.authorization === undefined) return undefined
    try {
      return verifiedTokens.read(request.headers.authorization).user_id
    } catch {
      return undefined
    }
  })

  app.decorate(
    'authenticated',
    function (this: FastifyInstance, routes: (scope: FastifyInstance) => Promise<void> | void) {
      this.register(async scope => {
        scope.addHook('onRequest', (request, reply, done) => {
          try {
            request.user = verifiedTokens.read(request.headers.authorization)
            done()
          } catch (error) {
            done(error as Error)
          }
        })
        // Protected routes are documented as such.
        scope.addHook('onRoute', route => {
          route.schema = { ...route.schema, security: [{ bearer: [] }] }
        })
        await routes(scope)
      })
    }
  )
}, { name: 'halo:auth', dependencies: ['halo:config', 'halo:errors', 'halo:rate-limit', 'halo:services'] })

/** Registers @fastify/jwt for a key, restricted to the algorithm of the key. */
async function registerKey (app: FastifyInstance, key: TokenKey): Promise<void> {
  const { kid, algorithm } = key
  await app.register(jwt, {
    namespace: kid,
    secret: key.algorithm === 'HS256' ? key.secret : { private: key.privatePem ?? '', public: key.publicPem },
    sign: { algorithm, kid, header: { alg: algorithm, typ: 'at+jwt' } },
    // By default fast-jwt accepts every algorithm that fits the key. The other claims are checked by access-tokens.ts.
    verify: { algorithms: [algorithm], requiredClaims: ['exp'], ignoreNotBefore: true }
  })
}

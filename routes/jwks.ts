import { Type } from '@sinclair/typebox'
import { responses } from '../schemas/problem.ts'
import type { Handler, Routes } from '../schemas/route.ts'

const jwksSchema = {
  operationId: 'getPublicKeys',
  summary: 'The public keys of access tokens (RFC 7517)',
  description: 'Empty unless tokens are signed with EdDSA (`JWT_SIGNING_KEY`).',
  tags: ['auth'],
  response: responses({
    200: Type.Object({
      keys: Type.Array(Type.Object({
        kty: Type.String({ examples: ['OKP'] }),
        crv: Type.String({ examples: ['Ed25519'] }),
        x: Type.String({ examples: ['11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo'] }),
        kid: Type.String({ examples: ['kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k'] }),
        alg: Type.String({ examples: ['EdDSA'] }),
        use: Type.String({ examples: ['sig'] })
      }))
    }, { title: 'PublicKeys' })
  })
}

const routes: Routes = async app => {
  app.get('/.well-known/jwks.json', { schema: jwksSchema }, jwks)
}
export default routes

const jwks: Handler<typeof jwksSchema> = async function (request, reply) {
  return await reply.header('cache-control', 'public, max-age=300').send(
    this.publicKeys as { keys: Record<'kty' | 'crv' | 'x' | 'kid' | 'alg' | 'use', string>[] }
  )
}

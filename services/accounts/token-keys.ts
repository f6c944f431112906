import { createHash, createHmac, createPrivateKey, createPublicKey, type JsonWebKey, type KeyObject } from 'node:crypto'

/** Prefix of an Ed25519 key in a list that may also contain secrets. */
export const ed25519Prefix = 'ed25519:'

/** A key that verifies access tokens. It has one algorithm, and the header of a token must name that one. */
export type TokenKey =
  | { kid: string, algorithm: 'HS256', secret: string }
  | { kid: string, algorithm: 'EdDSA', privatePem: string | undefined, publicPem: string, jwk: JsonWebKey }

/** Whether a secret may be guessed: only tokens of the Go service, which took such ones, are verified with it. */
export const isWeakSecret = (secret: string): boolean =>
  !secret.startsWith(ed25519Prefix) && Buffer.byteLength(secret) < 32

export interface TokenKeySettings {
  secret: string
  previousKeys: readonly string[]
  signingKey: string | null
}

/** Reads the keys, each once; the first one signs. */
export function readTokenKeys ({ secret, previousKeys, signingKey }: TokenKeySettings): TokenKey[] {
  const keys = [
    ...signingKey === null ? [] : [ed25519Key(signingKey)],
    secretKey(secret),
    ...previousKeys.map(key =>
      key.startsWith(ed25519Prefix) ? ed25519Key(key.slice(ed25519Prefix.length)) : secretKey(key)
    )
  ]
  return [...new Map(keys.toReversed().map(key => [key.kid, key])).values()].toReversed()
}

/** Returns the public keys with which other services verify tokens (RFC 7517 §5). It contains no secret. */
export function publicKeys (keys: readonly TokenKey[]): { keys: JsonWebKey[] } {
  return {
    keys: keys.flatMap(key => key.algorithm === 'EdDSA' ? [{ ...key.jwk, kid: key.kid, alg: 'EdDSA', use: 'sig' }] : [])
  }
}

/** Whether a text is an Ed25519 key, DER in base64. */
export function isEd25519Key (text: string, kind: 'private' | 'any'): boolean {
  try {
    const { privateKey } = parseEd25519(text)
    return kind === 'any' || privateKey !== undefined
  } catch {
    return false
  }
}

function secretKey (secret: string): TokenKey {
  // A key id that reveals nothing about the secret.
  return {
    kid: createHmac('sha256', secret).update('kid').digest('base64url').slice(0, 16),
    algorithm: 'HS256',
    secret
  }
}

function ed25519Key (text: string): TokenKey {
  const { privateKey, publicKey } = parseEd25519(text)
  const jwk = publicKey.export({ format: 'jwk' })
  // RFC 7638: the required members of the key, in lexicographic order.
  const thumbprint = createHash('sha256').update(JSON.stringify({ crv: jwk.crv, kty: jwk.kty, x: jwk.x })).digest(
    'base64url'
  )
  return {
    kid: thumbprint,
    algorithm: 'EdDSA',
    privatePem: privateKey?.export({ format: 'pem', type: 'pkcs8' }) as string | undefined,
    publicPem: publicKey.export({ format: 'pem', type: 'spki' }) as string,
    jwk
  }
}

function parseEd25519 (text: string): { privateKey: KeyObject | undefined, publicKey: KeyObject } {
  const key = Buffer.from(text, 'base64')
  let privateKey: KeyObject | undefined
  try {
    privateKey = createPrivateKey({ key, format: 'der', type: 'pkcs8' })
  } catch {}
  const publicKey = privateKey ? createPublicKey(privateKey) : createPublicKey({ key, format: 'der', type: 'spki' })
  if (publicKey.asymmetricKeyType !== 'ed25519') throw new Error('This is no Ed25519 key')
  return { privateKey, publicKey }
}

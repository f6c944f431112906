import { readFileSync } from 'node:fs'

/** Settings whose value may be in a file, named by the setting with `_FILE`: as Kubernetes and Docker mount secrets. */
export const secretSettings = [
  'DATABASE_URL',
  'DATABASE_REPLICA_URL',
  'DB_PASSWORD',
  'REDIS_URL',
  'REDIS_PASSWORD',
  'REDIS_SENTINEL_PASSWORD',
  'JWT_SECRET_KEY',
  'JWT_PREVIOUS_KEYS',
  'JWT_SIGNING_KEY',
  'PASSWORD_PEPPER',
  'PASSWORD_PREVIOUS_PEPPERS'
] as const

/** Longest content of such a file, in bytes: the wrong file is not read into memory. */
const maxBytes = 64 * 1024

type Variables = Record<string, string | undefined>

/**
 * Returns the variables with the secrets that are in files. White space around them, such as a newline at the end, is
 * removed.
 *
 * @param problems gets a sentence for each file that is missing, empty or too long, and for a secret that is set twice
 */
export function withSecretFiles (variables: Variables, problems: string[]): Variables {
  const found: Variables = { ...variables }
  for (const name of secretSettings) {
    const path = variables[`${name}_FILE`]?.trim()
    if (!path) continue
    const secret = read(path)
    const given = variables[name]?.trim()
    if (secret instanceof Error) problems.push(`${name}_FILE is ${path}, which cannot be read: ${secret.message}`)
    else if (secret === '') problems.push(`${name}_FILE is ${path}, which is empty: put the secret into it`)
    // A supervisor has read the file, and passes the same on to its workers.
    else if (given && given !== secret) problems.push(`${name} and ${name}_FILE are both set, and differ: set one of them`)
    else found[name] = secret
  }
  return found
}

function read (path: string): string | Error {
  try {
    const bytes = readFileSync(path)
    return bytes.length > maxBytes ? new Error(`it has more than ${maxBytes} bytes`) : bytes.toString().trim()
  } catch (error) {
    return error as Error
  }
}

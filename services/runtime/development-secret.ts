import { randomBytes } from 'node:crypto'
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'

/**
 * Returns the secret that signs tokens in development, so that a restart logs nobody out: it is made once and kept in a
 * file that only its owner can read. Production names its secret.
 *
 * @param directory folder of the service's data
 * @returns undefined when the folder cannot be written to, or the file was cut short
 */
export function developmentSecret (directory: string): string | undefined {
  const file = join(directory, 'development-secret')
  try {
    mkdirSync(directory, { recursive: true })
    // `wx`: of two services that start at once one makes it, and both read the same.
    writeFileSync(file, randomBytes(48).toString('base64'), { mode: 0o600, flag: 'wx' })
  } catch {}
  try {
    const secret = readFileSync(file, 'utf8').trim()
    return secret.length === 64 ? secret : undefined
  } catch {
    return undefined
  }
}

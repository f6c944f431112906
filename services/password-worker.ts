import { createHmac } from 'node:crypto'
import { constants, setPriority } from 'node:os'
import bcrypt from 'bcryptjs'

/**
 * Runs in a worker thread: bcryptjs holds its thread for a tenth of a second a password.
 */
export type PasswordTask =
  /** Null for a password that is too common. */
  | { kind: 'hash', password: string, cost: number, pepper: Pepper, isChecked: boolean }
  | { kind: 'compare', password: string, stored: string, peppers: readonly Pepper[] }

/** A secret that hashes are made with, and the name under which they remember it. */
export interface Pepper { id: string, secret: string }

// On Linux this is the priority of the thread alone: requests do not wait for passwords where a CPU is short.
try {
  setPriority(0, constants.priority.PRIORITY_LOW)
} catch {}

let common: Promise<Set<string>> | undefined

export default async function work (task: PasswordTask): Promise<string | boolean | null> {
  if (task.kind === 'compare') return compare(task)
  const { password, cost, pepper, isChecked } = task
  if (isChecked && await isCommon(password)) return null
  return `${prefix}${pepper.id}$${bcrypt.hashSync(prehash(password, pepper), cost)}`
}

/** Stands before a hash of ours, with the name of its pepper; those of the Go service begin with `$2`. */
const prefix = 'halo1$'

/**
 * bcrypt looks at 72 bytes and stops at a NUL: what it hashes is a keyed digest, in which every byte of the password
 * counts (OWASP Password Storage Cheat Sheet, "Pre-Hashing Passwords with bcrypt"). One password has one form.
 */
function prehash (password: string, { secret }: Pepper): string {
  return createHmac('sha384', secret).update(password.normalize('NFKC')).digest('base64')
}

function compare ({ password, stored, peppers }: Extract<PasswordTask, { kind: 'compare' }>): boolean {
  if (!stored.startsWith(prefix)) return bcrypt.compareSync(password, stored)
  const end = stored.indexOf('$', prefix.length)
  const pepper = peppers.find(({ id }) => id === stored.slice(prefix.length, end))
  // As long as any other comparison takes.
  return bcrypt.compareSync(prehash(password, pepper ?? peppers[0]!), stored.slice(end + 1)) && pepper !== undefined
}

/** The list takes 20 MB and is in this thread alone, from the first password that is checked. */
async function isCommon (password: string): Promise<boolean> {
  common ??= import('@zxcvbn-ts/language-common').then(({ dictionary }) => new Set(dictionary['passwords-common'] as string[]))
  return (await common).has(password.normalize('NFKC').toLowerCase())
}

import { createHmac } from 'node:crypto'
import { constants, setPriority } from 'node:os'
import bcrypt from 'bcryptjs'

/**
 * Hashes and verifies passwords in a worker thread: bcryptjs blocks its thread for a tenth of a second per password.
 */
export type PasswordTask =
  /** Null when the password is too common. */
  | { kind: 'hash', password: string, cost: number, pepper: Pepper, isChecked: boolean }
  | { kind: 'compare', password: string, stored: string, decoy: string, peppers: readonly Pepper[] }

/** A pepper, and the name of it that is stored with its hashes. */
export interface Pepper {
  id: string
  secret: string
}

// On Linux this sets the priority of this thread only: where CPUs are scarce, other requests do not wait for passwords.
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

/**
 * Prefix of the hashes of this service, followed by the name of the pepper; hashes of the Go service begin with `$2`.
 */
const prefix = 'halo1$'

/**
 * bcrypt uses 72 bytes and stops at a NUL, so it gets a keyed digest of the whole password (OWASP Password Storage
 * Cheat Sheet, "Pre-Hashing Passwords with bcrypt"), which is normalised first.
 */
function prehash (password: string, { secret }: Pepper): string {
  return createHmac('sha384', secret).update(password.normalize('NFKC')).digest('base64')
}

function compare (task: Extract<PasswordTask, { kind: 'compare' }>): boolean {
  const isEqual = isEqualTo(task)
  if (!isEqual) spendDifference(task)
  return isEqual
}

function isEqualTo ({ password, stored, peppers }: Extract<PasswordTask, { kind: 'compare' }>): boolean {
  const hash = bcryptOf(stored)
  if (hash === undefined) return false
  if (!stored.startsWith(prefix)) return bcrypt.compareSync(password, hash)
  const id = stored.slice(prefix.length, stored.indexOf('$', prefix.length))
  const pepper = peppers.find(one => one.id === id)
  // Takes as long as any other comparison.
  return bcrypt.compareSync(prehash(password, pepper ?? peppers[0]!), hash) && pepper !== undefined
}

/** Returns the bcrypt part of a stored hash; undefined for a malformed one, or one whose cost would take minutes. */
function bcryptOf (stored: string): string | undefined {
  return /^(?:halo1\$[\w-]*\$)?(\$2[aby]\$(?:0[4-9]|1[0-6])\$[./A-Za-z0-9]{53})$/.exec(stored)?.[1]
}

const costOf = (hash: string): number => Number(hash.slice(4, 6))

/**
 * Makes the comparison with a hash of a lower cost, or with a malformed one, take as long as with a new one, so that
 * the time does not reveal which emails exist. Work doubles with each step of the cost: one hash of each cost in
 * between makes the difference.
 */
function spendDifference ({ password, stored, decoy }: Extract<PasswordTask, { kind: 'compare' }>): void {
  const hash = bcryptOf(stored)
  const target = bcryptOf(decoy)!
  if (hash === undefined) {
    bcrypt.compareSync(password, target)
    return
  }
  for (let cost = costOf(hash); cost < costOf(target); cost++) {
    bcrypt.compareSync(password, `$2b$${String(cost).padStart(2, '0')}${target.slice(6)}`)
  }
}

/** The list takes 20 MB: it is loaded in this thread only, with the first password that is checked. */
async function isCommon (password: string): Promise<boolean> {
  common ??= import('@zxcvbn-ts/language-common').then(({ dictionary }) =>
    new Set(dictionary['passwords-common'] as string[])
  )
  return (await common).has(password.normalize('NFKC').toLowerCase())
}

import { createHmac } from 'node:crypto'
import { constants, setPriority } from 'node:os'
import bcrypt from 'bcryptjs'

/**
 * Runs in a worker thread: bcryptjs holds its thread for a tenth of a second a password.
 */
export type PasswordTask =
  /** Null for a password that is too common. */
  | { kind: 'hash', password: string, cost: number, pepper: Pepper, isChecked: boolean }
  | { kind: 'compare', password: string, stored: string, decoy: string, peppers: readonly Pepper[] }

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
  // As long as any other comparison takes.
  return bcrypt.compareSync(prehash(password, pepper ?? peppers[0]!), hash) && pepper !== undefined
}

/** The part of a stored hash that is bcrypt's; undefined for one that is none, or would take minutes. */
function bcryptOf (stored: string): string | undefined {
  return /^(?:halo1\$[\w-]*\$)?(\$2[aby]\$(?:0[4-9]|1[0-6])\$[./A-Za-z0-9]{53})$/.exec(stored)?.[1]
}

const costOf = (hash: string): number => Number(hash.slice(4, 6))

/**
 * A wrong password takes as long for a hash of an earlier, lower cost, or for one that is none, as for nobody's: the time
 * does not tell which emails exist. Work doubles with each step, so that each cost in between once is the difference.
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

/** The list takes 20 MB and is in this thread alone, from the first password that is checked. */
async function isCommon (password: string): Promise<boolean> {
  common ??= import('@zxcvbn-ts/language-common').then(({ dictionary }) => new Set(dictionary['passwords-common'] as string[]))
  return (await common).has(password.normalize('NFKC').toLowerCase())
}

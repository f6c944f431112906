import bcrypt from 'bcryptjs'

/**
 * Runs in a worker thread: bcryptjs holds its thread for a tenth of a second a password.
 */
export type PasswordTask =
  | { kind: 'hash', password: string, cost: number }
  | { kind: 'compare', password: string, hash: string }

export default function work (task: PasswordTask): string | boolean {
  return task.kind === 'hash'
    ? bcrypt.hashSync(task.password, task.cost)
    : bcrypt.compareSync(task.password, task.hash)
}

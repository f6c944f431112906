import { randomBytes } from 'node:crypto'

let count = 0

/** Somebody who is not registered yet. */
export function randomUser (): { email: string, username: string, password: string, display_name: string } {
  const name = `user_${randomBytes(5).toString('hex')}${count++}`
  return { email: `${name}@example.com`, username: name, password: 'correct horse', display_name: 'A Person' }
}

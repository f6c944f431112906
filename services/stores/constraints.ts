/** The members of a `pg` error that say which rule of the database was broken. */
interface DatabaseError { code?: string, table?: string, constraint?: string }

/**
 * Whether an error means that the email or the username is taken. Not a list of names: a database of the
 * Go service brings its own names for the same rules, and the table has no other unique rule but its key.
 */
export function isUserTaken (error: unknown): boolean {
  const { code, table, constraint } = (error ?? {}) as DatabaseError
  return code === '23505' && table === 'users' && constraint !== 'users_pkey'
}

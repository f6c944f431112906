/** The members of a `pg` error that identify a violated constraint. */
interface DatabaseError {
  code?: string
  table?: string
  constraint?: string
}

/**
 * Whether an error means that the email or the username is taken. Not by constraint names: a database of the Go
 * service has other names for the same constraints, and the table has no other unique constraint but its primary key.
 */
export function isUserTaken (error: unknown): boolean {
  const { code, table, constraint } = (error ?? {}) as DatabaseError
  return code === '23505' && table === 'users' && constraint !== 'users_pkey'
}

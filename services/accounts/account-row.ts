import type { Account } from '../../schemas/user.ts'

export interface AccountRow extends Omit<Account, 'created_at' | 'updated_at'> {
  created_at: Date
  updated_at: Date
}

/**
 * SQL condition: the account is not deleted (its rows may still exist). The array is read once per statement;
 * `coalesce` keeps PostgreSQL from estimating how many rows remain: with an anti-join, or without `coalesce`, a page
 * of videos was found by sorting all of them (EXPLAIN in test/routes/paging.test.ts).
 *
 * @param id the column with the account's id
 */
export const isActive = (id: string): string =>
  `coalesce(${id} <> all (array(select user_id from deleted_users)), true)`

/** The columns of an AccountRow. @param name the name of `users` in the statement */
export const accountColumns = (name: string): string =>
  ['id', 'email', 'username', 'display_name', 'bio', 'avatar_url', 'is_adult', 'adult_mode', 'created_at', 'updated_at']
    .map(column => `${name}.${column}`).join(', ')

export function toAccount (row: AccountRow): Account {
  return {
    id: row.id,
    email: row.email,
    username: row.username,
    display_name: row.display_name,
    bio: row.bio,
    avatar_url: row.avatar_url,
    is_adult: row.is_adult,
    adult_mode: row.adult_mode,
    created_at: row.created_at.toISOString(),
    updated_at: row.updated_at.toISOString()
  }
}

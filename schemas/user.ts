import { Type, type Static } from '@sinclair/typebox'
import { Id, Text, Timestamp } from './atoms.ts'

/** A user as its owner sees it; the only schema with the email in it. The hash is in none. */
export const Account = Type.Object({
  id: Id,
  email: Type.String({ examples: ['test@example.com'] }),
  username: Type.String({ examples: ['testuser'] }),
  display_name: Type.String({ examples: ['Test User'] }),
  bio: Type.String({ description: '"" when never set', examples: [''] }),
  avatar_url: Type.String({ description: '"" when never set', examples: [''] }),
  is_adult: Type.Boolean({ examples: [true] }),
  adult_mode: Type.Boolean({ description: 'false at registration', examples: [false] }),
  created_at: Timestamp,
  updated_at: Timestamp
}, { title: 'Account' })
export type Account = Static<typeof Account>

/** A user as everybody may see them. */
export const Profile = Type.Object({
  id: Id,
  username: Type.String({ examples: ['testuser'] }),
  display_name: Type.String({ examples: ['Test User'] }),
  bio: Type.String({ description: '"" when never set', examples: [''] }),
  avatar_url: Type.String({ description: '"" when never set', examples: [''] }),
  created_at: Timestamp
}, { title: 'Profile' })
export type Profile = Static<typeof Profile>

const Password = (minLength: number) => Text({
  minLength, maxLength: 256, description: 'The password, of any characters', examples: ['password123']
})

export const Registration = Type.Object({
  email: Text({ format: 'email', maxLength: 255, description: 'Unique in any letter case', examples: ['test@example.com'] }),
  username: Text({ minLength: 3, maxLength: 30, pattern: '^\\S(.*\\S)?$', description: 'Unique in any letter case; no space at either end', examples: ['testuser'] }),
  password: Password(8),
  display_name: Text({ minLength: 1, maxLength: 50, pattern: '\\S', examples: ['Test User'] }),
  is_adult: Type.Optional(Type.Boolean({ default: false, examples: [true] }))
}, { title: 'Registration' })
export type Registration = Static<typeof Registration>

export const Credentials = Type.Object({
  email: Text({ minLength: 1, maxLength: 255, examples: ['test@example.com'] }),
  password: Password(1)
}, { title: 'Credentials' })
export type Credentials = Static<typeof Credentials>

export const Session = Type.Object({
  token: Type.String({ description: 'JWT, for `Authorization: Bearer …`', examples: ['eyJhbGciOiJIUzI1NiJ9.eyJ1c2VyX2lkIjo0Mn0.c2lnbmF0dXJl'] }),
  user: Account
}, { title: 'Session' })

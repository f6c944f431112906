import { Type, type Static } from '@sinclair/typebox'
import { Id, Line, Storable, Text, Timestamp } from './atoms.ts'

/** A user as they see themselves; the only schema with the email. No schema has the password hash. */
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

/** The public profile of a user. */
export const Profile = Type.Object({
  id: Id,
  username: Type.String({ examples: ['testuser'] }),
  display_name: Type.String({ examples: ['Test User'] }),
  bio: Type.String({ description: '"" when never set', examples: [''] }),
  avatar_url: Type.String({ description: '"" when never set', examples: [''] }),
  created_at: Timestamp
}, { title: 'Profile' })
export type Profile = Static<typeof Profile>

const Password = (minLength: number) =>
  Storable({
    minLength,
    maxLength: 256,
    description: 'The password, of any characters',
    examples: ['password123']
  })

const DisplayName = Line({ minLength: 1, maxLength: 50, description: 'One line', examples: ['Test User'] })

export const Registration = Type.Object({
  email: Type.String({
    'x-trimmed': true,
    format: 'email',
    maxLength: 255,
    description: 'Unique in any letter case; spaces around it are removed',
    examples: ['test@example.com']
  }),
  username: Type.String({
    'x-trimmed': true,
    minLength: 3,
    maxLength: 30,
    format: 'username',
    description: 'Unique in any letter case; of one alphabet, without invisible characters; spaces around it are removed',
    examples: ['testuser']
  }),
  password: Password(8),
  display_name: DisplayName,
  is_adult: Type.Optional(Type.Boolean({ description: 'false when left out', examples: [true] }))
}, { title: 'Registration' })
export type Registration = Static<typeof Registration>

export const Credentials = Type.Object({
  email: Storable({ 'x-trimmed': true, minLength: 1, maxLength: 255, examples: ['demo@halo.example'] }),
  password: Password(1)
}, { title: 'Credentials' })
export type Credentials = Static<typeof Credentials>

export const AccountPatch = Type.Object({
  display_name: Type.Optional(DisplayName),
  bio: Type.Optional(Text({ maxLength: 1000, examples: ['Streams on Fridays'] })),
  avatar_url: Type.Optional(
    Type.String({
      format: 'http-url',
      description: 'http or https; "" for none',
      examples: ['https://cdn.halo.example/avatars/42.webp']
    })
  ),
  is_adult: Type.Optional(Type.Boolean({ description: 'false turns adult mode off', examples: [true] })),
  adult_mode: Type.Optional(
    Type.Boolean({ description: 'Whether adult content is shown; only an adult can turn it on', examples: [true] })
  )
}, { title: 'AccountPatch', additionalProperties: false, minProperties: 1 })
export type AccountPatch = Static<typeof AccountPatch>

export const PasswordChange = Type.Object({
  current_password: Password(1),
  new_password: Password(8)
}, { title: 'PasswordChange' })

export const PasswordProof = Type.Object({ password: Password(1) }, { title: 'PasswordProof' })

export const RefreshRequest = Type.Object({
  refresh_token: Type.String({
    minLength: 1,
    maxLength: 1024,
    description: 'The one of the last answer; each is good for one refresh',
    examples: ['halo_refresh_Jm5…']
  })
}, { title: 'RefreshRequest' })

/** The tokens of a session, and its user. */
export const Session = Type.Object({
  token: Type.String({
    description: 'Access token, a JWT, for `Authorization: Bearer …`',
    examples: ['eyJhbGciOiJIUzI1NiJ9.eyJ1c2VyX2lkIjo0Mn0.c2lnbmF0dXJl']
  }),
  expires_in: Type.Integer({ description: 'Seconds for which the access token is good', examples: [86_400] }),
  refresh_token: Type.String({ description: 'For `POST /auth/refresh`, once', examples: ['halo_refresh_Jm5…'] }),
  user: Account
}, { title: 'Session' })
export type Session = Static<typeof Session>

/** A session of the user. */
export const SessionInfo = Type.Object({
  id: Type.String({ examples: ['Zm9yIHRoZSBkb2NzIDEyMw'] }),
  created_at: Timestamp,
  last_used_at: Timestamp,
  expires_at: Timestamp,
  address: Type.String({
    description: 'Address of the client at the last login or refresh',
    examples: ['203.0.113.7']
  }),
  user_agent: Type.String({ description: '"" when there was none', examples: ['HALO/4.2 (Android 16)'] }),
  is_current: Type.Boolean({ description: 'Whether it is the session of this request', examples: [true] })
}, { title: 'SessionInfo' })
export type SessionInfo = Static<typeof SessionInfo>

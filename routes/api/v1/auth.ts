import { Type } from '@sinclair/typebox'
import { IdempotencyKey } from '../../../schemas/atoms.ts'
import { Nothing, responses, withHeaders } from '../../../schemas/problem.ts'
import type { Handler, Routes } from '../../../schemas/route.ts'
import {
  Account,
  AccountPatch,
  Credentials,
  PasswordChange,
  PasswordProof,
  RefreshRequest,
  Registration,
  Session,
  SessionInfo
} from '../../../schemas/user.ts'
import type { PolicyName } from '../../../services/traffic/limiter/policies.ts'

const tags = ['auth']
const ofBody = ['payload_too_large', 'unsupported_media_type'] as const

const registerSchema = {
  operationId: 'register',
  summary: 'Register',
  description:
    'A request that is repeated with the same `Idempotency-Key` within a day answers with a new session of the user that the first one registered.',
  tags,
  headers: Type.Object({ 'idempotency-key': IdempotencyKey('Repeated with the same key, the user is registered once') }),
  body: Registration,
  response: responses({ 201: withHeaders(Session, { 'Idempotency-Replayed': 'true for a repeated request' }) }, [
    ...ofBody,
    'invalid_credentials',
    'user_exists',
    'password_too_common',
    'idempotency_key_reused',
    'server_busy'
  ])
}
const loginSchema = {
  operationId: 'login',
  summary: 'Log in',
  description:
    'Begins a session on this device. The answer is the same for a wrong password and an unknown email, and takes the same time. Repeated failures make further attempts wait.',
  tags,
  body: Credentials,
  response: responses({ 200: Session }, [...ofBody, 'invalid_credentials', 'server_busy'])
}
const refreshSchema = {
  operationId: 'refreshTokens',
  summary: 'New tokens for a session',
  description:
    'Each refresh token is used once. If the response was lost, repeat the request: the token works until its successor is used. After that it ends the session, because two parties have it; within 10 seconds of its rotation it is only refused.',
  tags,
  body: RefreshRequest,
  response: responses({ 200: Session }, [...ofBody, 'invalid_refresh_token'])
}
const logoutSchema = {
  operationId: 'logout',
  summary: 'End the session of this token',
  description:
    'Its access token and its refresh token are refused within a second, on every process.',
  tags,
  response: responses({ 204: Nothing }, ['unauthorized', 'payload_too_large'])
}
const logoutAllSchema = {
  ...logoutSchema,
  operationId: 'logoutAll',
  summary: 'End all sessions of the user',
  description: 'The session of the caller is one of them.'
}
const sessionsSchema = {
  operationId: 'listSessions',
  summary: 'List the sessions of the user',
  description:
    'One entry for each login that has not ended, the newest first.',
  tags,
  response: responses({ 200: Type.Array(SessionInfo) }, ['unauthorized'])
}
const endSessionSchema = {
  operationId: 'endSession',
  summary: 'End one session of the user',
  description:
    'Its tokens are refused within a second, on every process.',
  tags,
  params: Type.Object({
    session_id: Type.String({
      pattern: '^[\\w-]{22}$',
      description: 'Id of the session',
      examples: ['Zm9yIHRoZSBkb2NzIDEyMw']
    })
  }),
  response: responses({ 204: Nothing }, ['unauthorized', 'not_found', 'payload_too_large'])
}
const profileSchema = {
  operationId: 'getAccount',
  summary: 'The own account',
  description:
    'The account of the caller, with the email and the settings that nobody else is shown.',
  tags,
  response: responses({ 200: Account }, ['unauthorized'])
}
const updateSchema = {
  operationId: 'updateAccount',
  summary: 'Change the own account',
  description:
    'Only the members that are sent are changed. A change of adult mode takes effect within a second.',
  tags,
  body: AccountPatch,
  response: responses({ 200: Account }, [...ofBody, 'unauthorized', 'not_an_adult'])
}
const passwordSchema = {
  operationId: 'changePassword',
  summary: 'Change the password and end all other sessions',
  description:
    'Needs the current password. The session of the caller continues.',
  tags,
  body: PasswordChange,
  response: responses({ 204: Nothing }, [
    ...ofBody,
    'unauthorized',
    'wrong_password',
    'password_too_common',
    'server_busy'
  ])
}
const removeSchema = {
  operationId: 'deleteAccount',
  summary: 'Delete the account, with its videos, likes and sessions',
  description:
    'Needs the password. When the answer is 204, the account and its videos are invisible, its sessions have ended, and its email and username are free.',
  tags,
  body: PasswordProof,
  response: responses({ 204: Nothing }, [...ofBody, 'unauthorized', 'wrong_password', 'server_busy'])
}

const routes: Routes = async app => {
  // A request that would wait too long for a password thread is refused before any work is done for it.
  const requireRoom = (request: unknown, reply: unknown, done: () => void): void => {
    app.services.passwords.requireRoom()
    done()
  }
  const limited = (policy: PolicyName) => ({ onRequest: [requireRoom, app.limited(policy)] })
  app.post('/auth/register', { schema: registerSchema, ...limited('register') }, register)
  app.post('/auth/login', { schema: loginSchema, ...limited('login') }, login)
  app.post('/auth/refresh', { schema: refreshSchema }, refresh)

  app.authenticated(scope => {
    scope.post('/auth/logout', { schema: logoutSchema }, logout)
    scope.post('/auth/logout-all', { schema: logoutAllSchema }, logoutAll)
    scope.get('/auth/sessions', { schema: sessionsSchema }, sessions)
    scope.delete('/auth/sessions/:session_id', { schema: endSessionSchema }, endSession)
    scope.get('/auth/me', { schema: profileSchema }, profile)
    scope.patch('/auth/me', { schema: updateSchema }, update)
    scope.post('/auth/password', { schema: passwordSchema, ...limited('password') }, changePassword)
    scope.delete('/auth/me', { schema: removeSchema, ...limited('password') }, remove)
  })
}
export default routes

const register: Handler<typeof registerSchema> = async function (request, reply) {
  const { body, client, headers } = request
  const { isReplay, ...loggedIn } = await this.services.accounts.register(body, client, headers['idempotency-key'])
  if (isReplay) reply.header('idempotency-replayed', 'true')
  return await reply.code(201).header('cache-control', 'no-store').send(this.tokensOf(loggedIn))
}

const login: Handler<typeof loginSchema> = async function (request, reply) {
  const loggedIn = await this.services.accounts.login(request.body, request.client)
  return await reply.header('cache-control', 'no-store').send(this.tokensOf(loggedIn))
}

const refresh: Handler<typeof refreshSchema> = async function (request, reply) {
  const loggedIn = await this.services.accounts.refresh(request.body.refresh_token, request.client)
  return await reply.header('cache-control', 'no-store').send(this.tokensOf(loggedIn))
}

const logout: Handler<typeof logoutSchema> = async function (request, reply) {
  await this.services.accounts.logout(request.user, request.client)
  return await reply.code(204).send(null)
}

const logoutAll: Handler<typeof logoutAllSchema> = async function (request, reply) {
  await this.services.accounts.logoutAll(request.user, request.client)
  return await reply.code(204).send(null)
}

const sessions: Handler<typeof sessionsSchema> = async function (request, reply) {
  return await reply.header('cache-control', 'no-store').send(await this.services.accounts.sessions(request.user))
}

const endSession: Handler<typeof endSessionSchema> = async function (request, reply) {
  await this.services.accounts.endSession(request.user, request.params.session_id, request.client)
  return await reply.code(204).send(null)
}

const profile: Handler<typeof profileSchema> = async function (request, reply) {
  const user = await this.services.accounts.profile(request.user.user_id)
  return await reply.header('cache-control', 'no-store').send(user)
}

const update: Handler<typeof updateSchema> = async function (request, reply) {
  const user = await this.services.accounts.update(request.user.user_id, request.body)
  this.adultAccess.forget(user.id)
  return await reply.header('cache-control', 'no-store').send(user)
}

const changePassword: Handler<typeof passwordSchema> = async function (request, reply) {
  const { current_password: current, new_password: next } = request.body
  await this.services.accounts.changePassword(request.user, current, next, request.client)
  return await reply.code(204).send(null)
}

const remove: Handler<typeof removeSchema> = async function (request, reply) {
  await this.services.accounts.remove(request.user, request.body.password, request.client)
  return await reply.code(204).send(null)
}

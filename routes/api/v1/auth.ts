import { responses } from '../../../schemas/problem.ts'
import type { Handler, Routes } from '../../../schemas/route.ts'
import { Account, Credentials, Registration, Session } from '../../../schemas/user.ts'

const tags = ['auth']

const registerSchema = {
  summary: 'Register',
  tags,
  body: Registration,
  response: responses({ 201: Session }, ['user_exists', 'payload_too_large', 'unsupported_media_type', 'server_busy'])
}
const loginSchema = {
  summary: 'Log in',
  tags,
  body: Credentials,
  response: responses({ 200: Session }, ['invalid_credentials', 'payload_too_large', 'unsupported_media_type', 'server_busy'])
}
const profileSchema = {
  summary: 'The own profile',
  tags,
  response: responses({ 200: Account }, ['unauthorized'])
}

const routes: Routes = async app => {
  app.post('/auth/register', { schema: registerSchema, config: { rateLimit: app.passwordRateLimit() } }, register)
  app.post('/auth/login', { schema: loginSchema, config: { rateLimit: app.passwordRateLimit() } }, login)

  app.authenticated(scope => {
    scope.get('/auth/me', { schema: profileSchema }, profile)
  })
}
export default routes

const register: Handler<typeof registerSchema> = async function (request, reply) {
  const user = await this.services.accounts.register(request.body)
  return await reply.code(201).header('cache-control', 'no-store').send({ token: this.issueToken(user), user })
}

const login: Handler<typeof loginSchema> = async function (request, reply) {
  const user = await this.services.accounts.login(request.body)
  return await reply.header('cache-control', 'no-store').send({ token: this.issueToken(user), user })
}

const profile: Handler<typeof profileSchema> = async function (request, reply) {
  const user = await this.services.accounts.profile(request.user.user_id)
  return await reply.header('cache-control', 'no-store').send(user)
}

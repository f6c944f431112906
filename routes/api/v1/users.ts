import { Type } from '@sinclair/typebox'
import { PathId } from '../../../schemas/atoms.ts'
import { responses } from '../../../schemas/problem.ts'
import type { Handler, Routes } from '../../../schemas/route.ts'
import { Profile } from '../../../schemas/user.ts'

const profileSchema = {
  operationId: 'getProfile',
  summary: 'The public profile of a user',
  description:
    'What everybody may see of a user: not the email, not the settings.',
  tags: ['users'],
  params: Type.Object({ user_id: PathId('Id of the user') }),
  response: responses({ 200: Profile }, ['invalid_id', 'not_found'])
}

const routes: Routes = async app => {
  app.get('/users/:user_id', { schema: profileSchema }, profile)
}
export default routes

const profile: Handler<typeof profileSchema> = async function (request) {
  return await this.services.users.profile(request.params.user_id)
}

import { Type } from '@sinclair/typebox'
import { responses } from '../schemas/problem.ts'
import type { Handler, Routes } from '../schemas/route.ts'
import { catalogue, type ErrorCode } from '../schemas/error-catalogue.ts'
import { ApiError } from '../services/shared/errors.ts'

const ErrorKind = Type.Object({
  error: Type.String({ description: 'The stable code', examples: ['not_found'] }),
  status: Type.Integer({ examples: [404] }),
  title: Type.String({ examples: ['Not found'] }),
  message: Type.String({ examples: ['There is nothing at this address'] })
}, { title: 'ErrorKind' })

const listSchema = {
  operationId: 'listErrors',
  summary: 'List every error code',
  description:
    'The catalogue from which all problems are made. A client can show `message`, and decides by `error`.',
  tags: ['operations'],
  response: responses({ 200: Type.Array(ErrorKind) })
}
const getSchema = {
  operationId: 'getError',
  summary: 'Get one error code',
  description:
    '`type` of each problem is the address of this operation with the code of the problem.',
  tags: ['operations'],
  params: Type.Object({
    code: Type.String({ description: 'A code of an error', maxLength: 64, examples: ['not_found'] })
  }),
  response: responses({ 200: ErrorKind }, ['not_found'])
}

const routes: Routes = async app => {
  app.get('/errors', { schema: listSchema }, list)
  app.get('/errors/:code', { schema: getSchema }, get)
}
export default routes

const toKind = (code: ErrorCode) => ({ error: code, ...catalogue[code] })

const list: Handler<typeof listSchema> = async () => (Object.keys(catalogue) as ErrorCode[]).map(toKind)

const get: Handler<typeof getSchema> = async request => {
  const { code } = request.params
  if (!Object.hasOwn(catalogue, code)) throw new ApiError('not_found', { message: `There is no error ${code}` })
  return toKind(code as ErrorCode)
}

import { Type } from '@sinclair/typebox'
import { OneOf } from './atoms.ts'

const Time = Type.Integer({ description: 'Unix time in seconds' })

export const Health = Type.Object({
  status: OneOf(['healthy', 'unhealthy']),
  database: Type.Boolean({ description: 'PostgreSQL answers' }),
  redis: Type.Boolean({ description: 'Redis answers, or is not used' }),
  time: Time
}, { title: 'Health' })

export const Liveness = Type.Object({ status: OneOf(['alive']), time: Time }, { title: 'Liveness' })

export const Readiness = Type.Object({
  status: OneOf(['ready', 'not_ready', 'draining']),
  database: Type.Boolean({ description: 'PostgreSQL answers' }),
  redis: Type.Boolean({ description: 'Redis answers, or is not used' }),
  schema: Type.Boolean({ description: 'The database has the schema that this version needs' }),
  time: Time
}, { title: 'Readiness' })

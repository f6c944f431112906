import { Type } from '@sinclair/typebox'
import { OneOf } from './atoms.ts'

const Time = Type.Integer({ description: 'Unix time in seconds', examples: [1795532400] })

export const Health = Type.Object({
  status: OneOf(['healthy', 'unhealthy']),
  database: Type.Boolean({ description: 'PostgreSQL answers', examples: [true] }),
  redis: Type.Boolean({ description: 'Redis answers, or is not used', examples: [true] }),
  time: Time
}, { title: 'Health' })

export const Liveness = Type.Object({ status: OneOf(['alive']), time: Time }, { title: 'Liveness' })

export const Readiness = Type.Object({
  status: OneOf(['ready', 'not_ready', 'draining']),
  database: Type.Boolean({ description: 'PostgreSQL answers', examples: [true] }),
  redis: Type.Boolean({ description: 'Redis answers, or is not used', examples: [true] }),
  schema: Type.Boolean({ description: 'The database has the schema that this version needs', examples: [true] }),
  revocations: Type.Boolean({
    description: 'The ended sessions are known: without them no token can be accepted',
    examples: [true]
  }),
  workers: Type.Object({
    running: Type.Integer({ description: 'Processes that serve', examples: [2] }),
    wanted: Type.Integer({ description: 'Processes that should', examples: [2] })
  }),
  time: Time
}, { title: 'Readiness' })

import { Type, type Static } from '@sinclair/typebox'
import { Count, OneOf } from './atoms.ts'

export const metrics = ['likes', 'comments', 'live_viewers'] as const

export const Metric = OneOf(metrics, { description: 'What is counted', examples: ['likes'] })
export type Metric = Static<typeof Metric>

/** An unknown number is null, never 0: see `counters`. */
const KnownCount = (description: string) =>
  Type.Unsafe<number | null>({ type: ['integer', 'null'], minimum: 0, description, examples: [7] })

export const CounterFields = {
  live_viewers: KnownCount('Viewers right now; null while unknown'),
  like_count: KnownCount('Likes; null while unknown'),
  comment_count: KnownCount('Comments; null while unknown')
}

export const Counters = Type.Object({
  ...CounterFields,
  view_count: Count('Views')
}, { title: 'Counters' })
export type Counters = Static<typeof Counters>

export const Engagement = Type.Object({
  message: Type.String({ examples: ['Engagement recorded'] }),
  data: Counters
}, { title: 'Engagement' })

import { Type, type Static } from '@sinclair/typebox'
import { Count, Id, OneOf } from './atoms.ts'

export const metrics = ['likes', 'comments', 'live_viewers'] as const

export const Metric = OneOf(metrics, { description: 'What is counted', examples: ['likes'] })
export type Metric = Static<typeof Metric>

/** An unknown number is null, never 0; see `counters`. */
const KnownCount = (description: string) =>
  Type.Unsafe<number | null>({ type: ['integer', 'null'], minimum: 0, description, examples: [7] })

export const Freshness = Type.Object({
  stale: Type.Boolean({
    description: 'true while Redis is unavailable: the counts are those of the last flush',
    examples: [false]
  }),
  as_of: Type.Unsafe<string | null>({
    type: ['string', 'null'],
    format: 'date-time',
    description: 'When the counts were right; null when that is not known',
    examples: ['2026-02-09T12:00:00.000Z']
  })
}, { title: 'Freshness' })

export const CounterFields = {
  live_viewers: KnownCount('Viewers right now; null while unknown'),
  like_count: Count('Likes'),
  comment_count: Count('Comments'),
  view_count: Count('Views'),
  counters: Freshness
}

export const Counters = Type.Object({
  live_viewers: CounterFields.live_viewers,
  like_count: CounterFields.like_count,
  comment_count: CounterFields.comment_count,
  view_count: CounterFields.view_count,
  liked: Type.Optional(Type.Unsafe<boolean | null>({
    type: ['boolean', 'null'],
    description: 'Whether the caller likes it; only with a token, null while unknown',
    examples: [true]
  })),
  counters: Freshness
}, { title: 'Counters' })
export type Counters = Static<typeof Counters>

/** The data of an event of the stream: new counters, or why the stream has ended. */
export const StreamEvent = Type.Union([
  Type.Object(CounterFields, { title: 'CountersEvent', description: 'Event `counters`' }),
  Type.Object({
    reason: Type.String({ description: '`deleted`', examples: ['deleted'] })
  }, { title: 'EndEvent', description: 'Event `end`: do not reconnect' })
], { title: 'StreamEvent' })

export const CountersOfVideo = Type.Object({ video_id: Id, ...Counters.properties }, { title: 'CountersOfVideo' })
export type CountersOfVideo = Static<typeof CountersOfVideo>

export const Engagement = Type.Object({
  message: Type.String({ examples: ['Engagement recorded'] }),
  data: Counters
}, { title: 'Engagement' })
export type Engagement = Static<typeof Engagement>

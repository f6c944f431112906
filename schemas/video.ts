import { Type, type Static } from '@sinclair/typebox'
import { Id, Line, OneOf, Text, Timestamp } from './atoms.ts'
import { CounterFields } from './engagement.ts'

export const Video = Type.Object({
  id: Id,
  user_id: Id,
  title: Type.String({ examples: ['Sunset over the harbour'] }),
  description: Type.String({ examples: ['A quiet hour.'] }),
  thumbnail_url: Type.String({ examples: ['https://cdn.halo.example/thumbnails/42.webp'] }),
  stream_url: Type.String({ examples: ['https://stream.halo.example/live/42/master.m3u8'] }),
  is_live: Type.Boolean({ examples: [true] }),
  is_adult_content: Type.Boolean({ examples: [false] }),
  ...CounterFields,
  created_at: Timestamp,
  updated_at: Timestamp
}, { title: 'Video' })
export type Video = Static<typeof Video>

const Address = (description: string, example: string) =>
  Type.String({
    format: 'http-url',
    description: `${description}; an http or https address, or ""`,
    examples: [example]
  })

const fields = {
  title: Line({
    minLength: 1,
    maxLength: 255,
    description: 'One line, kept exactly as sent',
    examples: ['Sunset over the harbour']
  }),
  description: Text({ maxLength: 10_000, description: 'Kept exactly as sent', examples: ['A quiet hour.'] }),
  thumbnail_url: Address('Picture', 'https://cdn.halo.example/thumbnails/42.webp'),
  stream_url: Address('Stream', 'https://stream.halo.example/live/42/master.m3u8'),
  is_live: Type.Boolean({ description: 'On air', examples: [true] }),
  is_adult_content: Type.Boolean({ examples: [false] })
}

export const NewVideo = Type.Object({
  title: fields.title,
  description: Type.Optional(fields.description),
  thumbnail_url: Type.Optional(fields.thumbnail_url),
  stream_url: Type.Optional(fields.stream_url),
  is_live: Type.Optional(fields.is_live),
  is_adult_content: Type.Optional(fields.is_adult_content)
}, { title: 'NewVideo', additionalProperties: false })
export type NewVideo = Static<typeof NewVideo>

export const VideoPatch = Type.Partial(Type.Object(fields), {
  title: 'VideoPatch',
  additionalProperties: false,
  minProperties: 1
})
export type VideoPatch = Static<typeof VideoPatch>

const Page = {
  limit: Type.Integer({
    minimum: 1,
    maximum: 100,
    default: 20,
    description: 'Most videos to answer with',
    examples: [20]
  }),
  offset: Type.Integer({
    minimum: 0,
    maximum: Number.MAX_SAFE_INTEGER,
    default: 0,
    description:
      'Videos to pass over first. PostgreSQL reads each of them, so that `cursor` is as fast at any depth; each 10,000 cost one token of the rate limit',
    examples: [0]
  }),
  cursor: Type.Optional(
    Type.String({
      minLength: 1,
      maxLength: 64,
      description: 'The `X-Next-Cursor` of the page before; only with the same filters'
    })
  ),
  adult: Type.Optional(
    OneOf(['include', 'exclude', 'only'], {
      description: 'Adult content; without adult mode there is none',
      examples: ['exclude']
    })
  )
}

export const VideoListQuery = Type.Object({
  ...Page,
  live: Type.Optional(
    Type.Boolean({
      description: '`true`: live ones only; `false`: recorded ones only; left out: both',
      examples: [true]
    })
  )
})
export type VideoListQuery = Static<typeof VideoListQuery>

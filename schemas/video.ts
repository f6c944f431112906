import { Type, type Static } from '@sinclair/typebox'
import { Id, Timestamp } from './atoms.ts'
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

export const Page = Type.Object({
  limit: Type.Integer({ minimum: 1, maximum: 100, default: 20, description: 'Most videos to answer with', examples: [20] }),
  offset: Type.Integer({ minimum: 0, maximum: Number.MAX_SAFE_INTEGER, default: 0, description: 'Videos to pass over first', examples: [0] })
})

export const VideoListQuery = Type.Object({
  ...Page.properties,
  live: Type.Optional(Type.Boolean({ description: '`true`: live ones only; `false`: recorded ones only; left out: both', examples: [true] }))
})

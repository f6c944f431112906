import buildSerializer from 'fast-json-stringify'
import { Video } from '../schemas/video.ts'
import type { Ask } from './read-cache.ts'
import type { VideoService } from './videos.ts'

export type CachedVideos = ReturnType<typeof createCachedVideos>

/** Single videos as the cache of reads has them: under which key, and how they are loaded. */
export function createCachedVideos (videos: VideoService) {
  const serialize = buildSerializer(Video)
  const prefix = (id: number): string => `video:${id}:`
  return {
    /** What the keys of a video begin with. */
    prefix,

    /** Reads are the same for all who see adult content, and for all who do not. */
    one: (id: number, seesAdultContent: boolean): { key: string, load: Ask } => ({
      key: `${prefix(id)}${seesAdultContent}`,
      load: async isFresh => ({ body: serialize(await videos.get(id, { seesAdultContent, isFresh })) })
    })
  }
}

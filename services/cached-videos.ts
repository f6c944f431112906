import buildSerializer from 'fast-json-stringify'
import { Video } from '../schemas/video.ts'
import type { Ask } from './read-cache.ts'
import type { VideoService } from './videos.ts'
import type { AdultView } from './viewers.ts'

export type CachedVideos = ReturnType<typeof createCachedVideos>

/** Single videos as the cache of reads has them: under which key, and how they are loaded. */
export function createCachedVideos (videos: VideoService) {
  const serialize = buildSerializer(Video)
  const prefix = (id: number): string => `video:${id}:`
  return {
    /** What the keys of a video begin with. */
    prefix,

    one: (id: number, view: AdultView): { key: string, load: Ask } => ({
      key: `${prefix(id)}${viewKey(view)}`,
      load: async isFresh => ({ body: serialize(await videos.get(id, { view, isFresh })) })
    })
  }
}

/** Reads are the same for all who see all adult content, for all who see none, and for each who sees only their own. */
export const viewKey = ({ seesAll, ownerId }: AdultView): string => seesAll ? 'all' : ownerId === undefined ? 'general' : `own-${ownerId}`

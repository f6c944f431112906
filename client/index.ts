export { createClient, type ClientOptions, type CreateOptions, type HaloClient, type VideoFilter, type VideoPage } from './client.ts'
export { HaloError, type ClientErrorCode, type ErrorCode } from './errors.ts'
export type { WatchOptions } from './heartbeats.ts'
export type { LiveCounters, SubscribeOptions } from './live-counters.ts'
export type { TokenStorage } from './sessions.ts'
import type { components } from './schema.ts'

type Schemas = components['schemas']
export type Account = Schemas['Account']
export type Counters = Schemas['Counters']
export type CountersOfVideo = Schemas['CountersOfVideo']
export type Profile = Schemas['Profile']
export type SessionInfo = Schemas['SessionInfo']
export type Video = Schemas['Video']

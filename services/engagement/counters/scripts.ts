import { createHash } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import type { Cluster, Redis } from 'ioredis'

/** A script and the hash by which EVALSHA names it. */
export interface Script {
  text: string
  sha: string
}

/**
 * Counting scripts. Each begins with the number of its generation and so has a different hash in each generation:
 * only the server on which the generation began knows it. A server that was restarted, promoted, or restored from an
 * older snapshot answers NOSCRIPT, and nothing is counted on top of older data (the fence).
 */
export const countingScripts = ['likes', 'presence', 'comments', 'warm'] as const
export type CountingScript = typeof countingScripts[number]

/** Scripts that need no fence: they count nothing. */
const otherScripts = ['read', 'collect', 'acknowledge', 'forget', 'close', 'open', 'raise', 'is-same-server'] as const
export type OtherScript = typeof otherScripts[number]

/** Reads a script without its comments: a comment must not change its hash, by which processes know a generation. */
const read = (name: string): string =>
  readFileSync(join(import.meta.dirname, 'scripts', `${name}.lua`), 'utf8').replace(/^[ \t]*--.*\n/gm, '')

const prelude = read('prelude')
const sources = Object.fromEntries(countingScripts.map(name => [name, `${prelude}\n${read(name)}`])) as Record<
  CountingScript,
  string
>

/** Returns the counting scripts of one generation. */
export function scriptsOf (generation: number): Record<CountingScript, Script> {
  return Object.fromEntries(
    countingScripts.map(name => [name, toScript(`-- generation ${generation}\n${sources[name]}`)])
  ) as Record<CountingScript, Script>
}

export const scripts = Object.fromEntries(
  otherScripts.map(name => [name, toScript(`${prelude}\n${read(name)}`)])
) as Record<OtherScript, Script>

/** Returns a function that runs a script; it sends the text when the server does not know the hash. */
export function createScriptCaller (redis: Redis | Cluster) {
  return async (name: OtherScript, keys: string[], args: (string | number)[]): Promise<unknown> => {
    const script = scripts[name]
    return await redis.evalsha(script.sha, keys.length, ...keys, ...args).catch((error: unknown) => {
      if (!isMissingScript(error)) throw error
      return redis.eval(script.text, keys.length, ...keys, ...args)
    })
  }
}

export type ScriptCaller = ReturnType<typeof createScriptCaller>

export const isMissingScript = (error: unknown): boolean =>
  error instanceof Error && error.message.startsWith('NOSCRIPT')

/** Whether a script was refused because its generation is closed, or its data is an older snapshot. */
export const isFenced = (error: unknown): boolean => error instanceof Error && error.message.includes('FENCED')

function toScript (text: string): Script {
  return { text, sha: createHash('sha1').update(text).digest('hex') }
}

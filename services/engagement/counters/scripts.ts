import { createHash } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'

/** A script and the hash by which EVALSHA names it. */
export interface Script {
  text: string
  sha: string
}

/**
 * Scripts that count. Each begins with the number of the generation that it counts for and so has another hash
 * in each: a server knows it only if it was the one that counted when that generation began. One that was
 * restarted, or promoted, or was the master once and is it again, answers NOSCRIPT, and nothing is counted on
 * top of a memory that may be from the past.
 */
export const countingScripts = ['likes', 'presence', 'comments', 'warm'] as const
export type CountingScript = typeof countingScripts[number]

/** Scripts that may run on any memory: they count nothing, or only what is as it was. */
const otherScripts = ['read', 'collect', 'acknowledge', 'forget', 'close', 'open', 'raise'] as const
export type OtherScript = typeof otherScripts[number]

const read = (name: string): string => readFileSync(join(import.meta.dirname, 'scripts', `${name}.lua`), 'utf8')

const prelude = read('prelude')
const sources = Object.fromEntries(countingScripts.map(name => [name, `${prelude}\n${read(name)}`])) as Record<CountingScript, string>

/** The scripts that count for one generation. */
export function scriptsOf (generation: number): Record<CountingScript, Script> {
  return Object.fromEntries(countingScripts.map(name =>
    [name, toScript(`-- generation ${generation}\n${sources[name]}`)])) as Record<CountingScript, Script>
}

export const scripts = Object.fromEntries(otherScripts.map(name =>
  [name, toScript(`${prelude}\n${read(name)}`)])) as Record<OtherScript, Script>

function toScript (text: string): Script {
  return { text, sha: createHash('sha1').update(text).digest('hex') }
}

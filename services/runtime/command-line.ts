import { parseArgs, type ParseArgsOptionsConfig } from 'node:util'

export interface CommandLine<Options extends ParseArgsOptionsConfig> {
  /** Printed for `--help`. */
  usage: string
  options?: Options
  /** Whether words that are no options are taken. */
  allowPositionals?: boolean
}

/**
 * Reads the arguments of a command, before it does anything. `--help` prints the usage and ends the process with 0; an
 * unknown option ends it with one line and 2.
 */
export function readCommandLine<const Options extends ParseArgsOptionsConfig = Record<never, never>> (
  { usage, options = {} as Options, allowPositionals = false }: CommandLine<Options>
) {
  if (process.argv.slice(2).includes('--help')) {
    process.stdout.write(`${usage.trim()}\n`)
    process.exit()
  }
  try {
    return parseArgs({ options, allowPositionals })
  } catch (error) {
    // Node's advice on words that begin with a dash follows the first sentence.
    return refuse((error as Error).message.split(/\. |\n/, 1)[0]!)
  }
}

/** Ends the process because of wrong arguments: one line, and 2. */
export function refuse (message: string): never {
  process.stderr.write(`${message.replace(/\.$/, '')}; see --help\n`)
  process.exit(2)
}

/** Reads a whole number of an option. Ends the process when it is none, or not within the bounds. */
export function readCount (name: string, text: string, { min, max }: { min: number, max: number }): number {
  const value = /^\d{1,10}$/.test(text) ? Number(text) : NaN
  if (!(value >= min && value <= max)) refuse(`--${name} is ${JSON.stringify(text)}: use a whole number from ${min} to ${max}`)
  return value
}

/** Reads an option that is one of some words. Ends the process when it is none of them. */
export function readWord<const Word extends string> (name: string, text: string, words: readonly Word[]): Word {
  if (!words.includes(text as Word)) refuse(`--${name} is ${JSON.stringify(text)}: use one of ${words.join(', ')}`)
  return text as Word
}

import type { LogDestination } from './log-destination.ts'

/**
 * Standard output for a person at a terminal: log lines with colours, written at once. pino-pretty is a development
 * package: without it the lines are JSON.
 *
 * @returns undefined when pino-pretty is not installed
 */
export async function createPrettyDestination (): Promise<LogDestination | undefined> {
  const pretty = await import('pino-pretty').catch(() => undefined)
  if (!pretty) return undefined
  const stream = pretty.default({ colorize: true, sync: true, ignore: 'pid,hostname', translateTime: 'SYS:HH:MM:ss.l' })
  return {
    write (line) { stream.write(line) },
    dropped: 0,
    flushWithin: async () => {}
  }
}

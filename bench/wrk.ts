import { execFile } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { createRequests, textOf, type Load } from './load.ts'
import { cpuMicros } from './measure.ts'
import { UnexpectedAnswers, type Sample } from './measure-scenario.ts'
import type { Server } from './world.ts'

/** Requests that are written down, and asked for in turn. */
const requestCount = 20_000

/**
 * A load in which each connection asks again when it was answered, by Debian's wrk, which needs a fraction of the CPU
 * time that autocannon needs: for servers that leave little of the machine. Undefined where it is not installed.
 *
 * @throws UnexpectedAnswers when one has another status than its kind expects, where that is a success or a failure
 */
export async function runWrk (
  server: Server,
  title: string,
  load: Omit<Load, 'host' | 'port' | 'rate' | 'amount'>
): Promise<Sample | undefined> {
  const folder = mkdtempSync(join(tmpdir(), 'halo-wrk-'))
  const script = join(folder, 'requests.lua')
  const next = createRequests({ ...load, ...server })
  const texts = Array.from({ length: requestCount }, () => JSON.stringify(textOf(next(), server.host)))
  writeFileSync(
    script,
    `local requests = {\n${
      texts.join(',\n')
    }\n}\nlocal n = 0\nrequest = function ()\n  n = n % #requests + 1\n  return requests[n]\nend\n`
  )
  const before = { own: cpuOfChildren(), server: cpuOf(server) }
  try {
    const { stdout } = await promisify(execFile)('wrk', [
      '-t',
      '1',
      '-c',
      String(load.connections),
      '-d',
      `${load.seconds}s`,
      '-s',
      script,
      `http://${server.host}:${server.port}`
    ])
    const number = (pattern: RegExp): number => Number(pattern.exec(stdout)?.[1] ?? 0)
    const answered = number(/(\d+) requests in/)
    const failed = number(/Non-2xx or 3xx responses: (\d+)/)
    const areFailures = load.kinds[0]!.expect.every(status => status >= 400)
    if (failed !== (areFailures ? answered : 0) || stdout.includes('Socket errors')) {
      throw new UnexpectedAnswers(`${title}: wrk met answers that were not expected:\n${stdout}`)
    }
    return {
      rate: number(/Requests\/sec:\s+([\d.]+)/),
      generatorCpu: (cpuOfChildren() - before.own) / 1e6 / load.seconds,
      cpuMicros: (cpuOf(server) - before.server) / answered
    }
  } catch (error) {
    if (
      (error as NodeJS.ErrnoException).code === 'ENOENT' &&
      (error as NodeJS.ErrnoException).syscall?.startsWith('spawn')
    ) return undefined
    throw error
  } finally {
    rmSync(folder, { recursive: true })
  }
}

const cpuOf = ({ pids }: Server): number => pids.reduce((sum, pid) => sum + cpuMicros(pid), 0)

/** CPU time of the processes that this one has begun and seen the end of, in microseconds. */
function cpuOfChildren (): number {
  const fields = readFileSync('/proc/self/stat', 'utf8').split(') ')[1]!.split(' ')
  return (Number(fields[13]) + Number(fields[14])) * 10_000
}

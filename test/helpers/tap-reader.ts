/** What came of one test file. */
export interface FileResult {
  file: string
  isOk: boolean
  seconds: number
  assertions: number
  /** Each assertion that failed, with tap's diagnosis (diff, place) below it. */
  failures: string[]
  /** Tests that did not run, and why (didNotRun in stores.ts). */
  notRun: string[]
}

/** Lines of one failure that are printed. */
const maxFailureLines = 60

/**
 * Reads the TAP output of a whole run line by line.
 *
 * @param onFile called when a file has ended
 */
export function createTapReader (onFile: (result: FileResult) => void) {
  const results: FileResult[] = []
  let totals = { passed: 0, failed: 0 }
  let current: FileResult | undefined
  let isInDiagnosis = false
  let failure: { indent: string, lines: string[] } | undefined

  function endFailure (): void {
    if (failure && current) current.failures.push(failure.lines.slice(0, maxFailureLines).join('\n'))
    failure = undefined
  }

  function line (text: string): void {
    const start = /^# Subtest: (.*)/.exec(text)
    if (start) {
      current = { file: start[1]!, isOk: true, seconds: 0, assertions: 0, failures: [], notRun: [] }
      return
    }
    const end = /^(not )?ok \d+ - (.*?) # time=([\d.]+)ms/.exec(text)
    if (end && current) {
      endFailure()
      current.isOk = end[1] === undefined
      // A file that was killed or timed out has no assertion that failed.
      if (!current.isOk && current.failures.length === 0) current.failures.push(text)
      current.seconds = Number(end[3]) / 1000
      results.push(current)
      onFile(current)
      current = undefined
      return
    }
    if (current) lineOfFile(current, text)
    // The closing line of tap, such as "# { total: 7, pass: 4, fail: 1 }".
    else if (text.startsWith('# { total:')) {
      const numberOf = (name: string): number => Number(new RegExp(`${name}: (\\d+)`).exec(text)?.[1] ?? 0)
      totals = { passed: numberOf('pass'), failed: numberOf('fail') }
    }
  }

  function lineOfFile (file: FileResult, text: string): void {
    if (failure) {
      if (text === `${failure.indent}  ---`) isInDiagnosis = true
      if (isInDiagnosis) {
        failure.lines.push(text)
        if (text === `${failure.indent}  ...`) {
          isInDiagnosis = false
          endFailure()
        }
        return
      }
      endFailure()
    }
    const point = /^( *)(not )?ok \d+/.exec(text)
    if (point) {
      // The line of a subtest has its duration; what failed in it stands above it.
      const isSubtest = text.includes(' # time=')
      if (!isSubtest) file.assertions++
      if (point[2] !== undefined && !(isSubtest && file.failures.length > 0)) {
        failure = { indent: point[1]!, lines: [text] }
      }
    }
    const notRun = /^ *# did not run: (.*)/.exec(text)
    if (notRun) file.notRun.push(notRun[1]!)
  }

  return {
    line,
    end: () => ({ results, totals })
  }
}

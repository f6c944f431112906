/** Settings with which the service cannot start. `problems` has one sentence for each wrong setting. */
export class ConfigurationError extends Error {
  override name = 'ConfigurationError'
  readonly problems: string[]

  constructor (problems: string[]) {
    super(`The configuration is not usable:\n${problems.map(problem => `  - ${problem}`).join('\n')}`)
    this.problems = problems
  }
}

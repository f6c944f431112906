import { execFileSync } from 'node:child_process'

/** What was measured, and when. */
export interface Checkout {
  date: string
  commit: string
  /** Whether it has changes that are in no commit. */
  isDirty: boolean
}

/** This checkout, as it is now. */
export function checkout (): Checkout {
  const git = (...args: string[]): string => {
    try {
      return execFileSync('git', args, {
        cwd: import.meta.dirname,
        encoding: 'utf8',
        stdio: ['ignore', 'pipe', 'ignore']
      }).trim()
    } catch {
      return ''
    }
  }
  return {
    date: new Date().toISOString().slice(0, 16).replace('T', ' '),
    commit: git('rev-parse', '--short', 'HEAD') || 'unknown',
    isDirty: git('status', '--porcelain', '--untracked-files=no') !== ''
  }
}

export function textOfCheckout ({ commit, isDirty, date }: Checkout): string {
  return `HALO API, commit ${commit}${isDirty ? ' with changes' : ''}, ${date}`
}

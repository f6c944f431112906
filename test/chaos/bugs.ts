import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { join } from 'node:path'
import { readCommandLine } from '../../services/runtime/command-line.ts'

readCommandLine({
  usage: `Usage: npm run test:chaos:bugs

Plants bugs in the counters, one at a time: npm run test:chaos must find each.`
})

/**
 * `npm run test:chaos:bugs`: the test of the chaos test. A bug is planted in all three processes, and the test must
 * turn red for the reason that the bug stands for. Exit 1 when it stays green.
 */
const bugs = [
  {
    bug: 'acknowledge-first',
    scenario: 'processes killed',
    says: /acknowledged comments are lost|likes are not what was acknowledged/
  },
  { bug: 'forget-receipts', scenario: 'Redis emptied', says: /comments count twice/ },
  { bug: 'add-instead-of-max', scenario: 'no fault', says: /comments count twice/ }
]

for (const { bug, scenario, says } of bugs) {
  const child = spawn(process.execPath, [
    join(import.meta.dirname, 'run.ts'),
    '--bug',
    bug,
    '--scenario',
    scenario,
    '--seconds',
    '3'
  ], { stdio: ['ignore', 'pipe', 'inherit'] })
  let output = ''
  child.stdout.on('data', data => {
    output += String(data)
  })
  const [code] = await once(child, 'close') as [number | null]
  const isRed = code === 1 && says.test(output)
  process.stdout.write(`${bug} under "${scenario}": ${isRed ? 'found' : `NOT FOUND (exit ${code})\n${output}`}\n`)
  if (!isRed) process.exitCode = 1
}

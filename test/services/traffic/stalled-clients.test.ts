import t from 'tap'
import { createStalledClients } from '../../../services/traffic/stalled-clients.ts'

t.test('who has not taken in time what was there is late, however little at a time it takes', async t => {
  let time = 0
  const untaken = createStalledClients({ timeoutMs: 1000, now: () => time })
  const slow = { bytesWritten: 0, writableLength: 0 }
  const still = { bytesWritten: 10, writableLength: 0 }
  for (const one of [slow, still]) untaken.add(one)
  t.strictSame(untaken.find(), [])
  Object.assign(slow, { bytesWritten: 100_000, writableLength: 100_000 })
  for (; time < 1000; time += 250) {
    t.strictSame(untaken.find(), [])
    slow.writableLength -= 20_000
  }
  t.strictSame(untaken.find(), [slow])
  untaken.delete(slow)
  t.strictSame(untaken.find(), [])
})

t.test('who takes what was there is never late, also when there is always more', async t => {
  let time = 0
  const untaken = createStalledClients({ timeoutMs: 1000, now: () => time })
  const quick = { bytesWritten: 100_000, writableLength: 100_000 }
  untaken.add(quick)
  for (; time < 60_000; time += 250) {
    t.strictSame(untaken.find(), [])
    quick.bytesWritten += 50_000
  }
})

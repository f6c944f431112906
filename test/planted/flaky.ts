import { appendFileSync, readFileSync } from 'node:fs'
import t from 'tap'

/** Fails every second time that it is run: test/run.test.ts looks whether the run tells it. */
const file = process.env['HALO_PLANTED_FILE']!
appendFileSync(file, 'x')
t.test('a planted test', async t => {
  t.equal(readFileSync(file, 'utf8').length % 2, 0, 'an even run')
})

import t from 'tap'
import { createAdmission } from '../../services/admission.ts'

/** An admission whose event loop is as late as one says. */
function createWorld (options: { maxInFlight?: number } = {}) {
  let time = 0
  let drawn = 0.5
  const admission = createAdmission({ ...options, now: () => time, random: () => drawn })
  admission.start()
  admission.stop()
  return {
    admission,
    draw (value: number): void { drawn = value },
    /** Looks so many times, each with requests before it. */
    pass (looks: number, lateMs: number, requests: number): number {
      let refused = 0
      for (let look = 0; look < looks; look++) {
        for (let n = 0; n < requests; n++) if (admission.refuses()) refused++
        time += 10 + lateMs
        admission.look()
      }
      return refused
    }
  }
}

t.test('nobody is refused while the loop is in time, or late only now and then', async t => {
  const { admission, pass } = createWorld()
  t.equal(pass(500, 0, 1000), 0)
  t.equal(pass(100, 29, 1000), 0)
  for (let n = 0; n < 50; n++) t.equal(pass(2, 200, 1000) + pass(1, 2, 1000), 0)
  t.strictSame(admission.stats, { inFlight: 0, refused: 0, delayMs: 2, part: 0 })
})

t.test('nobody is refused where few ask, however late the loop is: the machine is busy with something else', async t => {
  const { pass } = createWorld()
  t.equal(pass(500, 300, 20), 0)
})

t.test('a part is refused that grows while the loop is late, shrinks when it is not, and is nothing half a second later', async t => {
  const { admission, pass, draw } = createWorld()
  pass(3, 40, 1000)
  t.equal(admission.stats.part, 0, 'late for less than a fifth of a second may be chance')
  pass(1, 40, 1000)
  const early = admission.stats.part
  t.ok(early > 0 && early < 0.4, String(early))
  pass(100, 40, 1000)
  t.equal(admission.stats.part, 0.98, 'never all')
  draw(0.981)
  t.notOk(admission.refuses())
  draw(0.979)
  t.ok(admission.refuses())
  pass(50, 0, 1000)
  t.equal(admission.stats.part, 0)
})

t.test('it comes to rest where the delay is what it may be', async t => {
  const { admission, pass, draw } = createWorld()
  // A loop that is in time with a quarter of the requests, and later the more there are above that.
  let sum = 0
  draw(1)
  pass(20, 40, 100)
  for (let look = 0; look < 2000; look++) {
    const admitted = 1 - admission.stats.part
    pass(1, admitted / 0.25 * 8, 100)
    if (look >= 1000) sum += admitted / 1000
  }
  t.ok(sum > 0.2 && sum < 0.3, `${sum} admitted`)
})

t.test('so many may be under way, and no more', async t => {
  const { admission, draw } = createWorld({ maxInFlight: 10 })
  draw(1)
  for (let n = 0; n < 10; n++) {
    t.notOk(admission.refuses())
    admission.enter()
  }
  t.ok(admission.refuses())
  admission.leave()
  t.notOk(admission.refuses())
  t.match(admission.stats, { inFlight: 9, refused: 1 })
})

import t from 'tap'
import { createAdmission } from '../../services/admission.ts'

/** An admission whose event loop is as late as one says. */
function createWorld (options: { maxInFlight?: number, graceMs?: number, maxDelayMs?: number, endTurn?: () => void } = {}) {
  let time = 0
  let drawn = 0.5
  const admission = createAdmission({ maxDelayMs: 30, graceMs: 0, ...options, now: () => time, random: () => drawn })
  admission.start()
  admission.stop()
  return {
    admission,
    draw (value: number): void { drawn = value },
    /** Lets so many periods go by, each with requests before its timer. @returns how many were refused */
    pass (periods: number, lateMs: number, requests: number): number {
      let refused = 0
      for (let period = 0; period < periods; period++) {
        for (let n = 0; n < requests; n++) if (admission.refusesAny(time) || admission.refusesWork()) refused++
        time += 10 + lateMs
        admission.onTimer()
      }
      return refused
    },
    /** A turn of the event loop that does not come to its timers: requests, each so many milliseconds after the one before it. */
    sweep (requests: number, stepMs: number): number {
      let refused = 0
      for (let n = 0; n < requests; n++) {
        time += stepMs
        if (admission.refusesAny(time) || admission.refusesWork()) refused++
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
  t.strictSame(admission.stats, { inFlight: 0, delayMs: 2, bound: 4096, refusedPart: 0 })
})

t.test('a thousand that ask again as soon as they are answered are no overload, three thousand are', async t => {
  const { admission, pass } = createWorld({ maxDelayMs: 300 })
  pass(100, 250, 1000)
  t.equal(admission.stats.bound, 4096)
  pass(5, 250, 3000)
  t.ok(admission.stats.bound < 4096)
})

t.test('nobody is refused where few ask, however late the loop is: the machine is busy with something else', async t => {
  const { pass } = createWorld()
  t.equal(pass(500, 300, 20), 0)
})

t.test('nobody is refused by a process that has just begun, and is late because it is cold', async t => {
  const { admission, pass } = createWorld({ graceMs: 5000 })
  pass(16, 290, 1000)
  t.equal(admission.stats.bound, 4096)
  pass(5, 290, 1000)
  t.ok(admission.stats.bound < 4096, 'later it is')
})

t.test('requests under way are bounded while the loop is late, fewer and fewer, and a second later they are not', async t => {
  const { admission, pass } = createWorld()
  for (let n = 0; n < 1000; n++) admission.enter()
  pass(2, 40, 1000)
  t.equal(admission.stats.bound, 4096, 'late for less than a tenth of a second may be chance')
  t.equal(pass(1, 40, 1000), 0)
  t.equal(admission.stats.bound, 500, 'half of what there are')
  t.ok(admission.refusesWork())
  for (let n = 0; n < 600; n++) admission.leave()
  t.notOk(admission.refusesWork())
  pass(1, 40, 1000)
  t.ok(admission.stats.bound < 400)
  t.ok(admission.refusesWork())
  for (let n = 0; n < 400; n++) admission.leave()
  pass(40, 40, 1000)
  t.equal(admission.stats.bound, 8, 'never none')
  pass(250, 0, 1000)
  t.equal(admission.stats.bound, 4096)
  t.equal(admission.stats.refusedPart, 0)
})

t.test('answers from memory are refused only where bounding all others is not enough, and no more than half', async t => {
  const { admission, pass, draw } = createWorld()
  draw(0)
  for (let n = 0; n < 1000; n++) admission.enter()
  pass(5, 40, 1000)
  t.ok(admission.stats.bound < 4096)
  t.notOk(admission.refusesAny(0))
  pass(200, 15, 1000)
  t.equal(admission.stats.bound, 8)
  t.equal(admission.stats.refusedPart, 0, 'a loop that is a little late is good enough for them')
  pass(200, 40, 1000)
  t.equal(admission.stats.refusedPart, 0.5)
  draw(0.501)
  t.notOk(admission.refusesAny(0))
  draw(0.499)
  t.ok(admission.refusesAny(0))
  pass(100, 0, 1000)
  t.equal(admission.stats.refusedPart, 0)
})

t.test('a loop that does not come to its timers for seconds is noticed meanwhile', async t => {
  const { admission, pass, sweep } = createWorld()
  pass(10, 0, 100)
  for (let n = 0; n < 1000; n++) admission.enter()
  t.equal(sweep(1900, 0.05), 0, 'not at once')
  t.ok(sweep(6000, 0.05) > 3000)
})

t.test('a turn that has become long is ended, once', async t => {
  let ended = 0
  const { pass, sweep } = createWorld({ endTurn: () => { ended++ } })
  pass(10, 0, 100)
  sweep(290, 0.1)
  t.equal(ended, 0, 'twenty milliseconds late it is not yet')
  sweep(1000, 0.1)
  t.equal(ended, 1)
  pass(1, 0, 1)
  sweep(1000, 0.1)
  t.equal(ended, 2, 'the next one')
})

t.test('it comes to rest where the delay is what it may be', async t => {
  const { admission, pass } = createWorld()
  pass(3, 40, 1000)
  // A loop that is in time with a quarter of the requests under way, and later the more there are above that.
  let sum = 0
  for (let period = 0; period < 2000; period++) {
    pass(1, admission.stats.bound / 200 * 8, 100)
    if (period >= 1000) sum += admission.stats.bound / 1000
  }
  t.ok(sum > 150 && sum < 250, `${sum} under way`)
})

t.test('so many may be under way, and no more', async t => {
  const { admission } = createWorld({ maxInFlight: 10 })
  for (let n = 0; n < 10; n++) {
    t.notOk(admission.refusesWork())
    admission.enter()
  }
  t.ok(admission.refusesWork())
  admission.leave()
  t.notOk(admission.refusesWork())
  t.match(admission.stats, { inFlight: 9 })
})

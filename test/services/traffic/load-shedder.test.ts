import t from 'tap'
import { createLoadShedder } from '../../../services/traffic/load-shedder.ts'

function scene () {
  let time = 1000
  let count = 0
  const shedder = createLoadShedder({ inFlight: () => count, now: () => time })
  shedder.tick()
  return {
    shedder,
    /** Whether a request is refused, with so many in flight, so many milliseconds after the last tick. */
    refuses (inFlight: number, ms: number): boolean {
      count = inFlight
      return shedder.isOverloaded(time + ms)
    },
    tickAfter (ms: number): void {
      time += ms
      shedder.tick()
    }
  }
}

t.test('few requests are never refused, however late the event loop is', async t => {
  const { refuses, shedder } = scene()
  t.equal(refuses(500, 10_000), false)
  t.equal(shedder.isLate(1000 + 251), true, 'but answered after the poll phase')
})

t.test('a thousand are refused once the event loop is late by more than their own work', async t => {
  const { refuses } = scene()
  t.equal(refuses(1000, 250), false)
  t.equal(refuses(1000, 251), true)
})

t.test('a crowd is refused sooner, and more than 4,096 at once', async t => {
  const { refuses } = scene()
  t.equal(refuses(1501, 30), false)
  t.equal(refuses(1501, 31), true)
  t.equal(refuses(4096, 0), false)
  t.equal(refuses(4097, 0), true)
})

t.test('a tick ends it, and tells how late it was', async t => {
  const { refuses, tickAfter, shedder } = scene()
  t.equal(refuses(1000, 400), true)
  tickAfter(420)
  t.equal(refuses(1000, 0), false)
  t.equal(shedder.delayMs, 400)
})

t.test('before the start nothing is late', async t => {
  const shedder = createLoadShedder({ inFlight: () => 4000, now: () => 1e6 })
  t.equal(shedder.isOverloaded(1e6), false)
})

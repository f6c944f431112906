import t from 'tap'
import { createIdleCollector } from '../../services/idle-collector.ts'

const mb = 2 ** 20

/** A heap of which a collection leaves what is in use. */
function fake () {
  const state = { utilization: 0, used: 30 * mb, held: 70 * mb, collections: 0 }
  const collector = createIdleCollector({
    utilization: () => state.utilization,
    heap: () => state,
    collect () { state.collections++; state.held = state.used }
  })
  return { state, look (times = 10): void { for (let n = 0; n < times; n++) collector.look() } }
}

t.test('a process that has nothing to do gives back what the boot needed, once', async t => {
  const { state, look } = fake()
  look(9)
  t.equal(state.collections, 0, 'not when it has just begun')
  look(1)
  look(20)
  t.equal(state.collections, 1)
  t.equal(state.held, 30 * mb)
})

t.test('and what a rush needed, when it is over', async t => {
  const { state, look } = fake()
  look()
  Object.assign(state, { held: 90 * mb, utilization: 0.3 })
  look()
  t.equal(state.collections, 1, 'not while it lasts: somebody would wait')
  state.utilization = 0.01
  look(9)
  t.equal(state.collections, 1, 'nor when it is just over')
  look(1)
  t.equal(state.collections, 2)
})

t.test('not for a little, and not when it would take long', async t => {
  const { state, look } = fake()
  look()
  state.held += 5 * mb
  look()
  Object.assign(state, { used: 300 * mb, held: 700 * mb })
  look()
  t.equal(state.collections, 1)
})

t.test('what it collects is real memory', async t => {
  const garbage = Array.from({ length: 200_000 }, (_, n) => ({ n, text: `${n}` }))
  const held = process.memoryUsage().heapTotal
  t.equal(garbage.splice(0).length, 200_000)
  const { look } = createIdleCollector({ utilization: () => 0 })
  for (let n = 0; n < 10; n++) look()
  t.ok(process.memoryUsage().heapTotal < held - 8 * mb, `${held} bytes became ${process.memoryUsage().heapTotal}`)
})

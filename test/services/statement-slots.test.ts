import t from 'tap'
import { createStatementSlots } from '../../services/statement-slots.ts'

t.test('so many run at once, the others wait in their order, and too many are refused at once', async t => {
  const slots = createStatementSlots({ max: 2, maxWaiting: 2 })
  await slots.enter()
  await slots.enter()
  const order: number[] = []
  const [third, fourth] = [3, 4].map(async n => { await slots.enter(); order.push(n) })
  await t.rejects(slots.enter(), { code: 'server_busy' })
  t.strictSame(slots.stats, { running: 2, waiting: 2, limit: 2 })
  slots.leave(1)
  await third
  slots.leave(1)
  await fourth
  t.strictSame(order, [3, 4])
  slots.leave(1)
  slots.leave(1)
  t.strictSame(slots.stats, { running: 0, waiting: 0, limit: 2 })
})

t.test('who waits for long gives up, and behind somebody who has waited for too long nobody is let in', async t => {
  let time = 0
  const slots = createStatementSlots({ max: 1, maxWaiting: 10, maxWaitMs: 100, patienceMs: 50, now: () => time })
  await slots.enter()
  const second = slots.enter()
  time = 101
  const third = slots.enter()
  t.equal(slots.stats.waiting, 1, 'it is not let in, and does not wait')
  await t.rejects(third, { code: 'server_busy' })
  await t.rejects(second, { code: 'server_busy' })
  t.strictSame(slots.stats, { running: 1, waiting: 0, limit: 1 })
  slots.leave(1)
  await slots.enter()
})

t.test('who would have to wait for too long, by what statements took of late, is refused at once', async t => {
  let time = 0
  const slots = createStatementSlots({ max: 2, maxWaiting: 100, maxWaitMs: 100, now: () => time })
  for (let n = 0; n < 20; n++) {
    await slots.enter()
    time += 10
    slots.leave(10)
  }
  await slots.enter()
  await slots.enter()
  // Two at once that take 10 ms each: twenty wait for 100 ms.
  const waiting = Array.from({ length: 21 }, async () => { await slots.enter() })
  await t.rejects(slots.enter(), { code: 'server_busy' })
  t.equal(slots.stats.waiting, 21)
  for (let n = 0; n < 23; n++) slots.leave(undefined)
  await Promise.all(waiting)
})

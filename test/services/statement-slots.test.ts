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

t.test('who would wait behind somebody who has waited too long is refused, and who has waited for long gives up', async t => {
  let time = 0
  const slots = createStatementSlots({ max: 1, maxWaiting: 10, maxWaitMs: 200, patienceMs: 50, now: () => time })
  await slots.enter()
  const second = slots.enter()
  time = 201
  await t.rejects(slots.enter(), { code: 'server_busy' })
  await t.rejects(second, { code: 'server_busy' })
  t.strictSame(slots.stats, { running: 1, waiting: 0, limit: 1 })
  slots.leave(1)
  await slots.enter()
})

/** A database that takes the longer the more statements run at once; how many there are after so many rounds. */
async function settle (perStatementMs: number, rounds: number, wayMs = 0): Promise<number> {
  let time = 0
  const slots = createStatementSlots({ max: 100, maxWaiting: 1000, now: () => time })
  for (let round = 0; round < rounds; round++) {
    const { limit } = slots.stats
    for (let n = 0; n < limit; n++) await slots.enter()
    const took = wayMs + Math.max(2, limit * perStatementMs)
    time += took
    for (let n = 0; n < limit; n++) slots.leave(n === 0 ? wayMs + 2 : took)
  }
  return slots.stats.limit
}

t.test('statements that make each other slow become fewer, until they do not', async t => {
  t.equal(await settle(1, 500), 100, 'a hundred at once that take 100 ms are not slow')
  const limit = await settle(10, 500)
  t.ok(limit >= 9 && limit <= 16, `with 10 ms each it settles at about fifteen: ${limit}`)
})

t.test('a way to the database that is slow is no reason for fewer', async t => {
  t.equal(await settle(0, 200, 300), 100)
})

t.test('the limit rises again', async t => {
  let time = 0
  const slots = createStatementSlots({ max: 10, maxWaiting: 10, now: () => time })
  await slots.enter()
  slots.leave(1)
  for (let n = 0; n < 20; n++) {
    time += 101
    await slots.enter()
    slots.leave(200)
    await slots.enter()
    slots.leave(1)
  }
  t.equal(slots.stats.limit, 2)
  for (let round = 0; round < 25; round++) {
    const { limit } = slots.stats
    for (let n = 0; n < limit; n++) await slots.enter()
    for (let n = 0; n < limit; n++) slots.leave(1)
  }
  t.equal(slots.stats.limit, 10)
})

import t from 'tap'
import { createStatementLimit } from '../../services/statement-limit.ts'

interface Statement { startedAt: number, leftMs: number, wayMs: number }

/**
 * A database in a time of its own, with so many processors, which the statements that run share; clients send another one
 * whenever there is room for it.
 */
function createWorld ({ max = 100, processors, statementMs, wayMs = 0 }: { max?: number, processors: number, statementMs: () => number, wayMs?: number }) {
  let time = 0
  const limit = createStatementLimit({ max, now: () => time })
  const running = new Set<Statement>()
  let done = 0
  const limits: number[] = []
  return {
    limit,
    setProcessors (count: number): void { processors = count },
    /** Lets milliseconds go by, with so many clients. @returns statements a second, and the limits that there were */
    pass (ms: number, clients: number): { rate: number, least: number, mean: number, leastSettled: number } {
      done = 0
      limits.length = 0
      let leastSettled = Infinity
      for (const end = time + ms; time < end; time++) {
        while (running.size < Math.min(limit.current, clients)) running.add({ startedAt: time, leftMs: statementMs(), wayMs })
        const working = [...running].filter(one => one.wayMs <= 0)
        for (const one of working) one.leftMs -= Math.min(1, processors / working.length)
        for (const one of running) one.wayMs--
        for (const one of [...running].filter(one => one.leftMs <= 0)) {
          limit.note(time + 1 - one.startedAt, running.size)
          running.delete(one)
          done++
        }
        limits.push(limit.current)
        leastSettled = Math.min(leastSettled, limit.settled)
      }
      return { rate: done / ms * 1000, least: limits.reduce((least, one) => Math.min(least, one)), mean: limits.reduce((sum, one) => sum + one, 0) / limits.length, leastSettled }
    }
  }
}

t.test('statements that make each other slow become fewer, within a second, and as many of them are done', async t => {
  const { pass } = createWorld({ processors: 2, statementMs: () => 6 })
  pass(1000, 100)
  const { rate, mean } = pass(30_000, 100)
  t.ok(mean > 2 && mean < 8, `${mean} at once, of about five that take 15 ms`)
  t.ok(rate > 300, `${rate} a second, of 333`)
})

t.test('a database with many processors gets many', async t => {
  const { pass } = createWorld({ processors: 32, statementMs: () => 20 })
  pass(3000, 100)
  const { rate, mean } = pass(30_000, 100)
  t.ok(mean > 32, `${mean} at once`)
  t.ok(rate > 1400, `${rate} a second, of 1,600`)
})

t.test('a way to the database that is long is no reason for fewer', async t => {
  const { pass } = createWorld({ processors: 8, statementMs: () => 1, wayMs: 60 })
  pass(1000, 2)
  pass(1000, 50)
  t.ok(pass(60_000, 50).least >= 50)
})

t.test('nor are statements that are dear, of which some are cheap', async t => {
  let n = 0
  const { pass } = createWorld({ processors: 64, statementMs: () => n++ % 7 === 0 ? 1 : 80 })
  pass(1000, 2)
  const { rate } = pass(60_000, 50)
  t.ok(rate > 670, `${rate} a second, of 729`)
})

t.test('statements that become dear are waited for after a moment in which they were taken for slow', async t => {
  let ms = 1
  const { pass } = createWorld({ processors: 64, statementMs: () => ms })
  pass(5000, 50)
  ms = 80
  pass(5000, 50)
  const { rate } = pass(30_000, 50)
  t.ok(rate > 550, `${rate} a second, of 625`)
})

t.test('what they take alone is not forgotten in an overload that goes on for minutes', async t => {
  const { pass } = createWorld({ processors: 2, statementMs: () => 12 })
  pass(180_000, 100)
  const { mean } = pass(20_000, 100)
  t.ok(mean > 4 && mean < 10, `${mean} at once, of about six that take half as long again as four take`)
})

t.test('while it is measured what they take alone, it is known what the limit will be', async t => {
  const { pass } = createWorld({ processors: 16, statementMs: () => 20 })
  pass(5000, 64)
  const { least, leastSettled } = pass(30_000, 64)
  t.equal(least, 4, 'measured it was')
  t.ok(leastSettled > 16, `${leastSettled}`)
})

t.test('it begins with a few, each of which may open a connection, and rises fast', async t => {
  const { limit, pass } = createWorld({ processors: 64, statementMs: () => 4 })
  t.equal(limit.current, 10)
  pass(500, 100)
  t.equal(limit.current, 100)
})

t.test('several processes that each take the others’ load for what a statement takes alone stay below its time limit', async t => {
  let time = 0
  const running = Array.from({ length: 4 }, () => new Set<Statement>())
  const limits = running.map(() => createStatementLimit({ max: 100, now: () => time }))
  let [done, slow, n] = [0, 0, 0]
  for (; time < 40_000; time++) {
    running.forEach((own, index) => {
      while (own.size < limits[index]!.current) own.add({ startedAt: time, leftMs: 3 + n++ * 7 % 6, wayMs: 0 })
    })
    const all = running.reduce((sum, own) => sum + own.size, 0)
    running.forEach((own, index) => {
      for (const one of own) {
        one.leftMs -= Math.min(1, 2 / all)
        if (one.leftMs > 0) continue
        const took = time + 1 - one.startedAt
        limits[index]!.note(took, own.size)
        own.delete(one)
        if (time < 5000) continue
        done++
        if (took > 450) slow++
      }
    })
  }
  t.ok(done > 10_000, `${done} statements`)
  t.ok(slow / done < 0.01, `${slow} of them too slow`)
})

t.test('the limit rises again when the database has room', async t => {
  const { limit, pass, setProcessors } = createWorld({ max: 50, processors: 1, statementMs: () => 3 })
  pass(3000, 50)
  t.ok(limit.current < 10, `${limit.current}`)
  setProcessors(64)
  pass(3000, 50)
  t.equal(limit.current, 50)
})

t.test('it is never above the most that there may be', async t => {
  for (const max of [1, 2, 4]) {
    let time = 0
    const limit = createStatementLimit({ max, now: () => time })
    for (let n = 0; n < 5000; n++) {
      time += 20
      // As if more ran than may: by a limit that fell meanwhile.
      limit.note(n % 500 < 250 ? 1 : 300, 5)
      if (limit.current > max) return t.fail(`${limit.current} of ${max}`)
    }
    t.equal(limit.current, max)
  }
})

t.test('one statement that is slow among many changes nothing', async t => {
  let time = 0
  const limit = createStatementLimit({ max: 10, now: () => time })
  for (let n = 0; n < 2000; n++) {
    time++
    limit.note(n % 100 === 0 ? 400 : 1, 8)
  }
  t.equal(limit.current, 10)
})

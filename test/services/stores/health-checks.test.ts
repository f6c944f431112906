import t from 'tap'
import { createHealthChecks } from '../../../services/stores/health-checks.ts'

/** A database that answers when it is told to. */
function scene () {
  let time = 0
  const asked: PromiseWithResolvers<void>[] = []
  const changes: [string, boolean][] = []
  const service = createHealthChecks({
    now: () => time,
    dependencies: [{
      name: 'database',
      check () {
        const answer = Promise.withResolvers<void>()
        asked.push(answer)
        return answer.promise
      }
    }],
    onChange: (name, isUp) => {
      changes.push([name, isUp])
    }
  })
  return {
    service,
    asked,
    changes,
    pass (ms: number) {
      time += ms
    }
  }
}

const turn = () => new Promise(resolve => setImmediate(resolve))

t.test('who asks all the time does not wait for a part that is slow, and hears when it is unavailable', async t => {
  const { service, asked, changes, pass } = scene()
  const first = service.status()
  asked[0]!.resolve()
  t.match(await first, { database: true, redis: true })
  pass(499)
  await service.status()
  t.equal(asked.length, 1, 'an answer stands for a moment')
  pass(1)
  t.match(await service.status(), { database: true }, 'the next one is asked for, and not waited for')
  t.match(await service.status(), { database: true })
  t.equal(asked.length, 2, 'once')
  asked[1]!.reject(new Error('refused'))
  await turn()
  t.match(await service.status(), { database: false })
  t.strictSame(changes, [['database', false]])
  pass(500)
  const back = service.status()
  asked[2]!.resolve()
  t.match(await back, { database: true }, 'that it is back is heard at once')
})

t.test('who asks seldom gets no answer from the past', async t => {
  const { service, asked, pass } = scene()
  const first = service.status()
  asked[0]!.resolve()
  await first
  pass(1500)
  const second = service.status()
  asked[1]!.reject(new Error('refused'))
  t.match(await second, { database: false })
})

import bcrypt from 'bcryptjs'
import t from 'tap'
import { createPasswordService } from '../../services/passwords.ts'

t.test('a password, hashed, is verified; another is not, and an unknown user never is', async t => {
  const passwords = createPasswordService({ cost: 4 })
  t.teardown(() => passwords.close())
  const hash = await passwords.hash('pässword 🔑')
  t.match(hash, /^\$2b\$04\$/)
  t.equal(await passwords.verify('pässword 🔑', hash), true)
  t.equal(await passwords.verify('passwort', hash), false)
  t.equal(await passwords.verify('pässword 🔑', undefined), false)
  t.equal(await passwords.verify('x', 'not a hash'), false, 'a hash that is none verifies nothing')
})

t.test('an unknown user costs the same work as a known one', async t => {
  const passwords = createPasswordService({ cost: 8, threads: 1 })
  t.teardown(() => passwords.close())
  const stored = bcrypt.hashSync('right', 8)
  const timeOf = async (hash: string | undefined) => {
    const startedAt = performance.now()
    for (let n = 0; n < 10; n++) await passwords.verify('wrong', hash)
    return performance.now() - startedAt
  }
  await timeOf(stored)
  const [known, unknown] = [await timeOf(stored), await timeOf(undefined)]
  // Without the decoy the ratio is far below a tenth; a noisy machine does not bring it there.
  t.ok(unknown / known > 0.3, `unknown ${unknown.toFixed(0)} ms, known ${known.toFixed(0)} ms`)
})

t.test('passwords, more than can wait, are refused at once and the event loop stays free', async t => {
  const passwords = createPasswordService({ cost: 10, threads: 1, maxQueue: 4 })
  t.teardown(() => passwords.close())
  await passwords.hash('the thread is up')
  const outcomes = await Promise.allSettled(Array.from({ length: 20 }, () => passwords.hash('x')))
  const refused = outcomes.filter(outcome => outcome.status === 'rejected')
  t.equal(refused.length, 15, 'one runs and four wait')
  for (const { reason } of refused) t.match(reason, { code: 'server_busy', retryAfter: 1 })
})

import bcrypt from 'bcryptjs'
import t from 'tap'
import { createPasswordService } from '../../../services/accounts/passwords.ts'

const pepper = 'a pepper of the tests'

t.test('a password, hashed, is verified; another is not, and an unknown user never is', async t => {
  const passwords = createPasswordService({ cost: 4, pepper })
  t.teardown(() => passwords.close())
  const hash = await passwords.hash('pässword 🔑')
  t.match(hash, /^halo1\$[\w-]{8}\$\$2b\$04\$/)
  t.equal(await passwords.verify('pässword 🔑', hash), true)
  t.equal(await passwords.verify('passwort', hash), false)
  t.equal(await passwords.verify('pässword 🔑', undefined), false)
  for (
    const none of [
      'not a hash',
      '',
      'halo1$',
      'halo1$x$y',
      '$2b$04$short',
      `$2b$99$${'a'.repeat(53)}`,
      `$2b$04$${'!'.repeat(53)}`,
      `halo1$$2b$04$${'a'.repeat(53)}`
    ]
  ) t.equal(await passwords.verify('x', none), false, 'a hash that is none verifies nothing')
})

t.test('an unknown user costs the same work as a known one, of whatever hash', async t => {
  const passwords = createPasswordService({ cost: 8, threads: 1, pepper })
  t.teardown(() => passwords.close())
  const stored = bcrypt.hashSync('right', 8)
  // CPU time of the process, its threads included: a busy machine changes it little.
  const costOf = async (hash: string | undefined) => {
    const before = process.cpuUsage()
    for (let n = 0; n < 10; n++) await passwords.verify('wrong', hash)
    const { user, system } = process.cpuUsage(before)
    return (user + system) / 1000
  }
  await costOf(stored)
  const [known, unknown] = [await costOf(stored), await costOf(undefined)]
  // Without the decoy the ratio is far below a tenth.
  t.ok(unknown / known > 0.3, `unknown ${unknown.toFixed(0)} ms, known ${known.toFixed(0)} ms`)
  for (const other of [bcrypt.hashSync('right', 4), 'no hash at all', '']) {
    const ms = await costOf(other)
    t.ok(ms / unknown > 0.3 && ms / unknown < 3, `${other.slice(0, 7)}: ${ms.toFixed(0)} ms`)
  }
})

t.test('passwords beyond the bound of the queue are refused immediately, and the event loop stays free', async t => {
  const passwords = createPasswordService({ cost: 10, threads: 1, maxQueue: 4, pepper })
  t.teardown(() => passwords.close())
  await passwords.hash('the thread is up')
  const outcomes = await Promise.allSettled(Array.from({ length: 20 }, () => passwords.hash('x')))
  const refused = outcomes.filter(outcome => outcome.status === 'rejected')
  // One runs and four wait; on a busy machine those four may wait too long.
  t.ok(refused.length >= 15 && refused.length < 20, `${refused.length} of 20`)
  for (const { reason } of refused) t.match(reason, { code: 'server_busy', retryAfter: 1 })
})

t.test('a password that would wait longer than two seconds is refused at once, and the others are answered in time', async t => {
  // A hash of cost 13 takes most of a second: two may wait, whatever the length of the queue allows.
  const passwords = createPasswordService({ cost: 13, threads: 1, maxQueue: 100, pepper })
  t.teardown(() => passwords.close())
  await passwords.hash('the thread is up')
  const startedAt = performance.now()
  const ended: number[] = []
  const outcomes = await Promise.allSettled(Array.from({ length: 30 }, async () => {
    try {
      return await passwords.hash('x')
    } finally {
      ended.push(performance.now() - startedAt)
    }
  }))
  const refused = outcomes.filter(outcome => outcome.status === 'rejected')
  t.ok(refused.length >= 20 && refused.length < 30, `${refused.length} of 30 were refused`)
  for (const { reason } of refused) t.match(reason, { code: 'server_busy', retryAfter: 1 })
  t.ok(ended[0]! < 200, `the first refusal came after ${ended[0]!.toFixed(0)} ms`)
  t.throws(() => {
    for (let n = 0; n < 30; n++) passwords.hash('x').catch(() => {})
    passwords.requireRoom()
  }, { code: 'server_busy' })
})

t.test('every byte of a password counts, and one password has one form', async t => {
  const passwords = createPasswordService({ cost: 4, pepper })
  t.teardown(() => passwords.close())
  const start = 'a'.repeat(72)
  const hash = await passwords.hash(`${start}b`)
  t.equal(await passwords.verify(`${start}b`, hash), true, 'the control')
  t.equal(await passwords.verify(`${start}c`, hash), false, 'twins of 72 bytes')
  t.equal(await passwords.verify(start, hash), false)
  const long = '🔑'.repeat(256)
  t.equal(await passwords.verify(long, await passwords.hash(long)), true)
  const composed = await passwords.hash('p\u00e4ssword')
  t.equal(await passwords.verify('pa\u0308ssword', composed), true, 'another keyboard')
  t.equal(await passwords.verify('password', composed), false)
})

t.test('a hash of the Go service, of an earlier pepper or of another cost is verified and outdated', async t => {
  const passwords = createPasswordService({ cost: 5, pepper, previousPeppers: ['the pepper before'] })
  const before = createPasswordService({ cost: 5, pepper: 'the pepper before' })
  const cheap = createPasswordService({ cost: 4, pepper })
  const other = createPasswordService({ cost: 5, pepper: 'a pepper that was lost' })
  t.teardown(() => Promise.all([passwords, before, cheap, other].map(service => service.close())))
  for (
    const [name, hash] of [
      ['Go', bcrypt.hashSync('password', 4).replace('$2b$', '$2a$')],
      ['an earlier pepper', await before.hash('password')],
      ['another cost', await cheap.hash('password')]
    ] as const
  ) {
    t.equal(await passwords.verify('password', hash), true, name)
    t.equal(await passwords.verify('passwort', hash), false, name)
    t.equal(passwords.isOutdated(hash, 'password'), true, name)
  }
  t.equal(passwords.isOutdated(await passwords.hash('password'), 'password'), false)
  t.equal(
    passwords.isOutdated(bcrypt.hashSync('x', 4), 'x'.repeat(73)),
    false,
    'of a longer password Go knew 72 bytes alone'
  )
  t.equal(
    await passwords.verify('password', await other.hash('password')),
    false,
    'without its pepper a hash verifies nothing'
  )
})

t.test('with a blocklist the most common passwords and the own names are refused, and only for new hashes', async t => {
  const passwords = createPasswordService({ cost: 4, pepper, blocklist: 'common' })
  const free = createPasswordService({ cost: 4, pepper })
  t.teardown(() => Promise.all([passwords.close(), free.close()]))
  for (const common of ['password123', 'PASSWORD123', '12345678', 'Ｐassword123']) {
    await t.rejects(passwords.hash(common), { code: 'password_too_common' }, common)
  }
  for (const name of ['Somebody', 'me@example.com']) {
    await t.rejects(passwords.hash(name.toUpperCase(), ['somebody', 'me@example.com']), { code: 'password_too_common' })
  }
  t.match(await passwords.hash('tr0mbone of the harbour', ['somebody']), /^halo1/)
  const hash = await free.hash('password123', ['password123'])
  t.equal(await passwords.verify('password123', hash), true, 'who has one logs in')
  t.match(await passwords.rehash('password123'), /^halo1/)
})

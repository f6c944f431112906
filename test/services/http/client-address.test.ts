import rateLimit from '@fastify/rate-limit'
import t from 'tap'
import { clientKey } from '../../../services/http/client-key.ts'

const { normalizeIP } = rateLimit as unknown as { normalizeIP: (address: string, subnet?: number) => string }

/** The /64 of @fastify/rate-limit in our spelling: its own has the whole address. */
const groupsOf = (address: string): string => {
  const normal = normalizeIP(address, 64)
  if (!normal.includes(':')) return normal
  const head = normal.split('::')[0]!.split(':').filter(Boolean)
  return [...head, '0', '0', '0', '0'].slice(0, 4).join(':')
}

t.test('a client key is the address, or its /64, as @fastify/rate-limit has it', async t => {
  const random = (() => {
    let x = 42
    return () => (x = (x * 1_103_515_245 + 12_345) % 2 ** 31) / 2 ** 31
  })()
  const group = () => random() < 0.4 ? '0' : Math.floor(random() * 65_536).toString(16)
  for (let n = 0; n < 3000; n++) {
    const groups = Array.from({ length: 8 }, group)
    let address = groups.join(':')
    if (n % 2) {
      const start = Math.floor(random() * 7)
      const length = 1 + Math.floor(random() * (8 - start))
      address = `${groups.slice(0, start).join(':')}::${groups.slice(start + length).join(':')}`
    }
    if (n % 3 === 0) address = address.toUpperCase()
    if (clientKey(address) !== groupsOf(address)) t.equal(clientKey(address), groupsOf(address), address)
  }
  for (
    const address of [
      '192.0.2.1',
      '::',
      '::1',
      '::ffff:192.0.2.1',
      '::FFFF:192.0.2.1',
      '64:ff9b::192.0.2.1',
      'fe80::1',
      '2001:db8::',
      '1:2:3:4:5:6:192.0.2.1'
    ]
  ) {
    t.equal(clientKey(address), groupsOf(address), address)
  }
  t.equal(clientKey('fe80::1%eth0'), 'fe80:0:0:0', 'without its zone')
  t.equal(clientKey('x'.repeat(1000)).length, 64, 'what is no address is bounded')
})

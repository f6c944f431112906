import type { IncomingMessage } from 'node:http'
import t from 'tap'
import { createAddresses } from '../../../services/http/client-address.ts'

const requestOf = (remoteAddress: string, forwarded?: string): IncomingMessage =>
  ({
    socket: { remoteAddress },
    headers: forwarded === undefined ? {} : { 'x-forwarded-for': forwarded }
  }) as unknown as IncomingMessage

t.test('a client address is the last one that no trusted proxy has, whatever the client writes before it', async t => {
  const addressOf = createAddresses(['127.0.0.1', '10.0.0.0/8'])
  for (
    const [peer, forwarded, address] of [
      ['203.0.113.9', undefined, '203.0.113.9'],
      ['203.0.113.9', '192.0.2.1', '203.0.113.9'],
      ['127.0.0.1', '203.0.113.9', '203.0.113.9'],
      ['127.0.0.1', '192.0.2.1, 203.0.113.9', '203.0.113.9'],
      ['127.0.0.1', '192.0.2.1, 203.0.113.9, 10.1.2.3', '203.0.113.9'],
      ['127.0.0.1', '10.1.2.3, 203.0.113.9', '203.0.113.9'],
      ['127.0.0.1', '10.1.2.3', '10.1.2.3'],
      ['127.0.0.1', 'nonsense, 10.1.2.3', '10.1.2.3'],
      ['127.0.0.1', '192.0.2.1,', '127.0.0.1']
    ] as const
  ) t.equal(addressOf(requestOf(peer, forwarded)), address, `${peer}: ${forwarded ?? 'nothing'}`)
  t.equal(createAddresses([])(requestOf('127.0.0.1', '192.0.2.1')), '127.0.0.1', 'without proxies nobody is believed')
})

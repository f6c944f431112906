import { createServer, type RequestListener } from 'node:http'
import type { AddressInfo } from 'node:net'
import t, { type Test } from 'tap'
import { createGenerator } from '../../bench/generator.ts'
import { type Kind } from '../../bench/load.ts'

async function serve (t: Test, listener: RequestListener) {
  const server = createServer(listener)
  await new Promise<void>(resolve => {
    server.listen(0, '127.0.0.1', resolve)
  })
  const generator = createGenerator()
  t.teardown(() => {
    generator.stop()
    server.close()
    server.closeAllConnections()
  })
  const kind: Kind = { name: 'one', weight: 1, method: 'GET', paths: ['/'], expect: [200] }
  return {
    generator,
    kind,
    load: {
      host: '127.0.0.1',
      port: (server.address() as AddressInfo).port,
      kinds: [kind],
      connections: 2,
      addresses: 250,
      seconds: 2
    }
  }
}

t.test('a request counts from the moment when it is due, the first one at the beginning', async t => {
  const { generator, load } = await serve(t, (request, response) => {
    response.end('yes')
  })
  const { answered, latency, unexpected } = await generator.run({ ...load, rate: 2 })
  t.strictSame(unexpected, {})
  t.equal(answered, 4)
  // Half a second lies between two of them.
  t.ok(latency.max < 400, `${latency.max} ms`)
})

t.test('and waits for a connection at its own cost', async t => {
  const { generator, load } = await serve(t, (request, response) => {
    setTimeout(() => {
      response.end('late')
    }, 400)
  })
  const { answered, latency } = await generator.run({ ...load, rate: 10 })
  t.equal(answered, 20)
  // Two connections carry five a second: the last of ten a second waits for some two seconds.
  t.ok(latency.max > 1500, `${latency.max} ms`)
})

t.test('an answer that is not expected is counted by kind and status, with and without a rate', async t => {
  let asked = 0
  const { generator, load, kind } = await serve(t, (request, response) => {
    response.statusCode = request.url === '/bad' || ++asked % 2 === 0 ? 500 : 200
    response.end()
  })
  const open = await generator.run({ ...load, seconds: 1, rate: 20 })
  t.strictSame(open.unexpected, { one: { 500: 10 } })
  t.equal(open.answered, 10)
  const closed = await generator.run({ ...load, kinds: [{ ...kind, name: 'bad', paths: ['/bad'] }], seconds: 1 })
  t.ok(closed.unexpected['bad']!['500']! > 0)
  t.equal(closed.answered, 0)
})

t.test('connections take requests in turn: what stands once in a list is sent once', async t => {
  const bodies: string[] = []
  const { generator, load, kind } = await serve(t, (request, response) => {
    request.on('data', (data: Buffer) => {
      bodies.push(String(data))
    })
    request.on('end', () => {
      setTimeout(() => {
        response.end()
      }, 20)
    })
  })
  const list = Array.from({ length: 1000 }, (_, n) => `body ${n}`)
  await generator.run({ ...load, kinds: [{ ...kind, method: 'POST', bodies: list }], connections: 4, seconds: 1 })
  t.ok(bodies.length > 20)
  t.equal(new Set(bodies).size, bodies.length)
})

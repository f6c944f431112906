import { once } from 'node:events'
import { createServer, type RequestListener, type ServerOptions } from 'node:http'
import { connect, type AddressInfo } from 'node:net'
import t from 'tap'
import { HeadResponse, serializeFields, writeSerializedHead } from '../../../services/http/response-head.ts'

const fields = ['x-one', '1', 'x-two', 'a, b', 'vary', 'Origin']
const body = '{"name":"ü"}'

/** What a server writes to a client that sends something, and whether the connection is kept. */
async function exchange (
  listener: RequestListener,
  text: string,
  options: ServerOptions = { ServerResponse: HeadResponse as never }
): Promise<{ lines: string[], rest: string, isKept: boolean }> {
  const server = createServer(options, listener).listen(0, '127.0.0.1')
  await once(server, 'listening')
  const socket = connect((server.address() as AddressInfo).port, '127.0.0.1')
  let received = ''
  socket.setEncoding('latin1').on('data', chunk => {
    received += chunk
  })
  socket.write(text)
  while (!received.includes('\r\n\r\n')) await once(socket, 'data')
  // A second request is answered on a connection that is kept, and on no other.
  const first = received
  socket.on('error', () => {}).write(text)
  await new Promise<void>(resolve => {
    socket.once('data', () => {
      resolve()
    }).once('close', () => {
      resolve()
    })
  })
  socket.destroy()
  server.close()
  const [head, ...rest] = first.split('\r\n\r\n')
  const lines = head!.split('\r\n').map(line => line.startsWith('Date: ') ? 'date' : line.toLowerCase())
  return {
    lines: [lines[0]!, ...lines.slice(1).sort()],
    rest: rest.join('\r\n\r\n'),
    isKept: received.length > first.length
  }
}

t.test('a serialized head equals that of writeHead, for every method and HTTP version', async t => {
  const requests = {
    'HTTP/1.1': 'GET / HTTP/1.1\r\nHost: x\r\n\r\n',
    'HTTP/1.1, the last one': 'GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n',
    'HTTP/1.0': 'GET / HTTP/1.0\r\n\r\n',
    'HTTP/1.0 that is kept': 'GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n',
    HEAD: 'HEAD / HTTP/1.1\r\nHost: x\r\n\r\n',
    'HEAD, HTTP/1.0': 'HEAD / HTTP/1.0\r\n\r\n'
  }
  const isKept: Record<string, boolean> = {}
  for (const [name, text] of Object.entries(requests)) {
    for (
      const [status, content] of [[200, body], [503, body], [200, Buffer.from(body)], [200, ''], [
        304,
        undefined
      ]] as const
    ) {
      const length = content === undefined ? undefined : Buffer.byteLength(content)
      const usual = await exchange(
        (request, response) => {
          response.writeHead(status, length === undefined ? fields : [...fields, 'content-length', String(length)]).end(
            content
          )
        },
        text,
        {}
      )
      const serialized = await exchange((request, response) => {
        writeSerializedHead(response, status, serializeFields(fields), length)
        response.end(content)
      }, text)
      t.strictSame(serialized, usual, `${name}, ${status}`)
      const fallback = await exchange(
        (request, response) => {
          writeSerializedHead(response, status, serializeFields(fields), length)
          response.end(content)
        },
        text,
        {}
      )
      t.strictSame(fallback, usual, `${name}, ${status}, by a response that is not the service's own`)
      if (status === 503) isKept[name] = serialized.isKept
    }
  }
  t.strictSame(isKept, {
    'HTTP/1.1': true,
    'HTTP/1.1, the last one': false,
    'HTTP/1.0': false,
    'HTTP/1.0 that is kept': true,
    HEAD: true,
    'HEAD, HTTP/1.0': false
  })
})

t.test('an answer has one head', async t => {
  const errors: unknown[] = []
  await exchange((request, response) => {
    writeSerializedHead(response, 200, '', 0)
    try {
      writeSerializedHead(response, 200, '', 0)
    } catch (error) {
      errors.push(error)
    }
    response.end()
  }, 'GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n')
  t.match(errors, [{ message: 'The head of this response has been sent' }])
})

t.test('no field smuggles another one in', async t => {
  for (
    const field of [['x-one', 'a\r\nx-two: b'], ['x-one', 'a\nb'], ['x one', 'a'], ['x-one:', 'a'], ['', 'a'], [
      'x-one',
      'ж'
    ]]
  ) {
    t.throws(() => serializeFields(['x-zero', '0', ...field]), TypeError, JSON.stringify(field))
  }
})

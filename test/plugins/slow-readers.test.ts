import { once } from 'node:events'
import { connect, type AddressInfo, type Socket } from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'
import t, { type Test } from 'tap'
import { createApp, logLines } from '../helpers/app.ts'
import { anyStores } from '../helpers/stores.ts'

const path = '/openapi.json'
const times = 150

/** Asks for more than the buffers of two sockets hold, and takes nothing of it yet. */
async function askForMuch (t: Test, port: number): Promise<Socket> {
  const socket = connect({ port, host: '127.0.0.1' })
  t.teardown(() => socket.destroy())
  socket.on('error', () => {})
  await once(socket, 'connect')
  socket.pause()
  for (let n = 1; n <= times; n++) {
    socket.write(`GET ${path} HTTP/1.1\r\nhost: h\r\n${n === times ? 'connection: close\r\n' : ''}\r\n`)
  }
  return socket
}

/** Takes what there is until the connection is closed, and rests so many milliseconds after each piece. */
async function takeAll (socket: Socket, restMs: number): Promise<number> {
  let bytes = 0
  const closed = once(socket, 'close')
  while (!socket.closed) {
    const piece = socket.read() as Buffer | null
    bytes += piece?.length ?? 0
    if (piece === null) await Promise.race([once(socket, 'readable'), closed]).catch(() => {})
    else if (restMs > 0) await sleep(restMs)
  }
  return bytes
}

t.test('a client that takes its answers slowly is cut off, another one gets all of them', async t => {
  const app = await createApp(t, { stores: anyStores(), env: { SERVER_WRITE_TIMEOUT: '3' } })
  await app.listen({ port: 0, host: '127.0.0.1' })
  const { port } = app.server.address() as AddressInfo
  const size = (await (await fetch(`http://127.0.0.1:${port}${path}`)).arrayBuffer()).byteLength
  const [slow, quick] = await Promise.all([askForMuch(t, port), askForMuch(t, port)])
  // Never idle for as long as the timeout of an idle socket is.
  const [taken, all] = await Promise.all([takeAll(slow, 300), takeAll(quick, 0)])
  t.ok(all > times * size, `${all} of ${times} answers of ${size} bytes`)
  t.ok(taken < all / 2, `${taken} of ${all}`)
})

t.test('a client that goes on asking and takes nothing is cut off, and the log says so', async t => {
  const app = await createApp(t, { stores: anyStores(), env: { SERVER_WRITE_TIMEOUT: '1' } })
  await app.listen({ port: 0, host: '127.0.0.1' })
  // How much the buffers of a kernel hold is its own affair: as if none of it were taken.
  app.server.once('connection', (socket: Socket) => {
    Object.defineProperty(socket, 'writableLength', { get: () => socket.bytesWritten })
  })
  const before = logLines.length
  const socket = connect({ port: (app.server.address() as AddressInfo).port, host: '127.0.0.1' })
  const asking = setInterval(() => {
    socket.write('GET /livez HTTP/1.1\r\nhost: h\r\n\r\n')
  }, 100)
  t.teardown(() => {
    clearInterval(asking)
    socket.destroy()
  })
  socket.on('error', () => {}).resume()
  await once(socket, 'close')
  t.equal(logLines.slice(before).filter(line => line.includes('does not read its responses')).length, 1)
})

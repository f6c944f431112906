import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { createServer, type AddressInfo } from 'node:net'
import t from 'tap'
import { endPollPhase } from '../../services/poll-phase.ts'

/** Many more clients than libuv looks at at once, each of which asks again as soon as it is answered. */
const clients = 3500
const flood = `
  for (let n = 0; n < ${clients}; n++) {
    const socket = require('node:net').connect(Number(process.argv[1]), '127.0.0.1', () => socket.write('?'))
    socket.on('data', () => socket.write('?'))
    socket.on('error', () => {})
  }`

t.test('a turn of the loop in which more sockets than 1,024 can always be read ends when it is asked to', async t => {
  let answered = 0
  let most = 0
  const { promise: isOver, resolve: end } = Promise.withResolvers<void>()
  const server = createServer(socket => {
    socket.on('error', () => {})
    socket.on('data', () => {
      // Slower than the clients are, so that all of them wait.
      for (const until = performance.now() + 0.3; performance.now() < until;);
      socket.write('!')
      most = Math.max(most, ++answered)
      if (answered === 100) endPollPhase()
      if (answered > 12_000) end()
    })
  })
  server.listen(0, '127.0.0.1', 4096)
  await once(server, 'listening')
  const child = spawn(process.execPath, ['-e', flood, String((server.address() as AddressInfo).port)])
  child.once('exit', end)
  const tooLong = setTimeout(end, 60_000)
  let turns = 0
  const timer = setInterval(() => {
    if (answered > 1024) turns++
    answered = 0
    if (turns >= 3) end()
  }, 1)
  await isOver
  clearInterval(timer)
  clearTimeout(tooLong)
  child.kill()
  server.close()
  t.ok(most > 1024, 'a long turn it was')
  t.ok(most < 10 * 1024, `${most} in a turn`)
})

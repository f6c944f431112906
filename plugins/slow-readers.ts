import type { Socket } from 'node:net'
import fp from 'fastify-plugin'

/**
 * Cuts off clients that ask and do not take what they are answered: those that have left some of it untaken at every look for
 * SERVER_WRITE_TIMEOUT. The idle timeout of the sockets does not find them, for which a byte now and then is enough. It
 * looks at all connections in turn, so that an answer costs nothing: ten thousand take half a millisecond a second.
 */
export default fp(async function slowReaders (app) {
  const { writeTimeoutMs } = app.config.server
  const sockets = new Set<Socket>()
  const untakenSince = new Map<Socket, number>()

  app.server.on('connection', (socket: Socket) => {
    sockets.add(socket)
    socket.once('close', () => {
      sockets.delete(socket)
      untakenSince.delete(socket)
    })
  })

  function look (): void {
    const now = performance.now()
    for (const socket of sockets) {
      if (socket.writableLength === 0) {
        untakenSince.delete(socket)
        continue
      }
      const since = untakenSince.get(socket) ?? now
      untakenSince.set(socket, since)
      if (now - since < writeTimeoutMs) continue
      app.log.info({ ip: socket.remoteAddress, bytes: socket.writableLength }, 'a client does not take its answers: cut off')
      socket.destroy()
    }
  }

  let timer: NodeJS.Timeout
  app.addHook('onReady', async () => { timer = setInterval(look, Math.min(1000, writeTimeoutMs / 4)).unref() })
  app.addHook('onClose', async () => { clearInterval(timer) })
}, { name: 'halo:slow-readers', dependencies: ['halo:config'] })

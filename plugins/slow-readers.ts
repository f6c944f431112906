import type { Socket } from 'node:net'
import fp from 'fastify-plugin'

/**
 * Cuts off clients that ask and do not take what they are answered: those that have left some of it untaken at every look for
 * SERVER_WRITE_TIMEOUT. The idle timeout of the sockets does not find them, for which a byte now and then is enough. It
 * looks at all connections in turn, so that an answer costs nothing.
 */
export default fp(async function slowReaders (app) {
  const { writeTimeoutMs } = app.config.server
  /** Since when something is untaken at every look, by connection. */
  const untakenSince = new Map<Socket, number>()

  function forget (this: Socket): void {
    untakenSince.delete(this)
  }

  app.server.on('connection', (socket: Socket) => {
    untakenSince.set(socket, Infinity)
    socket.once('close', forget)
  })

  function look (): void {
    const now = performance.now()
    for (const [socket, before] of untakenSince) {
      const since = socket.writableLength === 0 ? Infinity : Math.min(before, now)
      if (since !== before) untakenSince.set(socket, since)
      if (now - since < writeTimeoutMs) continue
      app.log.info({ ip: socket.remoteAddress, bytes: socket.writableLength }, 'a client does not take its answers: cut off')
      socket.destroy()
    }
  }

  let timer: NodeJS.Timeout
  app.addHook('onReady', async () => { timer = setInterval(look, Math.min(1000, writeTimeoutMs / 4)).unref() })
  app.addHook('onClose', async () => { clearInterval(timer) })
}, { name: 'halo:slow-readers', dependencies: ['halo:config'] })

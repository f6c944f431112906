import { Server } from 'node:http'

/** Loaded before the service: every request of the API waits for 3 ms, as a handler that sleeps would make it. */
type Emit = (this: Server, event: string, ...rest: unknown[]) => boolean

const emit = Server.prototype.emit as Emit
const emitLater: Emit = function (event, ...rest) {
  const [request] = rest as [{ url?: string }?]
  if (event !== 'request' || !request?.url?.startsWith('/api/')) return emit.call(this, event, ...rest)
  setTimeout(() => emit.call(this, event, ...rest), 3)
  return true
}
Server.prototype.emit = emitLater

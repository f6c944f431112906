import { fork } from 'node:child_process'
import { once } from 'node:events'
import type { Socket } from 'node:net'
import { openIdle } from './connections.ts'

export interface HoldOrder {
  host: string
  port: number
  count: number
}

export interface HoldResult {
  answered: number
  lost: number
  seconds: number
}

/** A process that holds connections open: one process may have only so many files. */
export function createHolder (index: number) {
  const child = fork(import.meta.filename, { env: { ...process.env, HALO_HOLDER: String(index) } })
  async function ask (order: HoldOrder | 'ask'): Promise<HoldResult> {
    child.send(order)
    const [answer] = await once(child, 'message') as [HoldResult | { error: string }]
    if ('error' in answer) throw new Error(answer.error)
    return answer
  }
  return {
    open: (order: HoldOrder) => ask(order),
    /** Every connection asks once more. */
    askAll: () => ask('ask'),
    stop (): void {
      child.kill('SIGKILL')
    }
  }
}

const index = process.env['HALO_HOLDER']
if (index !== undefined) {
  let held: { sockets: Socket[], lost: () => number } | undefined
  process.on('message', (order: HoldOrder | 'ask') => {
    obey(order).then(result => process.send!(result), (error: unknown) => process.send!({ error: String(error) }))
  })
  process.on('disconnect', () => process.exit())

  async function obey (order: HoldOrder | 'ask'): Promise<HoldResult> {
    const startedAt = performance.now()
    if (order !== 'ask') {
      held = await openIdle({ ...order, pids: [], stop: async () => {} }, order.count, 1 + Number(index) * 10)
      return { answered: held.sockets.length, lost: held.lost(), seconds: (performance.now() - startedAt) / 1000 }
    }
    let answered = 0
    const { sockets, lost } = held!
    for (let start = 0; start < sockets.length; start += 200) {
      await Promise.all(
        sockets.slice(start, start + 200).map(socket =>
          new Promise<void>(resolve => {
            if (socket.destroyed) return resolve()
            socket.once('data', () => {
              answered++
              resolve()
            })
            socket.once('close', () => {
              resolve()
            })
            socket.write('GET /livez HTTP/1.1\r\nhost: bench\r\n\r\n')
          })
        )
      )
    }
    return { answered, lost: lost(), seconds: (performance.now() - startedAt) / 1000 }
  }
}

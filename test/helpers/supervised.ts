import cluster from 'node:cluster'
import { createServer } from 'node:http'
import { createSupervisor } from '../../services/runtime/supervisor.ts'
import { createWorker } from '../../services/runtime/worker.ts'

/** A supervisor that waits for three seconds instead of thirty, over two workers that do nothing. Prints JSON lines. */
const print = (line: object): void => {
  process.stdout.write(`${JSON.stringify(line)}\n`)
}

if (cluster.isWorker) {
  createWorker({ wanted: 2, onDrain: () => process.exit() })
  createServer().listen(0, '127.0.0.1', () => {
    print({ pid: process.pid })
  })
} else {
  const log = (line: unknown, msg?: string): void => {
    print({ ...line as object, msg })
  }
  const supervisor = createSupervisor({
    workers: 2,
    env: {},
    logger: { info: log, warn: log, error: log },
    drainMs: 2000,
    silenceMs: 3000
  })
  await supervisor.start()
  process.on('SIGTERM', () => {
    supervisor.stop('SIGTERM').then(code => process.exit(code), () => process.exit(1))
  })
}

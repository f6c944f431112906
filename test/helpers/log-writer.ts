import pino from 'pino'
import { createLogDestination } from '../../services/runtime/log-destination.ts'

/** A process that logs 3,000 lines as the service does: more than a pipe holds. */
const destination = createLogDestination({ isShared: true })
const logger = pino({}, destination)
for (let n = 0; n < 3000; n++) {
  logger.info({ url: 'x'.repeat(100 + n * 31 % 300) }, 'request')
  if (n % 10 === 0) await new Promise(resolve => setImmediate(resolve))
}
await destination.flushWithin(60_000)

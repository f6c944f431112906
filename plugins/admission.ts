import type { IncomingMessage, ServerResponse } from 'node:http'
import fp from 'fastify-plugin'
import { createAdmission, type Admission } from '../services/admission.ts'
import { isProbe } from '../services/probes.ts'
import { endPollPhase } from '../services/poll-phase.ts'

declare module 'fastify' {
  interface FastifyInstance {
    admission: Omit<Admission, 'stats'> & {
      readonly stats: Admission['stats'] & { refused: number }
      /** Whether a request of some moment is refused, whatever it asks for; probes and numbers never are. */
      refusesAnyRequest (request: IncomingMessage, at: number): boolean
      /** Whether a request that needs work is refused; probes and numbers never are. */
      refusesRequest (request: IncomingMessage): boolean
      /** Counts a request that was refused. There is no line in the log for each: one in five seconds tells how many there were. */
      noteRefusal (): void
      /** A request is under way until its response is over. */
      track (response: ServerResponse): void
      /** A response that stays open, as a stream of events does, is no longer a request under way. */
      untrack (response: ServerResponse): void
    }
  }
}

/** Milliseconds between two lines of the log about an overload. */
const warnEveryMs = 5000

/** Requests that come while there is too much to do are refused before any work is done for them. */
export default fp(async function admission (app) {
  const control = createAdmission({ endTurn: endPollPhase })
  let refused = 0
  let warned = { at: -Infinity, refused: 0 }

  function leave (this: ServerResponse): void {
    control.leave()
  }

  function warn (): void {
    const now = performance.now()
    if (now - warned.at < warnEveryMs) return
    const { inFlight, delayMs, bound, refusedPart } = control.stats
    app.log.warn({ refused: refused - warned.refused, inFlight, delayMs: Math.round(delayMs), bound, refusedPart }, 'overload: requests are refused')
    warned = { at: now, refused }
  }

  /** Looked at last, because it costs most. */
  const isExempt = (request: IncomingMessage): boolean => isProbe(request) || request.url!.split('?', 1)[0] === '/metrics'

  app.decorate('admission', {
    ...control,
    get stats () { return { ...control.stats, refused } },

    refusesAnyRequest: (request, at) => control.refusesAny(at) && !isExempt(request),
    refusesRequest: request => control.refusesWork() && !isExempt(request),

    noteRefusal () {
      refused++
      warn()
    },

    track (response) {
      if (response.writableEnded) return
      control.enter()
      response.on('close', leave)
    },

    untrack (response) {
      if (!response.listeners('close').includes(leave)) return
      response.off('close', leave)
      control.leave()
    }
  })
  app.addHook('onReady', async () => { control.start() })
  app.addHook('onClose', async () => { control.stop() })
}, { name: 'halo:admission', dependencies: ['halo:config', 'halo:errors'] })

import type { IncomingMessage } from 'node:http'
import type { Taken } from './limiter/limit-fields.ts'

/** What is known of a request before anything is done for it. */
export interface Arrival {
  id: string
  ip: string
  /** The token of its address, or that there was none. */
  addressToken: Taken
  /** The token that a policy of its kind took beside that of the address. */
  ownToken?: Taken
  /** By a clock that never goes back, in milliseconds. */
  at: number
}

const key = Symbol('arrival')

type Marked = IncomingMessage & { [key]?: Arrival }

/** Remembered with the request, for whoever meets it later. */
export function setArrival (request: IncomingMessage, arrival: Arrival): void {
  (request as Marked)[key] = arrival
}

/** Undefined for a request that did not come through the port. */
export const arrivalOf = (request: IncomingMessage): Arrival | undefined => (request as Marked)[key]

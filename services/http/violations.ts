import type { Violation } from '../shared/errors.ts'
import { faultOfText } from '../shared/visible-text.ts'

/** An error of Ajv, in its verbose form. */
export interface ValidationError {
  instancePath: string
  keyword: string
  params: Record<string, unknown>
  message?: string
  data?: unknown
}

/** Maximum violations of a response. */
const maxViolations = 20

/** Converts errors of a validator to violations, with sentences for people. */
export function toViolations (errors: ValidationError[], part: Violation['in']): Violation[] {
  return errors.slice(0, maxViolations).map(error => ({
    in: part,
    pointer: `${error.instancePath}${memberOf(error)}`,
    detail: detailOf(error)
  }))
}

/** Returns the JSON pointer (RFC 6901) of the member that an error of its object is about. */
function memberOf ({ keyword, params }: ValidationError): string {
  const name = keyword === 'required'
    ? params['missingProperty']
    : keyword === 'additionalProperties'
      ? params['additionalProperty']
      : undefined
  return typeof name === 'string' ? `/${name.slice(0, 100).replaceAll('~', '~0').replaceAll('/', '~1')}` : ''
}

const detailOfFormat: Record<string, (text: string) => string | undefined> = {
  'http-url': () =>
    'must be an http or https address of at most 2048 characters, without user information, spaces, quotes or backslashes',
  username: () =>
    'must be of one alphabet, without invisible characters, NUL, half of a surrogate pair, or a space at either end',
  email: () => 'must be an email address, such as name@example.com',
  line: text => faultOfText(text, { isLine: true }),
  text: text => faultOfText(text, { isLine: false }),
  storable: () => 'has a character that cannot be stored: NUL or half of a surrogate pair'
}

const count = (number: unknown, noun: string): string => `${String(number)} ${noun}${number === 1 ? '' : 's'}`

/** Describes an error by a predicate: "must have at least 8 characters". */
function detailOf ({ keyword, params, message, data }: ValidationError): string {
  const { limit } = params
  switch (keyword) {
    case 'required':
      return 'is missing'
    case 'additionalProperties':
      return 'is not known here'
    case 'type':
      return `must be ${typeNames[String(params['type'])] ?? String(params['type'])}`
    case 'enum':
      return `must be one of ${(params['allowedValues'] as string[]).join(', ')}`
    case 'minLength':
      return limit === 1 ? 'must not be empty' : `must have at least ${count(limit, 'character')}`
    case 'maxLength':
      return `must have at most ${count(limit, 'character')}`
    case 'minItems':
      return `must have at least ${count(limit, 'item')}`
    case 'maxItems':
      return `must have at most ${count(limit, 'item')}`
    case 'minimum':
      return `must be ${String(limit)} or more`
    case 'maximum':
      return `must be ${String(limit)} or less`
    case 'pattern':
      return 'does not have the documented form'
    case 'minProperties':
      return 'must not be empty'
    case 'format':
      return detailOfFormat[String(params['format'])]?.(String(data)) ?? 'is not valid'
    default:
      return message ?? 'is not valid'
  }
}

const typeNames: Record<string, string> = {
  string: 'a text',
  integer: 'a whole number',
  number: 'a number',
  boolean: 'true or false',
  object: 'an object',
  array: 'a list'
}

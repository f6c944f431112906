import { domainToASCII } from 'node:url'

const atom = "[\\p{L}\\p{M}\\p{N}!#$%&'*+/=?^_`{|}~-]+"
const label = '[\\p{L}\\p{N}](?:[\\p{L}\\p{M}\\p{N}-]*[\\p{L}\\p{M}\\p{N}])?'
const pattern = new RegExp(`^${atom}(?:\\.${atom})*@(${label}(?:\\.${label})+)$`, 'u')

/** Whether a text is an email address, also an international one (RFC 6531), with a name of a domain (RFC 5891). */
export function isEmail (text: string): boolean {
  const domain = pattern.exec(text)?.[1]
  return domain !== undefined && domainToASCII(domain) !== ''
}

/** Longest address that is stored, in UTF-16 code units. */
export const maxUrlLength = 2048

/**
 * Characters that no address needs as they stand, and that a page, a header or a log may read otherwise: white space,
 * controls, invisible and bidirectional characters, backslashes, quotes and angle brackets.
 */
const unsafe = /[\s\p{Cc}\p{Cf}\\"'`<>]/u

/**
 * Whether a text is '' (no address), or an http or https URL (WHATWG URL Standard) without user information: what stands
 * before an @ passes for the host (https://halo.example@evil.example).
 */
export function isHttpUrl (text: string): boolean {
  if (text === '') return true
  if (text.length > maxUrlLength || unsafe.test(text) || !/^https?:\/\//i.test(text) || !URL.canParse(text)) return false
  const url = new URL(text)
  return url.username === '' && url.password === '' && url.hostname !== '' && url.href.length <= maxUrlLength
}

/** The form in which an address is stored: serialised, so that every reader parses the same. '' stays ''. */
export const serializeUrl = (text: string): string => text === '' ? '' : new URL(text).href

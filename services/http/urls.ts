/** Maximum length of a stored URL, in UTF-16 code units. */
export const maxUrlLength = 2048

/**
 * Characters that a URL must percent-encode, and that a page, a header or a log may interpret: white space, controls,
 * invisible and bidirectional characters, backslashes, quotes and angle brackets.
 */
const unsafe = /[\s\p{Cc}\p{Cf}\\"'`<>]/u

/**
 * Whether a text is '' (no URL), or an http or https URL (WHATWG URL Standard) without user information, which people
 * take for the host (https://halo.example@evil.example).
 */
export function isHttpUrl (text: string): boolean {
  if (text === '') return true
  if (text.length > maxUrlLength || unsafe.test(text) || !/^https?:\/\//i.test(text) || !URL.canParse(text)) {
    return false
  }
  const url = new URL(text)
  return url.username === '' && url.password === '' && url.hostname !== '' && url.href.length <= maxUrlLength
}

/** Returns the serialised form of a URL, which is stored, so that every client parses the same. '' stays ''. */
export const serializeUrl = (text: string): string => text === '' ? '' : new URL(text).href

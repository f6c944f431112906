/** Maximum combining marks on one character: Tibetan stacks up to eight; names that spill over lines have dozens. */
const maxMarks = 8

const tooManyMarks = new RegExp(`\\p{M}{${maxMarks + 1}}`, 'u')

/** Whether a character has more combining marks than any language stacks, invisible characters between them or not. */
export const hasMarkStack = (text: string): boolean =>
  tooManyMarks.test(text.replaceAll(/[\p{Default_Ignorable_Code_Point}\p{Cf}]/gu, ''))

/**
 * Invisible characters that no language needs in such texts: annotations, deprecated controls, tags that are no flag,
 * and runs of zero-width characters.
 */
const hiding =
  /[\ufff9-\ufffb\u206a-\u206f]|(?<!\u{1f3f4}[\u{e0020}-\u{e007f}]{0,10})[\u{e0000}-\u{e007f}]|[\u200b-\u200f\u2060-\u2064\ufeff]{4}/u

/**
 * A letter, number, punctuation mark or symbol that leaves a mark on the screen; U+2800 is an empty Braille cell,
 * U+1D159 a note without a head, U+13441 and U+13442 blank hieroglyphs.
 */
const visible = /(?![\p{Default_Ignorable_Code_Point}\u2800\u{1d159}\u{13441}\u{13442}])[\p{L}\p{N}\p{P}\p{S}]/u

const controlInLine = /[\p{Cc}\p{Zl}\p{Zp}]/u
const controlInText = /(?![\t\n\r])\p{Cc}/u

/** Direction controls (Unicode Standard Annex #9). */
const directionControl = /[\u202a-\u202e\u2066-\u2069]/g
const closerOf: Record<string, string> = {
  '\u202a': '\u202c',
  '\u202b': '\u202c',
  '\u2066': '\u2069',
  '\u2067': '\u2069',
  '\u2068': '\u2069'
}

/**
 * Says why a text must not be shown to others: it could hide, reorder or overprint what stands beside it. Joiners
 * (U+200C, U+200D), variation selectors and direction marks are allowed: Persian, Hindi, Sinhala and emoji need them.
 *
 * @param isLine whether it is one line, which must have a visible character; other texts may be empty and have lines
 * @returns a predicate such as "has no visible character"; undefined for a text that may be shown
 */
export function faultOfText (text: string, { isLine }: { isLine: boolean }): string | undefined {
  if (!isStorable(text)) return 'has a character that cannot be stored: NUL or half of a surrogate pair'
  if (isLine && controlInLine.test(text)) return 'has a control character or a line break'
  if (controlInText.test(text)) return 'has a control character'
  if ((isLine || text !== '') && !visible.test(text)) return 'has no visible character'
  if (hiding.test(text)) return 'has invisible characters that hide something'
  if (hasMarkStack(text)) return `has more than ${maxMarks} combining marks on one character`
  if (!text.split(/[\n\r\u2029]/).every(isDirectionBalanced)) {
    return 'has a text direction override, or a direction control that is not closed'
  }
  return undefined
}

/** Whether PostgreSQL can store a text (no NUL) and UTF-8 can encode it (no unpaired surrogate). */
export function isStorable (text: string): boolean {
  return text.isWellFormed() && !text.includes('\0')
}

/** Whether every embedding and isolate of a line is closed, in order, and there is no override. */
function isDirectionBalanced (line: string): boolean {
  const expected: string[] = []
  for (const [control] of line.matchAll(directionControl)) {
    const closer = closerOf[control]
    if (closer !== undefined) expected.push(closer)
    else if (expected.pop() !== control) return false
  }
  return expected.length === 0
}

const invisible = /^[\s\p{Default_Ignorable_Code_Point}\u2800]$/u

/** Removes white space and invisible characters from both ends: keyboards and the clipboard add them. */
export function trimInvisible (text: string): string {
  const characters = [...text]
  const isVisible = (character: string): boolean => !invisible.test(character)
  return characters.slice(characters.findIndex(isVisible), characters.findLastIndex(isVisible) + 1).join('')
}

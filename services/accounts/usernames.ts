import { hasMarkStack } from '../shared/visible-text.ts'

/** Scripts with letters that look like those of another script. */
const alphabets = [
  /\p{Script=Latin}/u,
  /\p{Script=Greek}/u,
  /\p{Script=Cyrillic}/u,
  /\p{Script=Armenian}/u,
  /\p{Script=Coptic}/u,
  /\p{Script=Cherokee}/u,
  /\p{Script=Lisu}/u,
  /\p{Script=Georgian}/u
]

/** Signs that join two consonants (Canonical_Combining_Class 9), of the scripts that write joiners after them. */
const virama = '[\\u094d\\u09cd\\u0a4d\\u0acd\\u0b4d\\u0bcd\\u0c4d\\u0ccd\\u0d4d\\u0dca\\u1039\\u17d2]'
const cursive = '[\\p{Script=Arabic}\\p{Script=Syriac}\\p{Script=Mongolian}]\\p{Mn}*'

/**
 * Joiners where words need them (UTS #31 §2.3.1): ZWNJ between letters of a cursive script or after a virama, ZWJ
 * after a virama, or in Bengali between ra and the virama. Anywhere else they are invisible.
 */
const joiners = new RegExp(
  `(?<=${cursive})\\u200c(?=${cursive})|(?<=\\p{L}${virama})[\\u200c\\u200d](?!\\p{M})|(?<=\\u09b0)\\u200d(?=\\u09cd)`,
  'gu'
)

/** Removes joiners: names that differ only in them are the same name. */
export const withoutJoiners = (text: string): string => text.replaceAll(joiners, '')

/**
 * Whether a name cannot be confused with another one: no mix of scripts with similar letters (a Cyrillic а in a Latin
 * name; UTS #39 §5), no invisible characters but joiners that a word needs, no repeated, leading or trailing spaces,
 * no stacks of combining marks, and at least one visible character.
 */
export function isPlainName (text: string): boolean {
  const shown = withoutJoiners(text.normalize('NFKC'))
  return !hasMarkStack(shown) && shown === shown.trim() && /[\p{L}\p{N}]/u.test(shown) && !/\s\s/.test(shown) &&
    !/[\p{Cc}\p{Cf}\p{Zl}\p{Zp}\p{Co}\p{Cn}\p{Default_Ignorable_Code_Point}\u2800]/u.test(shown) &&
    alphabets.filter(alphabet => alphabet.test(shown)).length <= 1
}

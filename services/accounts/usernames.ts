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

/**
 * Whether a name cannot be confused with another one: no mix of scripts with similar letters (a Cyrillic а in a Latin
 * name; UTS #39 §5), no invisible characters, no repeated, leading or trailing spaces, and at least one visible
 * character.
 */
export function isPlainName (text: string): boolean {
  const shown = text.normalize('NFKC')
  return shown === shown.trim() && /[\p{L}\p{N}]/u.test(shown) && !/\s\s/.test(shown) &&
    !/[\p{Cc}\p{Cf}\p{Zl}\p{Zp}\p{Co}\p{Cn}\p{Default_Ignorable_Code_Point}\u2800]/u.test(shown) &&
    alphabets.filter(alphabet => alphabet.test(shown)).length <= 1
}

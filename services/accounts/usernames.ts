/** Alphabets with letters that look like those of another one. */
const alphabets = [
  /\p{Script=Latin}/u, /\p{Script=Greek}/u, /\p{Script=Cyrillic}/u, /\p{Script=Armenian}/u, /\p{Script=Coptic}/u,
  /\p{Script=Cherokee}/u, /\p{Script=Lisu}/u, /\p{Script=Georgian}/u
]

/**
 * Whether a name cannot pass for another one by a trick: no letters of two alphabets that look alike (a Cyrillic а in a
 * Latin name; UTS #39 §5), no invisible characters, no two spaces or one at either end, and something to read.
 */
export function isPlainName (text: string): boolean {
  const shown = text.normalize('NFKC')
  return shown === shown.trim() && /[\p{L}\p{N}]/u.test(shown) && !/\s\s/.test(shown) &&
    !/[\p{Cc}\p{Cf}\p{Zl}\p{Zp}\p{Co}\p{Cn}\p{Default_Ignorable_Code_Point}\u2800]/u.test(shown) &&
    alphabets.filter(alphabet => alphabet.test(shown)).length <= 1
}

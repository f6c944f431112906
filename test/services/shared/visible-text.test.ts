import t from 'tap'
import { faultOfText, trimInvisible } from '../../../services/shared/visible-text.ts'

const line = (text: string): string | undefined => faultOfText(text, { isLine: true })

t.test('texts of real languages and emoji may be shown', async t => {
  for (
    const text of [
      'می\u200cخواهم',
      'क्\u200dष',
      'ක්\u200dෂ',
      'นี้น้ำ',
      'Tiếng Việt'.normalize('NFD'),
      'שָׁלוֹם',
      '👩\u200d🚀 🏴\u{e0067}\u{e0062}\u{e0065}\u{e006e}\u{e0067}\u{e007f}',
      '!',
      '\u2067עברית\u2069 and \u2066English\u2069',
      'A\u200e mark',
      'ཧྐྵྨླྺྼྻྂ'
    ]
  ) t.equal(line(text), undefined, text)
})

t.test('a text without anything to see is refused', async t => {
  for (const text of ['', ' ', '\u200b', '\u3164', '\u2800', '\u115f\u1160', '\u00ad\u2060', '\ufe0f', '\u0301', '\u{e0001}']) {
    t.equal(line(text), 'has no visible character', JSON.stringify(text))
  }
  t.equal(faultOfText('', { isLine: false }), undefined, 'a text of several lines may be empty')
  t.equal(faultOfText(' \u200b', { isLine: false }), 'has no visible character', 'and not invisible')
})

t.test('controls of text direction must be closed in their line, in order', async t => {
  const fault = 'has a text direction override, or a direction control that is not closed'
  for (
    const text of ['a\u202e', 'a\u202db\u202c', 'a\u202a', 'a\u202ab\u2069', 'a\u2066b\u2067c\u2069', 'a\u2069', 'a\u202c', 'a\u202a\u2066\u202c\u2069']
  ) t.equal(line(text), fault, JSON.stringify(text))
  t.equal(line('a\u202ab\u2066c\u2069\u202c'), undefined)
  t.equal(faultOfText('a\u2067\nb\u2069', { isLine: false }), fault, 'a line break ends it')
})

t.test('controls are refused; a text of several lines has line breaks and tabs', async t => {
  for (const control of ['\x01', '\x1b', '\x7f', '\x85']) {
    t.match(line(`a${control}b`), /control/)
    t.match(faultOfText(`a${control}b`, { isLine: false }), /control/)
  }
  t.equal(faultOfText('a\r\n\tb', { isLine: false }), undefined)
  t.match(line('a\nb'), /line break/)
  t.match(line('a\u2028b'), /line break/)
})

t.test('a few marks on one character are letters, many are not', async t => {
  t.equal(line(`a${'\u0301'.repeat(8)}`), undefined)
  t.match(line(`a${'\u0301'.repeat(9)}`), /combining marks/)
  t.match(line(`a${'\u20dd'.repeat(9)}`), /combining marks/)
})

t.test('spaces and invisible characters are removed from both ends only', async t => {
  t.equal(trimInvisible(' \u200b\ufeff a \u200b b\u00a0\u2060\n'), 'a \u200b b')
  t.equal(trimInvisible('\u200b'), '')
  t.equal(trimInvisible(''), '')
  t.equal(trimInvisible('x'), 'x')
  t.equal(trimInvisible('\u{e0001}😀\u{e0001}'), '😀')
})

t.test('invisible characters do not hide text, nor the number of marks', async t => {
  const hiding = 'has invisible characters that hide something'
  for (const text of ['hi\u{e0068}\u{e0069}', 'a\ufff9b\ufffac\ufffb', 'a\u206ab', `a${'\u200b'.repeat(200)}b`]) {
    t.equal(line(text), hiding, JSON.stringify(text))
  }
  for (const text of [`Z${`${'\u0300'.repeat(6)}\u200d`.repeat(10)}`, `Z${'\u0903'.repeat(40)}`]) {
    t.match(line(text), /combining marks/, JSON.stringify(text))
  }
  for (const text of ['\u{1d159}', '\u{13441}']) t.equal(line(text), 'has no visible character')
})

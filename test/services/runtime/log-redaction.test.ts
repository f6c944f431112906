import t from 'tap'
import { loggableText, loggableUrl } from '../../../services/runtime/log-redaction.ts'

const token = 'eyJhbGciOiJIUzI1NiJ9.eyJ1c2VyX2lkIjo0Mn0.c2lnbmF0dXJl'

t.test('an address in the log has no secrets, and is else what it was', async t => {
  for (
    const plain of [
      '/',
      '/api/v1/videos?limit=20&cursor=eyI',
      '/api/v1/videos/1',
      '/a?b=c#d',
      '/%C3%A4?q=%C3%A4',
      '/%',
      '/a?%',
      '/?&&=',
      '/a;b?c'
    ]
  ) t.equal(loggableUrl(plain), plain)
  for (
    const [address, shown] of [
      [`/x?token=${token}`, '/x?token=[redacted]'],
      [`/x?a=1&access_token=${token}&b=2`, '/x?a=1&access_token=[redacted]&b=2'],
      ['/x?Password=secret', '/x?Password=[redacted]'],
      ['/x?pass=secret&pwd=secret', '/x?pass=[redacted]&pwd=[redacted]'],
      ['/x?a=1;password=secret', '/x?a=1;password=[redacted]'],
      ['/x?%74oken=secret', '/x?%74oken=[redacted]'],
      ['/x?%74oken=secret%', '/x?%74oken=[redacted]'],
      ['/x?refresh_token=halo_refresh_abc.0.def', '/x?refresh_token=[redacted]'],
      [`/x/${token}/y`, '/x/[redacted]/y'],
      [`/x?q=${token}`, '/x?[redacted]'],
      [`/x?t=${token.replaceAll('.', '%2E')}`, '/x?[redacted]'],
      ['/x?q=halo%5frefresh_abc.0.def', '/x?[redacted]'],
      ['/x/%65yJhbGciOi%', '/x/[redacted]'],
      ['/halo_refresh_abc.0.def', '/[redacted]'],
      ['/x?code=123456&otp=1&pin=2&sid=3', '/x?code=[redacted]&otp=[redacted]&pin=[redacted]&sid=[redacted]'],
      [
        '/x?sms_code=1&session=2&PHPSESSID=3&credential=4',
        '/x?sms_code=[redacted]&session=[redacted]&PHPSESSID=3&credential=[redacted]'
      ],
      ['/x?side=1&barcode=2&pinned=3', '/x?side=1&barcode=2&pinned=3'],
      ['/x\u009b31m?q=\u0085', '/x\\u009b31m?q=\\u0085']
    ]
  ) t.equal(loggableUrl(address!), shown)
})

t.test('a header in the log has no secrets either', async t => {
  t.equal(loggableText('HALO/4.2 (Android 16)'), 'HALO/4.2 (Android 16)')
  t.equal(loggableText(`app ${token}`), 'app [redacted]')
  t.equal(loggableText('x halo_refresh_a.0.b y'), 'x [redacted] y')
  t.equal(loggableText('a\u009b2J\u007fb'), 'a\\u009b2J\\u007fb', 'no control reaches a terminal')
})

t.test('no address takes long to be written down', async t => {
  // A minute was measured for the first of these with an expression that goes back.
  for (const part of ['?key', '&key', 'eyJ', '%65yJ', 'token=', '?', '=&', '%', '%2', 'key=eyJ.', '\u0000']) {
    const startedAt = performance.now()
    for (let n = 0; n < 20; n++) loggableUrl(`/x?${part.repeat(16_000 / part.length)}`)
    t.ok(performance.now() - startedAt < 2000, JSON.stringify(part))
    t.ok(loggableUrl(`/${part.repeat(5000)}?${part.repeat(5000)}`).length < 6000)
  }
})

import t from 'tap'
import { loggableUrl } from '../../services/loggable.ts'

t.test('an address in the log has no secrets, and is else what it was', async t => {
  for (const plain of ['/', '/api/v1/videos?limit=20&cursor=eyI', '/api/v1/videos/1', '/a?b=c#d']) t.equal(loggableUrl(plain), plain)
  const token = 'eyJhbGciOiJIUzI1NiJ9.eyJ1c2VyX2lkIjo0Mn0.c2lnbmF0dXJl'
  for (const [address, shown] of [
    [`/x?token=${token}`, '/x?token=[redacted]'],
    [`/x?a=1&access_token=${token}&b=2`, '/x?a=1&access_token=[redacted]&b=2'],
    ['/x?Password=secret', '/x?Password=[redacted]'],
    ['/x?refresh_token=halo_refresh_abc.0.def', '/x?refresh_token=[redacted]'],
    [`/x/${token}/y`, '/x/[redacted]/y'],
    [`/x?q=${token}`, '/x?q=[redacted]'],
    ['/halo_refresh_abc.0.def', '/[redacted]']
  ]) t.equal(loggableUrl(address!), shown)
})

import { createClient, HaloError, type LiveCounters, type Video } from '../index.ts'

/** The page that the service shows at `/` in development: what @halo/client does, to click on. */

const halo = createClient({ baseUrl: location.origin, storage: localStorage, fetch: fetchAndShow, pollMs: 1000 })
const element = <T extends HTMLElement>(selector: string): T => document.querySelector<T>(selector)!
const view = element('#view')

/** Ends what the view that is shown has begun: subscriptions and watching. */
const endings: (() => void)[] = []

type Child = Node | string | false | undefined

/** Creates an element. Text is always text: titles come from other people. */
function create<K extends keyof HTMLElementTagNameMap> (
  name: K,
  { className, ...members }: Partial<HTMLElementTagNameMap[K]> = {},
  ...children: Child[]
): HTMLElementTagNameMap[K] {
  const made = document.createElement(name)
  Object.assign(made, members)
  if (className) made.className = className
  made.append(...children.filter(child => child !== false && child !== undefined))
  return made
}

// Requests, as they happen.

async function fetchAndShow (input: RequestInfo | URL, init: RequestInit = {}): Promise<Response> {
  const path = String(input).slice(`${location.origin}/api/v1`.length)
  const startedAt = performance.now()
  const response = await fetch(input, init)
  const ms = Math.round(performance.now() - startedAt)
  const left = /r=(\d+)/.exec(response.headers.get('ratelimit') ?? '')?.[1] ?? ''
  const line = create(
    'li',
    { title: `${left} requests left` },
    create('span', { className: response.ok ? '' : 'failed' }, String(response.status)),
    create('span', { className: 'path' }, `${init.method ?? 'GET'} ${path}`),
    create('span', { className: 'quiet' }, `${ms} ms`)
  )
  const list = element('#requests')
  list.prepend(line)
  while (list.children.length > 14) list.lastChild!.remove()
  return response
}

// Numbers.

const names = { live_viewers: 'watching', like_count: 'likes', comment_count: 'comments', view_count: 'views' } as const

/** Returns a list of numbers, and a function that shows newer ones. */
function createNumbers (counters: LiveCounters): { list: HTMLElement, update: (counters: LiveCounters) => void } {
  const list = create('dl', { className: 'numbers' })
  const cells = Object.entries(names).map(([name, label]) => {
    const cell = create('dd')
    cell.dataset['counter'] = name
    list.append(create('div', {}, create('dt', {}, label), cell))
    return [name as keyof typeof names, cell] as const
  })
  const update = (next: LiveCounters): void => {
    for (const [name, cell] of cells) {
      const text = next[name] === null ? 'unknown' : next[name].toLocaleString('en')
      if (cell.textContent === text) continue
      if (cell.textContent !== '') cell.className = 'changed'
      setTimeout(() => { cell.className = '' }, 800)
      cell.textContent = text
    }
    list.title = next.counters.stale ? 'Redis is unavailable: these are older numbers' : ''
  }
  update(counters)
  return { list, update }
}

// Views.

async function showList (own: number): Promise<void> {
  const [live, recorded] = await Promise.all([
    halo.videos.list({ live: true, limit: 6 }),
    halo.videos.list({ live: false, limit: 12 })
  ])
  if (!isCurrent(own)) return
  const videos = [...live.videos, ...recorded.videos]
  const grid = create('div', { className: 'grid' })
  for (const video of videos) {
    const { list, update } = createNumbers(video)
    endings.push(halo.subscribe(video.id, update))
    grid.append(create(
      'a',
      { className: 'card', href: `#/videos/${video.id}` },
      badgeOf(video),
      create('h2', { title: video.title }, video.title),
      list
    ))
  }
  view.replaceChildren(
    ...halo.session.user ? [goLiveForm()] : [],
    videos.length > 0 ? grid : element<HTMLTemplateElement>('#empty').content.cloneNode(true)
  )
}

const badgeOf = ({ is_live: isLive }: Video): HTMLElement =>
  create('span', { className: isLive ? 'badge' : 'badge recorded' }, isLive ? 'LIVE' : 'VIDEO')

function goLiveForm (): HTMLElement {
  const title = create('input', {
    name: 'title',
    placeholder: 'Title of your stream',
    required: true,
    maxLength: 255,
    ariaLabel: 'Title of your stream'
  })
  const form = create('form', {}, title, create('button', { className: 'primary' }, 'Go live'))
  form.addEventListener('submit', event => {
    event.preventDefault()
    attempt(async () => {
      const video = await halo.videos.publish({ title: title.value, is_live: true })
      location.hash = `#/videos/${video.id}`
    })
  })
  return form
}

async function showVideo (id: number, own: number): Promise<void> {
  const [video, counters] = await Promise.all([halo.videos.get(id), halo.counters(id)])
  const author = await halo.users.get(video.user_id)
  if (!isCurrent(own)) return
  const { list, update } = createNumbers(video)
  const user = halo.session.user
  let isLiked = counters.liked ?? false
  const likeButton = create('button', { className: 'primary' })
  const showLike = (): void => { likeButton.textContent = isLiked ? 'Take the like back' : 'Like' }
  showLike()
  likeButton.addEventListener('click', () => attempt(async () => {
    update(await (isLiked ? halo.unlike(id) : halo.like(id)))
    isLiked = !isLiked
    showLike()
  }))
  const commentButton = create('button', {}, 'Comment')
  commentButton.addEventListener('click', () => attempt(async () => { update(await halo.comment(id)) }))
  const endButton = create('button', {}, 'End the stream')
  endButton.addEventListener('click', () => attempt(async () => {
    await halo.videos.update(id, { is_live: false })
    await show()
  }))
  endings.push(halo.subscribe(id, update, {
    onEnd: () => { showNotice('This video was deleted.') },
    onError: error => { showError(error) }
  }))
  if (user) endings.push(halo.watch(id, { onCounters: update, onError: showError }))

  view.replaceChildren(create(
    'article',
    { className: 'player' },
    create('div', { className: 'screen' }, video.stream_url || 'no stream address'),
    create(
      'div',
      { className: 'about' },
      badgeOf(video),
      create('h1', {}, video.title),
      create('p', { className: 'quiet' }, `by ${author.display_name}`),
      create('p', {}, video.description),
      list,
      user
        ? create('p', { className: 'buttons' }, likeButton, commentButton, user.id === video.user_id && video.is_live && endButton)
        : create('p', { className: 'buttons quiet' }, 'Log in to like, comment, and be counted as a viewer.')
    )
  ))
}

let views = 0

/** Whether the view that asks is still the one that is wanted: the user may have gone on while it was loaded. */
const isCurrent = (own: number): boolean => own === views

/** Shows the view of the address. */
async function show (): Promise<void> {
  const own = ++views
  for (const end of endings.splice(0)) end()
  const [, id] = /^#\/videos\/(\d+)$/.exec(location.hash) ?? []
  try {
    await (id === undefined ? showList(own) : showVideo(Number(id), own))
  } catch (error) {
    if (!isCurrent(own)) return
    view.replaceChildren()
    showError(error)
  }
}

function showUser (): void {
  const { user } = halo.session
  const button = create('button', user ? {} : { className: 'primary' }, user ? 'Log out' : 'Log in as the demo user')
  button.addEventListener('click', () => attempt(async () => {
    if (user) await halo.logout()
    else await halo.login({ email: 'demo@halo.example', password: 'password123' })
  }))
  const register = create('button', {}, 'Register somebody new')
  register.addEventListener('click', () => attempt(async () => {
    const name = `guest_${Math.random().toString(36).slice(2, 10)}`
    await halo.register({
      email: `${name}@halo.example`,
      username: name,
      password: 'password123',
      display_name: name.replace('_', ' ')
    })
  }))
  element('#user').replaceChildren(
    create('div', { className: 'buttons' }, user ? create('span', {}, user.display_name) : register, button)
  )
}

// Errors.

/** Does what somebody has clicked on, and shows what went wrong. */
function attempt (action: () => Promise<void>): void {
  document.querySelector('.notice.error')?.remove()
  action().catch(showError)
}

function showError (error: unknown): void {
  if (!(error instanceof HaloError)) return showNotice(String(error))
  const hint = error.code === 'invalid_credentials' ? ' The demo user comes with the sample data: npm run seed.' : ''
  showNotice(`${error.message} (${error.code}).${hint}`)
}

function showNotice (text: string): void {
  document.querySelector('.notice.error')?.remove()
  view.prepend(create('p', { className: 'notice error', role: 'alert' }, text))
}

function showProblem (...lines: string[]): void {
  const problem = element('#problem')
  problem.hidden = false
  problem.textContent = lines.join('\n')
}

element('#bad-request').addEventListener('click', async () => {
  const response = await fetchAndShow(`${location.origin}/api/v1/videos?limit=many&colour=red`)
  showProblem(`HTTP ${response.status}`, JSON.stringify(await response.json(), null, 2))
})

element('#use-up').addEventListener('click', async () => {
  // A batch of 100 counters costs as much as 20 requests.
  const ids = Array.from({ length: 100 }, (_, index) => index + 1)
  const answers: { response: Response, text: string }[] = []
  let refused = answers
  while (refused.length === 0 && answers.length < 2000) {
    answers.push(...await Promise.all(Array.from({ length: 100 }, async () => {
      const response = await fetch(`/api/v1/videos/engagement?ids=${ids.join()}`)
      return { response, text: await response.text() }
    })))
    refused = answers.filter(({ response }) => response.status === 429)
  }
  const [first] = refused
  showProblem(
    `${answers.length} requests, ${refused.length} refused`,
    ...first
      ? [`Retry-After: ${first.response.headers.get('retry-after')}`, JSON.stringify(JSON.parse(first.text), null, 2)]
      : []
  )
})

addEventListener('hashchange', show)
let shownUser: number | undefined
halo.session.onChange(user => {
  showUser()
  if (user?.id !== shownUser) show()
  shownUser = user?.id
})
await halo.session.ready()
shownUser = halo.session.user?.id
showUser()
await show()

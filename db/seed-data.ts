/**
 * Sample rows. Row n is a function of n alone, so that a second or larger run continues where the first one ended.
 */

const first = [
  'Ada',
  'Bao',
  'Chidi',
  'Dalia',
  'Emre',
  'Freya',
  'Goran',
  'Hana',
  'Ines',
  'Jonas',
  'Kaya',
  'Lior',
  'Mina',
  'Noor',
  'Ola',
  'Priya',
  'Quinn',
  'Rafa',
  'Sana',
  'Tomás',
  'Uma',
  'Viktor',
  'Wen',
  'Ximena',
  'Yuki',
  'Zoë'
]
const last = [
  'Abara',
  'Bianchi',
  'Castillo',
  'Demir',
  'Eriksen',
  'Farouk',
  'García',
  'Haddad',
  'Ivanova',
  'Jansen',
  'Kowalski',
  'Lindqvist',
  'Müller',
  'Nakamura',
  'Okafor',
  'Petrov',
  'Quispe',
  'Rossi',
  'Sato',
  'Tran',
  'Ueda',
  'Vargas',
  'Weiss',
  'Xu',
  'Yilmaz',
  'Zhang'
]
const bios = [
  '',
  '',
  'Streaming from a small kitchen.',
  'Speedruns, mostly at night 🌙',
  'أحب الموسيقى والتصوير',
  'Maker of synths and noise.',
  'Live coding every Tuesday.',
  'מבשלת ומצלמת'
]
const subjects = [
  'Sunset over the harbour',
  'Speedrun practice',
  'Late night jazz',
  'Bread for beginners',
  'Repairing a 1983 synthesizer',
  'Chess with viewers',
  'Street food of the old town',
  'Bird watching at dawn',
  'Building a tiny database',
  'Morning yoga',
  'Painting in oils',
  'Night train window'
]
const turns = [
  'part {n}',
  'episode {n}',
  'take {n}',
  'the long version',
  'with guests',
  'questions and answers',
  'unedited',
  'from the archive'
]
const unusual = [
  '🎮🔥 Boss rush — no hits 🏆',
  'مباراة مباشرة: الشوط الثاني',
  'שידור חי מהשוק',
  '夜の東京を歩く 🌃',
  '👩🏽‍🍳 Küche & Gespräche',
  'Зимний лес, часть вторая'
]
const descriptions = [
  '',
  'Recorded in one go; thank you for watching.',
  'Chapters are in the comments.\nGear list: two cameras, one microphone.',
  'A quiet hour. 🎧 Headphones recommended.'
]

const day = 86_400_000

export interface SeedUser {
  email: string
  username: string
  displayName: string
  bio: string
  avatarUrl: string
  isAdult: boolean
  createdAt: string
}

export interface SeedVideo {
  /** Which of the seeded users it belongs to, from 0. */
  owner: number
  title: string
  description: string
  thumbnailUrl: string
  streamUrl: string
  isLive: boolean
  isAdultContent: boolean
  viewCount: number
  createdAt: string
}

/** Prefix of the names of seeded users, by which a second run finds them. */
export const seedUsername = (n: number): string => n === 0 ? 'halo_demo' : `halo_${String(n).padStart(6, '0')}`

export const demoLogin = { email: 'demo@halo.example', password: 'password123' }

export function seedUser (n: number, now: number): SeedUser {
  const roll = random(n, 1)
  return {
    email: n === 0 ? demoLogin.email : `halo_${n}@halo.example`,
    username: seedUsername(n),
    displayName: n === 0 ? 'Demo User' : `${pick(first, roll)} ${pick(last, random(n, 2))}`,
    bio: pick(bios, random(n, 3)),
    avatarUrl: roll < 0.6 ? `https://cdn.halo.example/avatars/${n}.webp` : '',
    isAdult: n === 0 || random(n, 4) < 0.8,
    createdAt: new Date(now - 400 * day - Math.floor(roll * 300 * day)).toISOString()
  }
}

export function seedVideo (n: number, users: number, now: number): SeedVideo {
  const isLive = n % 10 === 0
  // Few videos have most of the views.
  const views = isLive ? 0 : Math.floor(10 ** (random(n, 5) * 6))
  // Live videos began within the last hours, recorded ones within the last year.
  const age = isLive ? random(n, 6) * day / 6 : day / 4 + random(n, 6) * 365 * day
  return {
    owner: Math.floor(random(n, 7) ** 2 * users),
    title: titleOf(n),
    description: pick(descriptions, random(n, 9)),
    thumbnailUrl: `https://cdn.halo.example/thumbnails/${n}.webp`,
    streamUrl: `https://stream.halo.example/${isLive ? 'live' : 'vod'}/${n}/master.m3u8`,
    isLive,
    isAdultContent: random(n, 10) < 0.04,
    viewCount: views,
    createdAt: new Date(now - age).toISOString()
  }
}

function titleOf (n: number): string {
  if (n % 97 === 5) {
    return `${pick(subjects, random(n, 8))}: ${'a title as long as a title may be, and then '.repeat(8)}`.slice(0, 255)
  }
  if (n % 9 === 4) return pick(unusual, random(n, 8))
  return `${pick(subjects, random(n, 8))}, ${pick(turns, random(n, 11)).replace('{n}', String(n % 40 + 1))}`
}

/** A number in [0, 1) from a row and a column: mulberry32 by Tommy Ettinger, seeded with both. */
function random (row: number, column: number): number {
  let t = (row * 0x9E3779B1 + column * 0x85EBCA77 + 0x6D2B79F5) | 0
  t = Math.imul(t ^ (t >>> 15), t | 1)
  t ^= t + Math.imul(t ^ (t >>> 7), t | 61)
  return ((t ^ (t >>> 14)) >>> 0) / 4_294_967_296
}

function pick<T> (items: readonly T[], roll: number): T {
  return items[Math.floor(roll * items.length)]!
}

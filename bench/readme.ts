import { readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'

const path = join(import.meta.dirname, '..', 'README.md')

const marks = ['<!-- npm run bench -- --readme -->', '<!-- end of npm run bench -->'] as const

/** Writes what the bench found into the README, between two marks. */
export async function writeReadme (text: string): Promise<void> {
  const readme = await readFile(path, 'utf8')
  const [start, end] = marks.map(mark => readme.indexOf(mark)) as [number, number]
  if (start === -1 || end < start) throw new Error(`README.md has no place between ${marks.join(' and ')}`)
  await writeFile(
    path,
    `${readme.slice(0, start + marks[0].length)}\n\n\`\`\`text\n${text}\n\`\`\`\n\n${readme.slice(end)}`
  )
}

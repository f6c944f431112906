import { readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'

const path = join(import.meta.dirname, '..', 'README.md')

/** Writes what a bench found into the README, between its two marks. */
export async function writeReadme (name: 'bench' | 'bench:traffic', text: string): Promise<void> {
  const marks = [`<!-- npm run ${name} -- --readme -->`, `<!-- end of npm run ${name} -->`] as const
  const readme = await readFile(path, 'utf8')
  const [start, end] = marks.map(mark => readme.indexOf(mark)) as [number, number]
  if (start === -1 || end < start) throw new Error(`README.md has no place between ${marks.join(' and ')}`)
  await writeFile(path, `${readme.slice(0, start + marks[0].length)}\n\n\`\`\`text\n${text}\n\`\`\`\n\n${readme.slice(end)}`)
}

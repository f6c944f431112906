import { readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { textOfCheckout } from './checkout.ts'
import { toText, type Report } from './report.ts'

const root = join(import.meta.dirname, '..')
const marks = ['<!-- npm run bench -- --publish -->', '<!-- end of npm run bench -->'] as const

/** Writes what the bench found into docs/PERFORMANCE.md, and its headlines into README.md. */
export async function publish (report: Report): Promise<void> {
  await write('docs/PERFORMANCE.md', `\`\`\`text\n${toText(report)}\n\`\`\``)
  await write('README.md', headlines(report))
}

/** Replaces what stands between the marks of a file. */
async function write (file: string, text: string): Promise<void> {
  const path = join(root, file)
  const page = await readFile(path, 'utf8')
  const [start, end] = marks.map(mark => page.indexOf(mark)) as [number, number]
  if (start === -1 || end < start) throw new Error(`${file} has no place between ${marks.join(' and ')}`)
  await writeFile(path, `${page.slice(0, start + marks[0].length)}\n\n${text}\n\n${page.slice(end)}`)
}

/** A table of the scenarios that have a limit, in Markdown. */
function headlines ({ head, rows, gates }: Report): string {
  const target = gates.find(({ text }) => text.includes('50,000 requests a second'))
  return [
    '| request | requests/s | times the CPU of the least that it could cost |',
    '|---|---|---|',
    ...rows.flatMap(({ title, rate, limit }) =>
      limit?.cpuTimesLimit === undefined
        ? []
        : [`| ${title} | ${Math.round(rate.median).toLocaleString('en')} | ${limit.cpuTimesLimit.toFixed(2)} |`]
    ),
    '',
    ...target ? [`The target: ${target.text}.`, ''] : [],
    `(${head.machine}; ${head.stores}; ${head.configuration}; ${textOfCheckout(head)})`
  ].join('\n')
}

import { existsSync, readFileSync } from 'node:fs'
import { describe, expect, it } from 'vitest'
import { pages } from '../scripts/benchmarks/page.ts'
import { readBlocks } from '../scripts/docs/blocks.ts'
import { pages as documents } from '../scripts/docs/checkout.ts'
import { withOperations } from '../scripts/operations.ts'

describe('npm run docs:benchmarks', () => {
  it.each(Object.entries(pages))('has made %s from the reports that are there', (file, make) => {
    const current = readFileSync(new URL(`../${file}`, import.meta.url), 'utf8')
    expect(make(current)).toBe(current)
  })
})

it('npm run docs:programs has made the table of operations from the registry', () => {
  const current = readFileSync(new URL('../docs/programs.md', import.meta.url), 'utf8')
  expect(withOperations(current)).toBe(current)
})

describe('code blocks', () => {
  it.each(documents())('of %s say what they are and what they need', (file) => {
    readBlocks(file, readFileSync(new URL(`../${file}`, import.meta.url), 'utf8'))
  })

  it('keep what their info strings say', () => {
    const text = '```sh needs=minutes,smollm2\na\n\nb\n```\n\n```yaml file=x.yaml\nc: 1\n```\n```sh serves=8000\nd\n```'
    expect(readBlocks('page.md', text)).toMatchObject([
      { line: 1, language: 'sh', code: 'a\n\nb', needs: ['minutes', 'smollm2'] },
      { line: 7, language: 'yaml', file: 'x.yaml', code: 'c: 1' },
      { line: 10, language: 'sh', serves: 8000 },
    ])
  })

  it.each([
    ['```\na\n```', 'page.md:1'],
    ['```sh needs=luck\na\n```', 'unknown need luck'],
    ['```sh when=later\na\n```', 'unknown word when'],
    ['text\n```sh\na', 'page.md:2: the code block does not end'],
  ])('%j is refused', (text, message) => {
    expect(() => readBlocks('page.md', text)).toThrow(message)
  })
})

/** As GitHub makes them: lower case, without marks, dashes for spaces. */
const anchors = (markdown: string) =>
  [...withoutCode(markdown).matchAll(/^#+ (.*)$/gm)].map(([, heading]) =>
    heading
      .toLowerCase()
      .replace(/[^\w\- ]/g, '')
      .replaceAll(' ', '-'),
  )

const withoutCode = (markdown: string) => markdown.replace(/^```[\s\S]*?^```/gm, '')

describe('links', () => {
  it.each(documents())('of %s lead to files and headings', (file) => {
    const page = new URL(`../${file}`, import.meta.url)
    const text = withoutCode(readFileSync(page, 'utf8'))
    const broken = [...text.matchAll(/\]\(([^)\s]+)\)/g)]
      .map(([, link]) => link)
      .filter((link) => !/^https?:/.test(link))
      .filter((link) => {
        const target = new URL(link, page)
        if (!existsSync(target)) return true
        return target.hash !== '' && !anchors(readFileSync(target, 'utf8')).includes(target.hash.slice(1))
      })
    expect(broken).toEqual([])
  })
})

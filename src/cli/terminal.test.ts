import { Writable } from 'node:stream'
import pc from 'picocolors'
import { expect, test } from 'vitest'
import { createDisplay } from './display.ts'
import { forTerminal, writeText } from './terminal.ts'

const ESC = '\u001b'
const hostile = [
  `${ESC}]0;title\u0007`, // renames the window
  `${ESC}]52;c;cm0gLXJm\u0007`, // sets the clipboard
  `${ESC}]8;;http://a.example\u0007link${ESC}]8;;\u0007`,
  `${ESC}[2J${ESC}[H`, // clears the screen
  `${ESC}[6n`, // asks for an answer on the input
  `${ESC}[8mhidden`,
  `${ESC}P+q544e${ESC}\\`,
  `${ESC}c`,
  '\u009b2J', // the same in one character
  'a\rb', // writes over what stands there
  'a\b\b\bb',
  '\u0000\u000e\u007f',
  `${ESC}[38;5;8;8m`,
]

test.each(hostile)('%j does nothing to a terminal', (text) => {
  // biome-ignore lint/suspicious/noControlCharactersInRegex: these are what it is about
  expect(forTerminal(text)).not.toMatch(/[\u0000-\u0008\u000b-\u001f\u007f-\u009f]/)
})

test('colours, line breaks and letters of any script stay', () => {
  const colors = pc.createColors(true)
  const text = `${colors.bold(colors.green('a'))}\tb\n${colors.dim('é 北京 😊')}${colors.bgRed('x')}${colors.gray('y')}`
  expect(forTerminal(text)).toBe(text)
  expect(forTerminal('a\r\nb')).toBe('a\nb')
})

/** A stream that keeps what is written. */
function recorder(isTTY: boolean) {
  const written: string[] = []
  const stream = new Writable({
    write(chunk, _, done) {
      written.push(String(chunk))
      done()
    },
  })
  return { written, stream: Object.assign(stream, { isTTY, columns: 80, rows: 24 }) as unknown as NodeJS.WriteStream }
}

test('files and pipes get the text as it is', () => {
  const file = recorder(false)
  writeText(file.stream, hostile.join(''))
  expect(file.written.join('')).toBe(hostile.join(''))
  const terminal = recorder(true)
  writeText(terminal.stream, hostile.join(''))
  expect(terminal.written.join('')).not.toContain(ESC)
})

test('progress shows no control characters of a text', () => {
  const { written, stream } = recorder(true)
  const display = createDisplay(stream, { quiet: false, colors: pc.createColors(false), redraw: 0 })
  display.line('\u009b2Ja')
  display.update({ live: () => '\u009b2Jb', plain: () => '' })
  display.done()
  expect(written.join('')).not.toContain('\u009b')
})

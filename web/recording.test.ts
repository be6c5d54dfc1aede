import { expect, test } from 'vitest'
import { cellsAt, createRecording, levelOf, record, type TokenEvent } from './recording.ts'

const token = (position: number, step: number, text: string): TokenEvent => ({ position, step, text, confidence: 0.9 })
const draw = (cells: ReturnType<typeof cellsAt>) =>
  cells.map(({ kind, text }) => (kind === 'masked' ? '_' : text)).join('')

test('blocks are shown whole, counted from the start of the prompt', () => {
  const recording = { ...createRecording(10, 4), promptTokens: 6 }
  record(recording, [token(1, 0, 'b')])
  record(recording, [token(0, 1, 'a'), token(2, 3, 'c')])
  // The first block has two places left beside the prompt.
  expect([0, 1, 2, 3, 4].map((count) => draw(cellsAt(recording, count)))).toEqual(['__', '_b', 'ab', 'ab', 'abc___'])
})

test('no block reaches beyond the end', () => {
  const recording = { ...createRecording(3, 4), promptTokens: 0 }
  record(recording, [token(0, 0, 'a'), token(3, 0, 'd')])
  expect(draw(cellsAt(recording, 1))).toBe('a__')
})

test('without blocks, tokens appear one by one', () => {
  const recording = createRecording(10)
  record(recording, [token(0, 0, 'a')])
  record(recording, [token(1, 1, 'b')])
  expect([0, 1, 2].map((count) => draw(cellsAt(recording, count)))).toEqual(['', 'a', 'ab'])
})

test('a text that is revised keeps what was given, and shows what a token replaced at first', () => {
  const recording = { ...createRecording(3), layout: [{ text: 'x' }, { text: '', hole: 0 }, { text: 'z' }] }
  record(recording, [token(1, 0, 'y'), { ...token(2, 0, 'p'), edited: true }, { ...token(2, 1, 'q'), edited: true }])
  expect(draw(cellsAt(recording, 0))).toBe('x_z')
  const cells = cellsAt(recording, 2)
  expect(draw(cells)).toBe('xyq')
  expect(cells.map(({ before }) => before)).toEqual([undefined, undefined, 'z'])
  expect(cells[2]!.step).toBe(2)
})

test('levels of confidence', () => {
  expect([0, 0.3, 0.5, 0.8, 0.95, 1].map(levelOf)).toEqual([0, 1, 2, 3, 4, 4])
})

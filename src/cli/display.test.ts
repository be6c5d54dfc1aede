import { PassThrough } from 'node:stream'
import pc from 'picocolors'
import { describe, expect, it } from 'vitest'
import { createTextStream } from '../tokenizer/stream.ts'
import type { Evaluation } from '../train/types.ts'
import { convertDisplay } from './commands/convert.ts'
import { wantsColor } from './context.ts'
import { createDisplay } from './display.ts'
import { liveTraining, plainTraining, type TrainingState } from './training-display.ts'
import { createUnmaskView } from './unmask-view.ts'

const plain = pc.createColors(false)

function capture(isTTY: boolean) {
  const stream = new PassThrough() as unknown as NodeJS.WriteStream
  Object.assign(stream, { isTTY, columns: 60 })
  let text = ''
  stream.on('data', (chunk: Buffer) => {
    text += chunk.toString()
  })
  return { stream, text: () => text }
}

const frame = (text: string) => ({ live: () => text, plain: () => text })

describe('createDisplay', () => {
  it('prints plain lines at intervals where there is no terminal', () => {
    const { stream, text } = capture(false)
    let now = 0
    const display = createDisplay(stream, { quiet: false, colors: plain, interval: 10, now: () => now })
    display.update(frame('a'))
    now = 5000
    display.update(frame('b'))
    display.line('note')
    now = 10_000
    display.update(frame('c'))
    now = 11_000
    display.update(frame('d'))
    display.done()
    expect(text()).toBe('a\nnote\nc\nd\n')
  })

  it('rewrites its lines on a terminal', () => {
    const { stream, text } = capture(true)
    const display = createDisplay(stream, { quiet: false, colors: plain, redraw: 0 })
    display.update(frame('one'))
    display.update(frame('two'))
    display.done()
    expect(text()).toContain('one')
    expect(text()).toContain('two')
    expect(text()).toContain('\u001b[')
  })

  it('says nothing when it is to be quiet', () => {
    const { stream, text } = capture(false)
    const display = createDisplay(stream, { quiet: true, colors: plain })
    display.line('x')
    display.update(frame('y'))
    display.done()
    expect(text()).toBe('')
  })
})

describe('wantsColor', () => {
  it('follows NO_COLOR, FORCE_COLOR and the terminal', () => {
    expect(wantsColor({ isTTY: true }, {})).toBe(true)
    expect(wantsColor({ isTTY: true }, { NO_COLOR: '1' })).toBe(false)
    expect(wantsColor({ isTTY: true }, { NO_COLOR: '' })).toBe(true)
    expect(wantsColor({ isTTY: true }, { TERM: 'dumb' })).toBe(false)
    expect(wantsColor({}, {})).toBe(false)
    expect(wantsColor({}, { FORCE_COLOR: '1' })).toBe(true)
  })
})

describe('training display', () => {
  const state: TrainingState = {
    step: 120,
    tokens: 1_260_000,
    totalTokens: 3_000_000,
    tokensPerSecond: 3210,
    secondsLeft: 542,
    loss: 2.3141,
    metrics: {},
    blockSize: 32,
    validation: { bitsPerByte: 1.213, bitsPerByteStderr: 0.0042 },
    baseBitsPerByte: 1.052,
  }

  it('counts an evaluation that follows the step', () => {
    const { stream, text } = capture(false)
    const display = createDisplay(stream, { quiet: false, colors: plain, now: () => 0 })
    const show = convertDisplay({ display, whenStopped: () => undefined })
    const step = { ...state, type: 'step', stage: 0, blockSize: 8, gradNorm: 1, learningRate: 1 } as const
    const validation = { nll: 1, stderr: 0, bitsPerByte: 1.2, bitsPerByteStderr: 0.01 } as Evaluation
    const evaluated = { type: 'validation', tokens: 0, blockSize: 8 } as const
    show({ ...evaluated, step: 0, validation: { ...validation, bitsPerByte: 3.4 } })
    show({ ...step, step: 1 })
    show({ ...step, step: 2 })
    show({ ...evaluated, step: 2, validation })
    display.done()
    expect(text().trim().split('\n').at(-1)).toMatch(/step 2 .*NELBO 1.200/)
  })

  it('shows progress, speed, loss, NELBO, block size and time left', () => {
    expect(plainTraining(state)).toBe(
      '42 %  step 120  1.26M/3.00M tokens  3.21k tokens/s  loss 2.314  block 32  NELBO 1.213 ± 0.004 bits/byte (AR base 1.052)  9:02 left',
    )
    expect(liveTraining(state, 100, plain)).toContain(' 42 %  9:02 left\n')
  })

  it('shows how busy the busiest expert is', () => {
    const metrics = { expert_load_max: [1.2, 2.71] }
    expect(plainTraining({ ...state, metrics })).toContain('busiest expert 2.7 x the mean')
  })

  it('shows the loss on text apart from that on padding', () => {
    const metrics = { text_loss: 2.5, padding_loss: 0.12 }
    expect(plainTraining({ ...state, metrics })).toContain('loss on text 2.500, on padding 0.120')
  })

  it('fits any width', () => {
    for (const width of [30, 45, 60, 80, 200]) {
      for (const line of liveTraining(state, width, plain).split('\n')) expect(line.length).toBeLessThanOrEqual(width)
    }
  })

  it('leaves out what a causal model does not have', () => {
    expect(plainTraining({ ...state, blockSize: undefined, baseBitsPerByte: undefined })).toContain(
      'loss 2.314  1.213 ± 0.004 bits/byte',
    )
  })
})

describe('unmask view', () => {
  // Ids are bytes of UTF-8, so that a character may need several tokens.
  const tokenizer = {
    ...{ textIsBytes: true, dropsSpace: () => false, decode: () => '', idToToken: () => undefined },
    bytesOf: (id: number) => (id < 256 ? Uint8Array.of(id) : undefined),
  }
  const view = () => createUnmaskView(() => createTextStream(tokenizer))
  const token = (index: number, id: number, confidence = 1) => ({ index, id, confidence })

  it('shows masks until they are committed, in any order', () => {
    const shown = view()
    shown.open(4)
    expect(shown.render(plain)).toBe('░░░░')
    shown.commit([token(2, 0x63), token(0, 0x61)])
    expect(shown.render(plain)).toBe('a░c░')
    shown.commit([token(1, 0x62), token(3, 0x64)])
    expect(shown.render(plain)).toBe('abcd')
  })

  it('joins tokens that are parts of one character', () => {
    const shown = view()
    shown.commit([token(0, 0xc3), token(1, 0xa9), token(2, 0x21)])
    expect(shown.render(plain)).toBe('é!')
    // What never becomes whole is seen, too.
    const broken = view()
    broken.commit([token(0, 0x61), token(1, 0xc3), token(3, 0x21)])
    broken.open(4)
    expect(broken.render(plain)).toBe('a\ufffd░!')
  })

  it('fills the cells of tokens without text', () => {
    const shown = view()
    shown.commit([token(0, 0x61), token(1, 256), token(2, 256)])
    expect(shown.render(plain)).toBe('a··')
  })

  it('highlights the newest tokens by their confidence', () => {
    const colors = pc.createColors(true)
    const shown = view()
    shown.commit([token(0, 0x61, 0.95)])
    shown.commit([token(1, 0x62, 0.3)])
    expect(shown.render(colors)).toBe(`a${colors.red(colors.bold('b'))}`)
  })
})

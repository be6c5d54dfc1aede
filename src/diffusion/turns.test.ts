import { describe, expect, it } from 'vitest'
import { packedBatch } from '../../test/packed-batch.ts'
import type { Batch } from '../data/types.ts'
import { lossPositions } from './loss-positions.ts'
import type { Noise } from './noise.ts'
import { scoredTurns, separateTurns, turnsOf } from './turns.ts'

/** A row from a picture: `u` is a prompt's token, `a` one of an answer, `e` padding; documents begin at `|`, a tail is `-`. */
function row(picture: string): Batch {
  const tokens: { kind: string; document: number; position: number }[] = []
  let document = -1
  let position = 0
  for (const kind of picture.replaceAll(' ', '')) {
    if (kind === '|') {
      document++
      position = 0
    } else if (kind === '-') tokens.push({ kind, document: -1, position: 0 })
    else tokens.push({ kind, document, position: position++ })
  }
  const flags = (kinds: string) => Uint8Array.from(tokens, ({ kind }) => (kinds.includes(kind) ? 1 : 0))
  return {
    rows: 1,
    length: tokens.length,
    ids: Int32Array.from(tokens.keys()),
    documents: Int32Array.from(tokens, (token) => token.document),
    positions: Int32Array.from(tokens, (token) => token.position),
    maskable: flags('ae'),
    padding: flags('e'),
    documentIds: [],
    tokens: tokens.length,
    bytes: 0,
  }
}

/** All that may be masked is. */
const noiseOf = ({ maskable }: Batch, copies = 1): Noise => ({
  copies,
  masked: Uint8Array.from({ length: copies * maskable.length }, (_, i) => maskable[i % maskable.length]!),
  t: new Float32Array(copies * maskable.length).fill(1),
  elboWeight: undefined,
})

/** `M` a mask with loss, `m` one without, `.` a token that is seen. */
function picture(noise: Noise, batch: Batch, blockSize: number): string[] {
  const { length } = batch
  const scored = new Set(lossPositions(noise, batch, batch.maskable, 'mean').tokens)
  return Array.from({ length: noise.copies }, (_, copy) =>
    Array.from({ length }, (_, i) => {
      const at = copy * length + i
      const mark = noise.masked[at] === 0 ? '.' : scored.has(at) ? 'M' : 'm'
      return i > 0 && i % blockSize === 0 ? ` ${mark}` : mark
    }).join(''),
  )
}

const separated = (batch: Batch, blockSize: number, rule: 'apart' | 'first' | 'together', copies = 1) =>
  picture(separateTurns(noiseOf(batch, copies), batch, blockSize, rule), batch, blockSize)

describe('turnsOf', () => {
  it('counts answers that have ended, from the start of each document', () => {
    const { maskable, positions } = row('|uuaau uaae|ua--')
    expect([...turnsOf({ maskable, positions })]).toEqual([0, 0, 0, 0, 1, 1, 1, 1, 1, 0, 0, 0, 0])
  })
})

describe('separateTurns', () => {
  const chat = row('|uuaa auua aaee')

  it('gives each turn of a block a copy of its own, without what comes behind it', () => {
    expect(separated(chat, 4, 'apart')).toEqual(['..MM Mmmm MMMM', '.... ...M ....'])
  })

  it('can train the first turn of a block alone', () => {
    expect(separated(chat, 4, 'first')).toEqual(['..MM Mmmm MMMM'])
  })

  it('can leave the turns together', () => {
    expect(separated(chat, 4, 'together')).toEqual(['..MM M..M MMMM'])
  })

  it('hides the next prompt where only that shares the block', () => {
    expect(separated(row('|uaau uaaa'), 4, 'first')).toEqual(['.MMm .MMM'])
    expect(separated(row('|uaau uaaa'), 4, 'apart')).toEqual(['.MMm .MMM', '.... ....'])
  })

  it('makes as many copies as a block has turns, in blocks of whole documents too', () => {
    expect(separated(row('|uauauaee|uuaa----'), 8, 'apart')).toEqual([
      '.Mmmmmmm ..MM....',
      '...Mmmmm ........',
      '.....MMM ........',
    ])
  })

  it('keeps copies and their masks in order', () => {
    const noise = noiseOf(chat, 2)
    noise.masked.fill(0, 12, 20)
    noise.t.fill(0.25, 12)
    const apart = separateTurns(noise, chat, 4, 'apart')
    expect(picture(apart, chat, 4)).toEqual(['..MM Mmmm MMMM', '.... .mmm MMMM', '.... ...M ....', '.... .... ....'])
    expect([...apart.t]).toEqual([...noise.t, ...noise.t])
  })

  it('changes nothing where turns do not share blocks', () => {
    for (const batch of [row('|uuaa uuaa|uuua aaee'), packedBatch(9)]) {
      const noise = noiseOf(batch)
      expect(separateTurns(noise, batch, 4, 'apart')).toBe(noise)
    }
  })

  it('says which tokens carry loss in some copy', () => {
    const scored = (rule: 'apart' | 'first') =>
      scoredTurns(chat.maskable, separateTurns(noiseOf(chat, 2), chat, 4, rule)).join('')
    expect(scored('apart')).toBe('001110011111')
    expect(scored('first')).toBe('001110001111')
  })
})

import { describe, expect, it } from 'vitest'
import { isJsonObject, scoreJson } from './json-score.ts'

const one = (text: string, reference: string) => {
  const { exact, precision, recall, f1 } = scoreJson([{ text, reference }])
  return [exact, precision, recall, f1].map(({ value }) => value)
}

describe('scoreJson', () => {
  it.each([
    // text, reference, [exact, precision, recall, F1]
    ['{"a":1,"b":"x"}', '{"a":1,"b":"x"}', [1, 1, 1, 1]],
    ['{ "b": "x", "a": 1.0 }', '{"a":1,"b":"x"}', [1, 1, 1, 1]],
    ['{"a":1,"b":"y"}', '{"a":1,"b":"x"}', [0, 1 / 2, 1 / 2, 1 / 2]],
    ['{"a":1}', '{"a":1,"b":"x"}', [0, 1, 1 / 2, 2 / 3]],
    ['{"a":1,"b":"x","c":2}', '{"a":1,"b":"x","c":null}', [0, 2 / 3, 1, 4 / 5]],
    ['{"a":1,"b":null}', '{"a":1,"b":null}', [1, 1, 1, 1]],
    ['{"a":1}', '{"a":1,"b":null}', [0, 1, 1, 1]],
    ['{"a":"1"}', '{"a":1}', [0, 0, 0, 0]],
    ['{"a":{"b":[1,2]}}', '{"a":{"b":[1,3]}}', [0, 1 / 2, 1 / 2, 1 / 2]],
    ['{"a":[]}', '{"a":[]}', [1, 1, 1, 1]],
    ['{"__proto__":1}', '{"__proto__":1}', [1, 1, 1, 1]],
  ])('of %s against %s', (text, reference, expected) => {
    one(text, reference).forEach((value, i) => {
      expect(value).toBeCloseTo(expected[i]!)
    })
  })

  it('gives a text that is no JSON no field, and its reference all of its own', () => {
    const { exact, precision, recall, f1 } = scoreJson([
      { text: '{"a":1', reference: '{"a":1,"b":2}' },
      { text: '{"a":1,"b":3}', reference: '{"a":1,"b":2}' },
    ])
    expect(exact.value).toBe(0)
    expect(precision.value).toBeCloseTo(1 / 2)
    expect(recall.value).toBeCloseTo(1 / 4)
    expect(f1.value).toBeCloseTo(1 / 3)
    expect(one('', '{"a":1}')).toEqual([0, Number.NaN, 0, 0])
  })

  it('sums fields over texts before it divides', () => {
    const { recall } = scoreJson([
      { text: '{"a":1}', reference: '{"a":1}' },
      { text: '{"a":0,"b":0,"c":0}', reference: '{"a":1,"b":1,"c":1}' },
    ])
    expect(recall.value).toBeCloseTo(1 / 4)
  })

  it('refuses references that are no JSON', () => {
    expect(() => scoreJson([{ text: '{}', reference: 'x' }])).toThrow(SyntaxError)
  })
})

it.each([
  ['{"a":1}', true],
  ['{}', true],
  ['[1]', false],
  ['null', false],
  ['3', false],
  ['words', false],
])('isJsonObject(%s) is %s', (text, expected) => {
  expect(isJsonObject(text)).toBe(expected)
})

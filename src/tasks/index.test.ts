import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { check, splitOf, TASK_NAMES, taskRow, taskRows } from './index.ts'

const anyTask = fc.constantFrom(...TASK_NAMES)
const anySeed = fc.integer({ min: 0, max: 2 ** 40 })
const anyIndex = fc.integer({ min: 0, max: 2 ** 40 })
const anySplit = fc.constantFrom('train' as const, 'test' as const)

describe('taskRow', () => {
  it('gives rows on the side that was asked for, whose completion passes the check', () => {
    fc.assert(
      fc.property(anyTask, anySeed, anyIndex, anySplit, (task, seed, index, split) => {
        const row = taskRow(task, seed, index, split)
        expect(splitOf(row.prompt)).toBe(split)
        expect(check(task, row.prompt, row.completion)).toBe(true)
        expect(taskRow(task, seed, index, split)).toEqual(row)
      }),
    )
  })

  it('accepts nothing but the answer', () => {
    fc.assert(
      fc.property(anyTask, anySeed, fc.string({ unit: 'grapheme-ascii' }), (task, seed, text) => {
        const { prompt, completion } = taskRow(task, seed, 0)
        expect(check(task, prompt, text)).toBe(text === completion)
        expect(check(task, prompt, `${completion} `)).toBe(false)
        expect(check(task, prompt, completion.slice(0, -1))).toBe(false)
      }),
    )
  })

  it('holds out about one prompt in sixteen', () => {
    const prompts = new Set<string>()
    for (const task of TASK_NAMES) {
      for (let i = 0; i < 1000; i++) prompts.add(taskRow(task, 1, i, i % 16 === 0 ? 'test' : 'train').prompt)
    }
    // The side is a matter of the text alone: count it over texts that no generator filtered.
    const heldOut = Array.from({ length: 16_000 }, (_, i) => splitOf(`sort(${i.toString(36)})=`))
    expect(heldOut.filter((split) => split === 'test').length).toBeGreaterThan(850)
    expect(heldOut.filter((split) => split === 'test').length).toBeLessThan(1150)
    expect(prompts.size).toBeGreaterThan(3900)
  })

  it('stays what it was: these rows are what the embedded model was trained and measured on', () => {
    expect(TASK_NAMES.map((task) => taskRow(task, 0, 0, 'test'))).toMatchInlineSnapshot(`
      [
        {
          "completion": "0696924",
          "prompt": "add(000173,696751)=",
          "task": "add",
        },
        {
          "completion": "01244567899",
          "prompt": "sort(96297544108)=",
          "task": "sort",
        },
        {
          "completion": "zqbeqmqaxgtaz",
          "prompt": "reverse(zatgxaqmqebqz)=",
          "task": "reverse",
        },
        {
          "completion": "a2 b1 c3 d1 e1",
          "prompt": "count(acdcabec)=",
          "task": "count",
        },
      ]
    `)
  })
})

describe('taskRows', () => {
  it('cycles through the tasks and can start anywhere', () => {
    const all = [...taskRows({ seed: 3, count: 10 })]
    expect(all.slice(0, TASK_NAMES.length).map((row) => row.task)).toEqual(TASK_NAMES)
    expect([...taskRows({ seed: 3, count: 4, start: 6 })]).toEqual(all.slice(6))
    expect([...taskRows({ seed: 3, count: 3, names: ['sort'] })].map((row) => row.task)).toEqual([
      'sort',
      'sort',
      'sort',
    ])
  })
})

describe('check', () => {
  it.each([
    ['add', 'add(000407,081536)=', '0081943'],
    ['add', 'add(999999,000001)=', '1000000'],
    ['sort', 'sort(8304117)=', '0113478'],
    ['reverse', 'reverse(qbzkbae)=', 'eabkzbq'],
    ['count', 'count(deaddee)=', 'a1 d3 e3'],
  ] as const)('knows %s', (task, prompt, answer) => {
    expect(check(task, prompt, answer)).toBe(true)
    expect(check(task, prompt, `${answer}0`)).toBe(false)
  })

  it('refuses what is not a prompt of the task', () => {
    expect(() => check('add', 'sort(abc)=', 'abc')).toThrow('not a prompt of the task add')
  })
})

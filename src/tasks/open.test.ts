import * as fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { UserError } from '../core/types.ts'
import { instructionCheck, instructionNames, looseForms } from './instructions.ts'
import { openTask, parseTask } from './open.ts'
import type { Ran } from './sandbox.ts'
import type { Task } from './task.ts'

const lines = (...rows: unknown[]) => rows.map((row) => JSON.stringify(row)).join('\n')

/** Opens a task of files that are given as texts. Programs pass that hold "return 3". */
async function open(
  spec: string,
  files: Record<string, string> = {},
  { template = 'none' as 'none' | 'chat' } = {},
): Promise<Task> {
  const opened = await openTask(parseTask(spec), {
    template,
    seed: 1,
    seededRows: 5,
    read: async (path) => files[path]!,
    sandbox: async () => async (program) =>
      ({ status: program.includes('return 3') ? 'passed' : 'failed', detail: program }) satisfies Ran,
  })
  return opened.task
}

const gsm8k = lines(
  { question: 'Two ducks lay 1,000 eggs each. How many?', answer: '2*1000=<<2*1000=2000>>2000 eggs\n#### 2,000' },
  { question: 'One and one?', answer: '1+1=2\n#### 2' },
)

describe('gsm8k', () => {
  it('scores by both filters', async () => {
    const task = await open('gsm8k=g', { g: gsm8k })
    const score = async (answer: string) => (await task.score(task.rows[0], answer)).scores
    expect(await score(' 2 times 1000. The answer is 2000.')).toEqual({ 'flexible-extract': 1, 'strict-match': 1 })
    expect(await score('It is $2,000.')).toEqual({ 'flexible-extract': 1, 'strict-match': 0 })
    expect(await score('The answer is 2000. Or 3')).toEqual({ 'flexible-extract': 0, 'strict-match': 1 })
    expect(await score('The answer is 2000')).toEqual({ 'flexible-extract': 1, 'strict-match': 0 })
    expect(await score('no idea')).toEqual({ 'flexible-extract': 0, 'strict-match': 0 })
    expect(await task.reward(task.rows[0], '2000')).toBe(1)
  })

  it('writes prompts with and without examples', async () => {
    const examples = lines(
      { question: 'A?', answer: 'One <<1=1>>1\nand\n#### 3' },
      { question: 'B?', target: 'So. The answer is 4.' },
    )
    const task = await open('gsm8k=g?shots=2&examples=e', { g: gsm8k, e: examples })
    expect(task.prompt(task.rows[1], (text) => text.toUpperCase())).toBe(
      'Q: A?\nA: One 1 and The answer is 3.\n\nQ: B?\nA: So. The answer is 4.\n\nQ: ONE AND ONE?\nA:',
    )
    await expect(open('gsm8k=g?shots=3&examples=e', { g: gsm8k, e: examples })).rejects.toThrow(/2 examples; 3 shots/)
    await expect(open('gsm8k=g?shots=3', { g: gsm8k })).rejects.toThrow(/need a file of examples/)
  })
})

const humaneval = lines({
  task_id: 'HumanEval/0',
  prompt: 'def three():\n    """Three."""\n',
  test: 'def check(f):\n    assert f() == 3\n',
  entry_point: 'three',
})

it('humaneval runs prompt, answer and tests', async () => {
  const plain = await open('humaneval=h', { h: humaneval })
  expect(plain.prompt(plain.rows[0])).toBe('def three():\n    """Three."""\n')
  expect((await plain.score(plain.rows[0], '    return 3')).scores).toEqual({ 'pass@1': 1 })
  const { detail } = await plain.score(plain.rows[0], '    return 4')
  expect(detail).toBe(
    'failed: def three():\n    """Three."""\n    return 4\ndef check(f):\n    assert f() == 3\n\ncheck(three)',
  )
  const chat = await open('humaneval=h', { h: humaneval }, { template: 'chat' })
  expect(chat.answerPrefix?.(chat.rows[0])).toContain('```python\ndef three')
  expect((await chat.score(chat.rows[0], '    return 4\n```\nIt does return 3')).scores).toEqual({ 'pass@1': 0 })
})

describe('instructions', () => {
  const follows = (name: string, given: Record<string, unknown>, text: string) => instructionCheck(name, given)(text)
  it('are checked', () => {
    expect(follows('punctuation:no_comma', {}, 'a b')).toBe(true)
    expect(follows('punctuation:no_comma', {}, 'a, b')).toBe(false)
    expect(follows('length_constraints:number_words', { num_words: 3, relation: 'at least' }, "it's so")).toBe(true)
    expect(follows('detectable_format:number_bullet_lists', { num_bullets: 2 }, '* a\n- b')).toBe(true)
    expect(follows('detectable_format:json_format', {}, '```json\n{"a": 1}\n```')).toBe(true)
    expect(follows('combination:two_responses', {}, 'a\n******\nb')).toBe(true)
    expect(follows('combination:two_responses', {}, 'a\n******\na')).toBe(false)
    expect(follows('startend:quotation', {}, '"')).toBe(false)
    expect(follows('change_case:english_capital', {}, '12')).toBe(false)
    const paragraph = { num_paragraphs: 2, nth_paragraph: 2, first_word: 'well' }
    expect(follows('length_constraints:nth_paragraph_first_word', paragraph, 'a\n\n"Well, b')).toBe(true)
  })

  it('never hold of an empty answer, and take any text', () => {
    fc.assert(
      fc.property(fc.string(), (text) => {
        for (const name of instructionNames) {
          const given = {
            ...{
              keywords: ['a'],
              keyword: 'a',
              frequency: 1,
              relation: 'at least',
              forbidden_words: ['a'],
              letter: 'a',
            },
            ...{ let_frequency: 1, let_relation: 'less than', num_words: 1, num_paragraphs: 1, nth_paragraph: 1 },
            ...{ first_word: 'a', num_placeholders: 1, postscript_marker: 'P.S.', num_bullets: 1, num_highlights: 1 },
            ...{ section_spliter: 'SECTION', num_sections: 1, prompt_to_repeat: 'a', end_phrase: 'a' },
          }
          expect(typeof follows(name, given, text)).toBe('boolean')
          expect(follows(name, given, ' ')).toBe(false)
        }
      }),
      { numRuns: 100 },
    )
  })

  it('hold strictly and loosely, and leave out what cannot be checked', async () => {
    const rows = lines(
      {
        ...{ key: 1, prompt: 'p', instruction_id_list: ['startend:end_checker', 'punctuation:no_comma'] },
        kwargs: [{ end_phrase: 'Done.', num: null }, {}],
      },
      { key: 2, prompt: 'p', instruction_id_list: ['language:response_language'], kwargs: [{ language: 'de' }] },
    )
    const task = await open('ifeval=i', { i: rows })
    expect(task.rows).toHaveLength(1)
    expect(task.settings['rows left out']).toBe(1)
    expect((await task.score(task.rows[0], 'Well. Done.\nBye')).scores).toEqual({
      'prompt strict': 0,
      'prompt loose': 1,
      'instruction strict': 0.5,
      'instruction loose': 1,
    })
    expect(looseForms('a*\nb')).toEqual(['a*\nb', 'a\nb', 'b', 'b', 'a*', 'a', '', ''])
  })
})

describe('own rows', () => {
  const score = async (row: object, answer: string) => {
    const task = await open('mine=m', { m: lines({ prompt: 'p', ...row }) })
    return (await task.score(task.rows[0], answer)).scores.right
  }
  it('are scored in every way', async () => {
    expect(await score({ exact: 'Paris' }, ' Paris\n')).toBe(1)
    expect(await score({ exact: 'Paris' }, 'In Paris')).toBe(0)
    expect(await score({ number: 1200.5 }, 'It is 7, no: $1,200.50.')).toBe(1)
    expect(await score({ number: 3 }, 'none')).toBe(0)
    expect(await score({ regex: '(?i)^par' }, 'Paris')).toBe(1)
    const schema = { type: 'object', properties: { a: { type: 'string', pattern: '^x+$' } }, required: ['a'] }
    expect(await score({ schema }, 'Here:\n```json\n{"a": "xx"}\n```')).toBe(1)
    expect(await score({ schema }, '{"a": "y"}')).toBe(0)
    expect(await score({ schema }, '{')).toBe(0)
    expect(await score({ tests: 'assert f()' }, '```python\ndef f(): return 3\n```')).toBe(1)
    expect(await score({ tests: 'assert f()' }, 'def f(): pass')).toBe(0)
    expect(await score({ choices: ['a', 'b'], right: 1 }, '1')).toBe(1)
  })

  it('match patterns in linear time', async () => {
    expect(await score({ regex: '^(a+)+$' }, `${'a'.repeat(50_000)}b`)).toBe(0)
  })

  it.each([
    [{}, /m:1: .*needs one of exact, number/],
    [{ exact: 'a', number: 1 }, /it has exact and number/],
    [{ number: 'a' }, /m:1: number: expected a number/],
    [{ regex: '(?=a)' }, /row 1: .*RE2/],
    [{ choices: ['a', 'b'], right: 2 }, /right must be the number of a choice/],
    [{ choices: ['a', 'a'], right: 1 }, /two choices are the same/],
    [{ schema: { type: 'text' } }, /row 1: /],
    [{ exact: 'a', other: 1 }, /other: unknown key/],
  ])('refuse %j', async (row, message) => {
    await expect(open('mine=m', { m: lines({ prompt: 'p', ...row }) })).rejects.toThrow(message)
  })
})

it('refuses what is no task', async () => {
  for (const [spec, message] of [
    ['add=file', /has no file/],
    ['gsm8k', /needs a file/],
    ['gsm8k=g?shot=1', /unknown setting shot/],
    ['gsm8k=g?rows=x', /whole number/],
    ['humaneval=h?shots=1', /no setting shots/],
    ['=g', /a task is NAME/],
  ] as const)
    await expect((async () => open(spec, { g: gsm8k, h: humaneval }))(), spec).rejects.toThrow(message)
  const twice = lines({ id: 1, prompt: 'a', exact: 'b' }, { id: 1, prompt: 'a', exact: 'b' })
  await expect(open('mine=m', { m: twice })).rejects.toThrow(/two rows are named "1"/)
  await expect(open('mine=m', { m: '' })).rejects.toThrow(/has no rows/)
  await expect(open('mine=m', { m: '{"prompt":"a","exact":"b"}\n{' })).rejects.toThrow(/m:2: not a line of JSON/)
})

it('takes any bytes as a file of rows, or says what is wrong', async () => {
  await fc.assert(
    fc.asyncProperty(
      fc.constantFrom('gsm8k', 'humaneval', 'ifeval', 'mine'),
      fc.oneof(
        fc.string(),
        fc.json(),
        fc.array(fc.json()).map((all) => all.join('\n')),
      ),
      async (name, text) => {
        try {
          await open(`${name}=f`, { f: text })
        } catch (error) {
          expect(error).toBeInstanceOf(UserError)
        }
      },
    ),
    { numRuns: 300 },
  )
})

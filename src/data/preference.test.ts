// Rows of preference data in TRL's formats, and what is wrong with others.
import { describe, expect, test } from 'vitest'
import { preferenceColumns, readPreference } from './preference.ts'

const names = preferenceColumns({})
const read = (row: unknown) => readPreference(row, names)
const user = { role: 'user', content: 'Which colour has the sky?' }
const blue = { role: 'assistant', content: 'Blue.' }
const green = { role: 'assistant', content: 'Green.' }
const system = { role: 'system', content: 'Be brief.' }

describe('texts', () => {
  test('with their prompt', () => {
    expect(read({ prompt: 'The sky is', chosen: ' blue.', rejected: ' green.' })).toEqual({
      chosen: { kind: 'prompt', prompt: 'The sky is', completion: ' blue.' },
      rejected: { kind: 'prompt', prompt: 'The sky is', completion: ' green.' },
      prompt: ['The sky is'],
    })
  })

  test.each([
    ['The sky is blue.', 'The sky is green.', 'The sky is', ' blue.', ' green.'],
    // Words that begin alike are not torn.
    ['The sky is blue.', 'The sky is black.', 'The sky is', ' blue.', ' black.'],
    ['Q: 2+2?\nA: 4', 'Q: 2+2?\nA: 5', 'Q: 2+2?\nA:', ' 4', ' 5'],
  ])('without: %s, %s', (chosen, rejected, prompt, better, worse) => {
    expect(read({ chosen, rejected })).toEqual({
      chosen: { kind: 'prompt', prompt, completion: better },
      rejected: { kind: 'prompt', prompt, completion: worse },
      prompt: [prompt],
    })
  })
})

describe('messages', () => {
  const expected = {
    chosen: { kind: 'messages', messages: [user, blue], learnedFrom: 1 },
    rejected: { kind: 'messages', messages: [user, green], learnedFrom: 1 },
    prompt: [user.role, user.content],
  }
  test.each([
    ['behind those of the prompt', { prompt: [user], chosen: [blue], rejected: [green] }],
    ['behind a prompt that is a text', { prompt: user.content, chosen: [blue], rejected: [green] }],
    ['with the prompt in them', { chosen: [user, blue], rejected: [user, green] }],
    ['that repeat the prompt', { prompt: [user], chosen: [user, blue], rejected: [user, green] }],
    ['that repeat a prompt that is a text', { prompt: user.content, chosen: [user, blue], rejected: [user, green] }],
  ])('%s', (_, row) => {
    expect(read(row)).toEqual(expected)
  })

  test('behind a system message that the prompt does not have', () => {
    const row = { prompt: user.content, chosen: [system, user, blue], rejected: [system, user, green] }
    expect(read(row)).toMatchObject({ chosen: { messages: [system, user, blue], learnedFrom: 2 } })
  })

  test('of several turns, which part in an answer', () => {
    const more = { role: 'user', content: 'Sure?' }
    const row = { chosen: [user, blue, more, blue], rejected: [user, green, more, blue] }
    expect(read(row)).toMatchObject({ chosen: { learnedFrom: 1 }, rejected: { learnedFrom: 1 } })
  })
})

describe('what is wrong', () => {
  const other = { role: 'user', content: 'Which colour has grass?' }
  test.each([
    ['prompts that differ', { chosen: [user, blue], rejected: [other, green] }, 'the prompts differ: message 0'],
    [
      'another prompt',
      { prompt: [other], chosen: [user, blue], rejected: [user, green] },
      'the prompts differ: "chosen"',
    ],
    [
      'another text',
      { prompt: 'What?', chosen: [user, blue], rejected: [user, green] },
      'the prompts differ: "chosen"',
    ],
    ['nothing in common', { chosen: 'One.', rejected: 'Two.' }, 'the prompts differ'],
    ['no answer', { chosen: [user, blue], rejected: [user] }, '"rejected" has no answer'],
    ['the same answers', { prompt: 'a', chosen: 'b', rejected: 'b' }, 'are the same'],
    ['the same chats', { chosen: [user, blue], rejected: [user, blue] }, 'are the same'],
    ['an empty answer', { prompt: 'a', chosen: '', rejected: 'b' }, '"chosen" is empty'],
    ['no rejected answer', { prompt: 'a', chosen: 'b' }, 'no "rejected"; the row has prompt, chosen'],
    ['a number', { prompt: 'a', chosen: 1, rejected: 'b' }, '"chosen" is neither a text nor a list'],
    ['no object', 3, 'not a JSON object'],
  ])('%s', (_, row, message) => {
    expect(read(row)).toContain(message)
  })
})

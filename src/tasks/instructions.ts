// Instructions whose following can be checked: the kinds of IFEval (Zhou et al. 2023) by their names and arguments, so that its
// data can be used. Each agrees with lm-evaluation-harness 0.4.13 (scripts/check_tasks.py), but for those that need a
// tokenizer of English sentences or a detector of languages: rows with them are left out.
import * as z from 'zod'
import { UserError } from '../core/types.ts'
import { compilePattern } from './pattern.ts'
import { checkNames, parseRows, type Source } from './rows.ts'
import { defineTask, type Task } from './task.ts'

type Check = (text: string) => boolean

const count = z.int().min(0).max(100_000)
const word = z.string().min(1)
const relation = z.enum(['less than', 'at least'])
const compare = (found: number, limit: number, how: z.output<typeof relation>) =>
  how === 'less than' ? found < limit : found >= limit

/** An instruction: its arguments, and from these the check of an answer. */
function instruction<S extends z.ZodObject>(shape: S, make: (given: z.output<S>) => Check) {
  return { shape, make: make as (given: unknown) => Check }
}

const matches = (text: string, pattern: RegExp): string[] => text.match(pattern) ?? []
const wordsOf = (text: string): string[] => matches(text, /[\p{L}\p{N}_]+/gu)
const isCased = (text: string): boolean => text.toLowerCase() !== text.toUpperCase()

const instructions = {
  'keywords:existence': instruction(z.object({ keywords: z.array(word).min(1) }), ({ keywords }) => {
    const patterns = keywords.map((keyword) => compilePattern(keyword, { ignoreCase: true }))
    return (text) => patterns.every((pattern) => pattern.test(text))
  }),
  'keywords:frequency': instruction(z.object({ keyword: word, frequency: count, relation }), (given) => {
    const pattern = compilePattern(given.keyword.trim(), { ignoreCase: true })
    return (text) => compare(pattern.count(text), given.frequency, given.relation)
  }),
  'keywords:forbidden_words': instruction(z.object({ forbidden_words: z.array(word).min(1) }), (given) => {
    const patterns = given.forbidden_words.map((each) => compilePattern(`\\b${each}\\b`, { ignoreCase: true }))
    return (text) => !patterns.some((pattern) => pattern.test(text))
  }),
  'keywords:letter_frequency': instruction(
    z.object({ letter: z.string().min(1), let_frequency: count, let_relation: relation }),
    ({ letter, let_frequency, let_relation }) =>
      (text) =>
        compare(text.toLowerCase().split(letter.toLowerCase()).length - 1, let_frequency, let_relation),
  ),
  'length_constraints:number_words': instruction(
    z.object({ num_words: count, relation }),
    ({ num_words, relation }) =>
      (text) =>
        compare(wordsOf(text).length, num_words, relation),
  ),
  'length_constraints:number_paragraphs': instruction(z.object({ num_paragraphs: count }), (given) => (text) => {
    const parts = text.split(/\s?\*\*\*\s?/)
    const isInner = (i: number) => i > 0 && i < parts.length - 1
    if (parts.some((part, i) => part.trim() === '' && isInner(i))) return false
    return parts.filter((part) => part.trim() !== '').length === given.num_paragraphs
  }),
  'length_constraints:nth_paragraph_first_word': instruction(
    z.object({ num_paragraphs: count, nth_paragraph: count.min(1), first_word: word }),
    ({ num_paragraphs, nth_paragraph, first_word }) =>
      (text) => {
        const parts = text.split('\n\n')
        const filled = parts.filter((part) => part.trim() !== '').length
        const paragraph = nth_paragraph <= filled ? (parts[nth_paragraph - 1] ?? '').trim() : ''
        const [begin = ''] = paragraph.split(/\s+/)
        const first = begin
          .replace(/^'+/, '')
          .replace(/^"+/, '')
          .split(/[.,?!'"]/, 1)[0]
        return paragraph !== '' && filled === num_paragraphs && first.toLowerCase() === first_word.toLowerCase()
      },
  ),
  'detectable_content:number_placeholders': instruction(
    z.object({ num_placeholders: count }),
    (given) => (text) => matches(text, /\[.*?\]/g).length >= given.num_placeholders,
  ),
  'detectable_content:postscript': instruction(
    z.object({ postscript_marker: word }),
    ({ postscript_marker: marker }) => {
      const known = { 'P.P.S': 'p\\.\\s?p\\.\\s?s', 'P.S.': 'p\\.\\s?s\\.' }[marker] ?? marker.toLowerCase()
      const pattern = compilePattern(known)
      return (text) => pattern.test(text.toLowerCase())
    },
  ),
  'detectable_format:number_bullet_lists': instruction(
    z.object({ num_bullets: count }),
    (given) => (text) =>
      matches(text, /^\s*\*[^*].*$/gm).length + matches(text, /^\s*-.*$/gm).length === given.num_bullets,
  ),
  'detectable_format:constrained_response': instruction(
    z.object({}),
    () => (text) =>
      ['My answer is yes.', 'My answer is no.', 'My answer is maybe.'].some((answer) => text.includes(answer)),
  ),
  'detectable_format:number_highlighted_sections': instruction(
    z.object({ num_highlights: count }),
    (given) => (text) => {
      const filled = (part: string) => part.replaceAll('*', '').trim() !== ''
      const single = matches(text, /\*[^\n*]*\*/g).filter(filled).length
      return single + matches(text, /\*\*[^\n*]*\*\*/g).filter(filled).length >= given.num_highlights
    },
  ),
  'detectable_format:multiple_sections': instruction(
    z.object({ section_spliter: word, num_sections: count }),
    (given) => {
      const pattern = compilePattern(`\\s?${given.section_spliter.trim()}\\s?\\d+\\s?`)
      return (text) => pattern.count(text) >= given.num_sections
    },
  ),
  'detectable_format:json_format': instruction(z.object({}), () => (text) => {
    const inner = text
      .trim()
      .replace(/^```json/i, '')
      .replace(/^```/, '')
      .replace(/```$/, '')
    try {
      JSON.parse(inner)
      return true
    } catch {
      return false
    }
  }),
  'detectable_format:title': instruction(
    z.object({}),
    () => (text) =>
      matches(text, /<<[^\n]+>>/g).some((title) => title.replace(/^<+/, '').replace(/>+$/, '').trim() !== ''),
  ),
  'combination:two_responses': instruction(z.object({}), () => (text) => {
    const parts = text.split('******').map((part) => part.trim())
    if (parts.slice(1, -1).includes('')) return false
    const [first, second, ...more] = parts.filter((part) => part !== '')
    return second !== undefined && more.length === 0 && first !== second
  }),
  'combination:repeat_prompt': instruction(
    z.object({ prompt_to_repeat: word }),
    (given) => (text) => text.trim().toLowerCase().startsWith(given.prompt_to_repeat.trim().toLowerCase()),
  ),
  'startend:end_checker': instruction(
    z.object({ end_phrase: word }),
    (given) => (text) =>
      text
        .trim()
        .replace(/^"+|"+$/g, '')
        .toLowerCase()
        .endsWith(given.end_phrase.trim().toLowerCase()),
  ),
  'startend:quotation': instruction(
    z.object({}),
    () => (text) => /^"[\s\S]*"$/.test(text.trim()) && text.trim().length > 1,
  ),
  'change_case:english_capital': instruction(
    z.object({}),
    () => (text) => isCased(text) && text === text.toUpperCase(),
  ),
  'change_case:english_lowercase': instruction(
    z.object({}),
    () => (text) => isCased(text) && text === text.toLowerCase(),
  ),
  'punctuation:no_comma': instruction(z.object({}), () => (text) => !text.includes(',')),
}

export const instructionNames = Object.keys(instructions)

/** Kinds of IFEval that are not checked here. */
const unchecked = new Set([
  'language:response_language',
  'length_constraints:number_sentences',
  'change_case:capital_word_frequency',
])

/** Throws UserError for an unknown instruction or wrong arguments. */
export function instructionCheck(name: string, given: Readonly<Record<string, unknown>>): Check {
  if (!Object.hasOwn(instructions, name))
    throw new UserError(`${JSON.stringify(name)} is no instruction; known: ${instructionNames.join(', ')}`)
  const { shape, make } = instructions[name as keyof typeof instructions]
  const result = shape.safeParse(given)
  if (!result.success)
    throw new UserError(
      `${name}: ${result.error.issues.map(({ path, message }) => `${path.join('.')}: ${message}`).join('; ')}`,
    )
  const holds = make(result.data)
  return (text) => text.trim() !== '' && holds(text)
}

/** An answer, and what is left of it without its first or last line, and without asterisks: a loose check passes if one does. */
export function looseForms(text: string): string[] {
  const lines = text.split('\n')
  const cut = [lines.slice(1), lines.slice(0, -1), lines.slice(1, -1)].map((part) => part.join('\n').trim())
  return [text, ...cut].flatMap((form) => [form, form.replaceAll('*', '')])
}

const row = z
  .object({
    key: z.union([z.int(), z.string().min(1)]),
    prompt: z.string().min(1),
    instruction_id_list: z.array(z.string()).min(1).max(32),
    kwargs: z.array(z.record(z.string(), z.unknown())),
  })
  .refine(({ instruction_id_list: names, kwargs }) => names.length === kwargs.length, {
    message: 'instruction_id_list and kwargs must be equally long',
  })

type Row = { key: string; prompt: string; names: string[]; checks: Check[] }

/** Rows in IFEval's form: `key`, `prompt`, `instruction_id_list`, `kwargs`. Throws UserError for a wrong row. */
export function ifeval(source: Source): Task<Row> {
  const given = parseRows(source, row)
  const rows = given.flatMap(({ key, prompt, instruction_id_list: names, kwargs }): Row[] => {
    if (names.some((name) => unchecked.has(name))) return []
    try {
      const checks = names.map((name, i) => {
        const named = Object.entries(kwargs[i] as object).filter(([, value]) => value !== null)
        return instructionCheck(name, Object.fromEntries(named))
      })
      return [{ key: String(key), prompt, names, checks }]
    } catch (error) {
      throw error instanceof UserError ? new UserError(`${source.path}: row ${key}: ${error.message}`) : error
    }
  })
  if (rows.length === 0) throw new UserError(`${source.path}: no row has only instructions that can be checked`)
  checkNames(
    source.path,
    rows.map(({ key }) => key),
  )
  return defineTask<Row>({
    name: 'ifeval',
    rows,
    settings: { prompt: 'IFEval', shots: 0, 'rows left out': given.length - rows.length },
    metrics: ['prompt strict', 'prompt loose', 'instruction strict', 'instruction loose'],
    maxNewTokens: 512,
    stop: [],
    id: ({ key }) => key,
    prompt: ({ prompt }, alter = (text) => text) => alter(prompt),
    alterable: true,
    reference: ({ names }) => names.join(', '),
    async score({ names, checks }, answer) {
      const strict = checks.map((holds) => holds(answer))
      const forms = looseForms(answer)
      const loose = checks.map((holds) => forms.some(holds))
      const share = (held: readonly boolean[]) => held.filter(Boolean).length / held.length
      const missed = names.filter((_, i) => !strict[i])
      return {
        scores: {
          'prompt strict': Number(strict.every(Boolean)),
          'prompt loose': Number(loose.every(Boolean)),
          'instruction strict': share(strict),
          'instruction loose': share(loose),
        },
        ...(missed.length > 0 ? { detail: `not followed: ${missed.join(', ')}` } : {}),
      }
    },
  })
}

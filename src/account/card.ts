// The model card of a folder, as README.md in the form of the Hugging Face Hub, from its record. It measures nothing.
import { stringify } from 'yaml'
import type { ModelConfig } from '../core/types.ts'
import { accountRows } from './account.ts'
import { type HashedFile, lineage, type Method, type RunRecord, recordFile, recordText } from './record.ts'

/** What a card says that is not in the record. */
export interface CardModel {
  config: ModelConfig
  /** Of an adapter: the folder holds low-rank weights and not a model. */
  isAdapter?: boolean
}

/** What was done, and how the Hub calls the relation to the base. */
const methods: Readonly<Record<Method, { done: string; relation: 'finetune' | 'quantized' | 'merge' }>> = {
  convert: { done: 'converted to a diffusion language model', relation: 'finetune' },
  sft: { done: 'fine-tuned on answers', relation: 'finetune' },
  train: { done: 'trained to predict the next token', relation: 'finetune' },
  dpo: { done: 'trained on preferences', relation: 'finetune' },
  rl: { done: 'trained on rewards', relation: 'finetune' },
  accelerate: { done: 'given an adapter that drafts', relation: 'finetune' },
  quantize: { done: 'quantised', relation: 'quantized' },
  merge: { done: 'merged', relation: 'merge' },
}

/** provenance.json and README.md of a folder that holds this model. */
export const cardFiles = (record: RunRecord, model: CardModel): Record<string, string> => ({
  [recordFile]: recordText(record),
  'README.md': renderCard(record, model),
})

/** README.md: a head in YAML, as the Hub reads it, then base, data, recipe, versions, cost, scores and limits. */
export function renderCard(record: RunRecord, { config, isAdapter = false }: CardModel): string {
  const { license, datasets, method, scores, heldOut, account } = record
  const kind = kindOf(config)
  const all = lineage(record)
  const { hub } = all[0]!.base
  const head = {
    license: license ?? 'unknown',
    library_name: isAdapter ? 'peft' : 'unmask',
    pipeline_tag: 'text-generation',
    tags: [kind.tag, ...(isAdapter ? ['lora'] : [])],
    // The Hub knows repositories only.
    ...(hub ? { base_model: hub, base_model_relation: isAdapter ? 'adapter' : methods[method].relation } : {}),
    ...(datasets.length > 0 ? { datasets } : {}),
  }
  const files = all.flatMap((one) => one.data)
  const cost = all.flatMap((one) => (one.account ? [one] : []))
  const parts = [
    `---\n${stringify(head).trimEnd()}\n---`,
    `# ${titleOf(all[0]!.base.name)}, ${methods[method].done}`,
    `${kind.sentence} Made by unmask ${record.versions.unmask}. Everything below is also in [${recordFile}](${recordFile}).`,
    fence('sh', `npx unmask generate FOLDER --prompt "..."\nnpx unmask serve FOLDER`),
    '## Base',
    bullets([
      ['model', `\`${all[0]!.base.name}\``],
      ['licence', all[0]!.base.license ?? 'not stated in its files: look it up before you publish this model'],
      ['SHA-256 of its files', `\`${all[0]!.base.sha256}\``],
      ...(all.length > 1
        ? [['steps since then', all.map((one) => methods[one.method].done).join(', then ')] as const]
        : []),
    ]),
    '## Data',
    files.length === 0
      ? 'None: nothing was trained.'
      : `${datasets.length > 0 ? '' : 'No data sets of the Hub were named. '}Files that were trained on:\n\n${fileTable(files)}`,
    ...(heldOut.length > 0 ? [`Held out:\n\n${fileTable(heldOut)}`] : []),
    ...(scores.length > 0
      ? [
          '## Scores',
          pipeTable(
            ['', '', 'measured with'],
            scores.map(({ name, value, settings }) => [name, value, settings]),
          ),
        ]
      : []),
    ...(cost.length > 0
      ? [
          '## Cost',
          ...cost.map((one) => {
            const rows = accountRows(one.account!)
            return pipeTable([methods[one.method].done, ''], rows)
          }),
          'Operations are 6 N for each position that was computed, with N parameters (Kaplan et al., 2020), 4 N for weights that were not trained. Time has measurements and checkpoints in it.' +
            (cost.some((one) => one.account!.energy === 'estimated')
              ? ` Estimated energy is ${account?.prices.watts ?? cost.at(-1)!.account!.prices.watts} W over the time: the machine reported none.`
              : ''),
        ]
      : []),
    '## Recipe',
    fence('sh', record.command),
    fence('yaml', stringify(record.recipe.settings, { blockQuote: false }).trimEnd()),
    '## Versions',
    bullets([
      ...Object.entries(record.versions).map(([name, version]) => [name, version] as const),
      ...(record.commit ? [['commit', record.commit] as const] : []),
      ['machine', `${record.machine.cpu}, ${record.machine.cores} cores, ${record.machine.platform}`],
      ['date', record.created],
    ]),
    '## Known limits',
    limits(record, kind.limits)
      .map((line) => `- ${line}`)
      .join('\n'),
  ]
  return `${parts.join('\n\n')}\n`
}

interface Kind {
  tag: string
  sentence: string
  limits: string[]
}

function kindOf({ mask_token_id: mask, block_size: size, causal_context: causal }: ModelConfig): Kind {
  if (typeof mask !== 'number')
    return { tag: 'autoregressive', sentence: 'An autoregressive language model.', limits: [] }
  if (causal === true)
    return {
      tag: 'diffusion-language-model',
      sentence: `A language model that predicts the next token, and drafts up to ${size} tokens at masks that it checks itself.`,
      limits: ['It writes from left to right and fills no gaps.'],
    }
  return {
    tag: 'diffusion-language-model',
    sentence: `A block-diffusion language model: it unmasks blocks of ${size ?? 32} tokens.`,
    limits: ['Its likelihood is known as a bound only.', 'Fewer steps (a lower threshold) cost accuracy.'],
  }
}

function limits({ scores, account, method, license }: RunRecord, own: readonly string[]): string[] {
  return [
    ...own,
    ...(account
      ? [
          `It has seen ${Math.round(account.tokens).toLocaleString('en-US')} tokens in this step; what its data do not hold it knows from its base alone.`,
        ]
      : []),
    ...(method === 'quantize' ? ['Rounding weights costs accuracy; scores of the float model do not carry over.'] : []),
    scores.length > 0 ? 'Only what stands under Scores was measured.' : 'Nothing was measured on it yet.',
    'Bias, safety and facts were not evaluated; errors and prejudice of base and data may show.',
    ...(license === undefined ? ['Its licence is not known.'] : []),
  ]
}

const titleOf = (name: string): string => name.split('/').at(-1)!

const fileTable = (files: readonly HashedFile[]): string => {
  const shown = files.slice(0, MOST_FILES)
  const table = pipeTable(
    ['file', 'bytes', 'SHA-256'],
    shown.map(({ name, bytes, sha256 }) => [`\`${name}\``, String(bytes), `\`${sha256}\``]),
  )
  const more = files.length - shown.length
  return more > 0 ? `${table}\n\n${more} more are listed in ${recordFile}.` : table
}

const MOST_FILES = 20

const bullets = (rows: readonly (readonly [string, string])[]): string =>
  rows.map(([name, value]) => `- ${name}: ${value}`).join('\n')

function pipeTable(head: readonly string[], rows: readonly (readonly string[])[]): string {
  const line = (cells: readonly string[]) => `| ${cells.map((cell) => cell.replace(/[|\n]/g, ' ')).join(' | ')} |`
  return [line(head), line(head.map(() => '---')), ...rows.map(line)].join('\n')
}

function fence(language: string, text: string): string {
  const longest = Math.max(2, ...[...text.matchAll(/`+/g)].map((match) => match[0].length))
  const ticks = '`'.repeat(longest + 1)
  return `${ticks}${language}\n${text}\n${ticks}`
}

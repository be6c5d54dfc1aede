// Makes a whole model of an adapter: its base with the low-rank weights fused into it. Composes reading, rounding and writing,
// one tensor in memory at a time.
import { cardFiles } from '../account/card.ts'
import { derivedRecord } from '../account/record.ts'
import { isAdapterFolder } from '../checkpoint/adapted.ts'
import { claimOutput, openCheckpoint, type StoredDType, saveCheckpoint } from '../checkpoint/index.ts'
import { checkTensors } from '../checkpoint/load.ts'
import { SettingError, UserError } from '../core/types.ts'
import { createModel } from '../models/index.ts'
import { quantize } from './quantize.ts'

export interface MergeAdapterOptions {
  /** Folder of an adapter in PEFT's layout that makes a model of its base. */
  adapter: string
  /** Folder to write. It must not exist, or be empty; never the adapter's own, nor in or around it. */
  out: string
  /** Whether a checkpoint in `out` may be replaced. Default false. */
  force?: boolean | undefined
  /** Type of the weights. Default F32. */
  dtype?: StoredDType | undefined
  /**
   * Rounds the matrices to the nearest of so many bits instead, in the format of the base where that has as many. Default: they
   * are not quantised, whatever the base is.
   */
  bits?: 4 | 8 | undefined
  /** The command to record. Default `unmask merge`. */
  command?: string | undefined
  signal?: AbortSignal | undefined
}

/** Writes the model that an adapter makes of its base. Throws UserError where it does not fit or `out` may not be written. */
export async function mergeAdapter(options: MergeAdapterOptions): Promise<void> {
  const { adapter, out, force, dtype, bits, command = 'unmask merge', signal } = options
  if (!(await isAdapterFolder(adapter))) throw new UserError(`${adapter}: is not the folder of an adapter`)
  if (bits && dtype) throw new SettingError(['bits', 'dtype'], 'a model in bits has no other type: choose one')
  await claimOutput(out, { inputs: [adapter], force })
  const checkpoint = await openCheckpoint(adapter)
  try {
    const model = createModel(checkpoint.config)
    checkTensors(checkpoint, model)
    if (bits) {
      const base = [...checkpoint.tensors.values()].find(({ blocks }) => blocks?.bits === bits)?.blocks
      const format = base?.activations
        ? { activations: base.activations }
        : base && {
            ...{ groupSize: base.blockSize, offsets: base.offsets ?? false },
            symmetric: !base.asymmetric && !base.offsets,
          }
      await quantize({ model: adapter, out, bits, force, command, ...format, signal })
      return
    }
    const base = { name: adapter, path: adapter }
    const record = await derivedRecord({ method: 'merge', command, base, settings: { dtype }, signal })
    await saveCheckpoint(out, {
      config: checkpoint.config,
      parameters: new Map(
        [...model.parameters].map(([name, shape]) => {
          const read = () => {
            signal?.throwIfAborted()
            return checkpoint.read(name)
          }
          return [name, { shape, read }]
        }),
      ),
      tokenizerFiles: await checkpoint.tokenizerFiles(),
      generationConfig: checkpoint.generationConfig,
      files: cardFiles(record, model),
      dtype,
    })
  } finally {
    await checkpoint.close()
  }
}

// Writes a model as ONNX for runtimes other than unmask: a Hugging Face folder with one more file, model.onnx, which takes its
// weights from the safetensors files beside it. Composes reading, writing and the decoding program.
import { readFile } from 'node:fs/promises'
import { basename, join, resolve } from 'node:path'
import { writeAtomically, writeTextAtomically } from '../checkpoint/file.ts'
import { claimOutput, makeCheckpointFolder, openCheckpoint, pull, writeCheckpoint } from '../checkpoint/index.ts'
import { checkTensors, loadForInference } from '../checkpoint/load.ts'
import { packaged } from '../checkpoint/names.ts'
import { packageVersion } from '../core/versions.ts'
import { decodeProgram } from '../decode/forward-program.ts'
import { exportOnnx, type Signature } from '../graph/program.ts'
import { createModel } from '../models/index.ts'
import { externalRanges, formatsOf } from '../nn/inference.ts'
import { endTokens } from '../tokenizer/end-tokens.ts'
import { loadTokenizer } from '../tokenizer/index.ts'
import { storedTensors } from './quantize.ts'

export interface ExportModelOptions {
  /** Model to export; see `load`. */
  model: string
  /** Folder to write. It must not exist, or be empty; never the model's own, nor in or around it. */
  out: string
  /** Whether a checkpoint in `out` may be replaced. Default false. */
  force?: boolean
  signal?: AbortSignal
  /** Makes the model a path on this machine. Default `pull`. */
  fetch?: typeof pull
  onPhase?: (message: string) => void
}

export interface ExportModelResult {
  out: string
  /** Files written, by name. */
  files: string[]
  inputs: Signature[]
  outputs: Signature[]
}

/**
 * Writes `out`: config.json, the tokenizer, the weights as safetensors (float32, or as a folder that `quantize` wrote has
 * them), model.onnx with the decoding step of `decodeProgram`, and README.md, a card that says how to run it. The folder
 * appears when it is whole. Throws UserError where the model cannot be read or `out` may not be written.
 */
export async function exportModel(options: ExportModelOptions): Promise<ExportModelResult> {
  const { model: source, out, force, signal, fetch = pull } = options
  await claimOutput(out, { inputs: [source], force })
  const { path } = await fetch(source, { signal })
  await claimOutput(out, { inputs: [path], force })
  let written: Omit<ExportModelResult, 'out'> | undefined
  await makeCheckpointFolder(out, async (folder) => {
    written = await writeFiles(path, folder, basename(resolve(out)), options)
  })
  return { out, ...written! }
}

async function writeFiles(
  source: string,
  folder: string,
  name: string,
  { signal, onPhase = () => undefined }: ExportModelOptions,
): Promise<Omit<ExportModelResult, 'out'>> {
  const checkpoint = await openCheckpoint(source)
  try {
    const model = createModel(checkpoint.config)
    checkTensors(checkpoint, model)
    const parameters = storedTensors(checkpoint, model.parameters)
    const { config, generationConfig } = checkpoint
    const tokenizerFiles = await checkpoint.tokenizerFiles()
    const ends = endTokens({ tokenizer: loadTokenizer(tokenizerFiles), model, generationConfig })
    // All that decoding needs to know stands in config.json.
    const complete = ends.length === 0 ? config : { ...config, eos_token_id: ends }
    onPhase('writing the weights')
    await writeCheckpoint(folder, { config: complete, parameters, tokenizerFiles, generationConfig })
  } finally {
    await checkpoint.close()
  }
  signal?.throwIfAborted()
  onPhase('writing model.onnx')
  const { model, parameters } = await loadForInference(folder)
  const tensors = new Map<string, { location: string; offset: number; length: number }>()
  for (const [tensor, { path, offset, length }] of externalRanges(parameters))
    tensors.set(tensor, { location: basename(path), offset, length })
  const program = exportOnnx(decodeProgram(model, formatsOf(parameters)), { external: { location: '', tensors } })
  await writeAtomically(join(folder, 'model.onnx'), (sink) => sink(program.model))
  for (const example of EXAMPLES) {
    const text = await readFile(packaged('examples', 'onnx', example), 'utf8')
    await writeTextAtomically(join(folder, example), text)
  }
  await writeTextAtomically(join(folder, 'README.md'), card(name, model.config, program))
  const weights = new Set([...tensors.values()].map(({ location }) => location))
  const { inputs, outputs } = program
  return { files: [...weights, 'model.onnx', ...EXAMPLES, 'README.md'], inputs, outputs }
}

const EXAMPLES = ['generate.py', 'generate.mjs']

const MEANING: Record<string, string> = {
  input_ids: 'new tokens: those that follow the cache',
  position_ids: 'their positions in the text',
  block_ids: 'number of the block of each new token, ascending; the position itself for autoregressive decoding',
  block_ends: 'new token i sees new token j where block_ids[j] <= block_ids[i] < block_ends[j]; a large number for all',
  cache_length: 'filled positions of the cache, in each row; behind them it must have room for the new tokens',
  row_index: 'which new tokens are predicted, counted over all rows',
  logit_scale: 'multiplies the logits of each prediction before the softmax; 1',
  token_bias: 'added to the logits; minus infinity for the mask token',
  token: 'most probable token at each predicted position',
  confidence: 'its probability',
  logits: 'before scale and bias',
}

function card(
  name: string,
  config: Record<string, unknown>,
  { inputs, outputs }: { inputs: readonly Signature[]; outputs: readonly Signature[] },
): string {
  const rows = (signatures: readonly Signature[]) =>
    signatures
      .filter(({ name }) => !/\.(?!0$)\d+$/.test(name))
      .map((signature) => {
        const cache = /^(past|present)_(key|value)/.exec(signature.name)
        const meaning = cache
          ? `${cache[1] === 'past' ? 'cache' : 'the cache with the new tokens in it; it may be the memory of the input'}: ${cache[2]}s, one for each layer`
          : MEANING[signature.name]
        return `| ${signature.name} | ${signature.dtype} | [${signature.shape.join(', ')}] | ${meaning} |`
      })
      .join('\n')
  const { mask_token_id: mask, block_size: block } = config
  const kind =
    mask === undefined
      ? 'It is autoregressive: `block_size` 1, and the prediction at a position is the token that follows.'
      : `It is a block-diffusion model: mask token ${mask}, trained for blocks of ${block ?? 32}.${
          config.same_token_labels === false
            ? ' The prediction for a position is read at the position before it.'
            : ' The prediction for a position is read at that position.'
        }`
  return `---
library_name: onnx
pipeline_tag: text-generation
tags: [onnx, ${mask === undefined ? 'text-generation' : 'diffusion-language-model'}]
---

# ${name} as ONNX

One decoding step with a KV cache, exported by unmask ${packageVersion()} (opset 23 and ONNX Runtime's \`com.microsoft\` operators). The weights are in the safetensors files of this folder, to which model.onnx refers; keep them together.

${kind}

\`\`\`sh
pip install onnxruntime tokenizers && python generate.py . "Your prompt"
npm install onnxruntime-node @huggingface/tokenizers && node generate.mjs . "Your prompt"
\`\`\`

Sizes: B rows, T new tokens in each, C positions of the cache, R predictions.

| input | type | shape | |
| --- | --- | --- | --- |
${rows(inputs)}

| output | type | shape | |
| --- | --- | --- | --- |
${rows(outputs)}
`
}

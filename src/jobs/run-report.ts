// From a finished training run to the data of its report. It reads nothing and measures nothing.

import { accountOf } from '../account/account.ts'
import { provenance } from '../account/provenance.ts'
import { publishableSettings, type Score } from '../account/record.ts'
import type { LoadedModel } from '../checkpoint/load.ts'
import { settingDefault } from '../decode/index.ts'
import type { MaskToken } from '../diffusion/mask-token.ts'
import type { Stage } from '../diffusion/schedule.ts'
import type { ComparisonResult } from '../eval/compare.ts'
import { tokenEfficiency } from '../eval/report/efficiency.ts'
import type { EvaluationPoint, ReportData } from '../eval/report/types.ts'
import { parameterCounts } from '../models/index.ts'
import { traits } from '../objectives/index.ts'
import type { MetricsRecord } from '../train/metrics.ts'
import type { Evaluation, Metric } from '../train/types.ts'
import type { Recipe } from './recipe.ts'

export interface RunOutcome {
  recipe: Recipe
  /** The model had the objective before. */
  isFineTuned: boolean
  loaded: Omit<LoadedModel, 'parameters'>
  maskToken: MaskToken | undefined
  schedule: readonly Stage[]
  evaluation: Evaluation
  baseline: Evaluation | undefined
  comparison: ComparisonResult | undefined
  command: string
  threads: number
  metrics: readonly MetricsRecord[]
  /** Metrics of the run from random weights. */
  fromRandom: readonly MetricsRecord[] | undefined
}

/** What the report of a training run says, from its metrics and measurements. */
export function runReport(input: RunOutcome): ReportData {
  const { recipe, isFineTuned, loaded, maskToken, evaluation, baseline, comparison, metrics, fromRandom } = input
  const isAr = recipe.objective === 'ar'
  const { exact } = traits[recipe.objective]
  const last = metrics.at(-1)
  const seconds = last?.elapsed_s ?? Number.NaN
  const tokens = last?.tokens ?? 0
  const { config, dimensions } = loaded.model
  const blockSizeOf = (record: MetricsRecord) => (exact ? undefined : record.block_size)
  const count = tokens.toLocaleString('en-US')
  const start = recipe.init === 'random' ? 'random weights' : 'its weights'
  return {
    format: 1,
    title: `${loaded.name}: ${isFineTuned ? 'fine-tuning' : isAr ? 'autoregressive training' : 'from autoregressive to diffusion'}`,
    summary: isAr
      ? `${loaded.name} was trained from ${start} on ${count} tokens to predict the next token.`
      : `${loaded.name} was trained from ${start} on ${count} tokens ${goal(recipe)}.`,
    ...provenance(input.command, input.threads),
    seed: recipe.train.seed,
    model: {
      name: loaded.name,
      architecture: config.model_type,
      parameters: parameterCounts(loaded.model).total,
      vocabSize: dimensions.vocabSize,
      maskToken: maskToken && { id: maskToken.id, token: maskToken.token },
    },
    settings: publishableSettings(recipe),
    training: {
      objective: recipe.objective,
      tokens,
      steps: last?.step ?? 0,
      seconds,
      tokensPerSecond: tokens / seconds,
      peakMemoryBytes: last?.peak_rss_bytes,
      account: last && accountOf({ tokens, flops: last.flops ?? 0, seconds, joules: last.energy_j }, recipe.cost),
      interrupted: false,
      schedule: [...input.schedule],
      points: metrics.flatMap((record) =>
        record.loss === undefined
          ? []
          : [
              {
                step: record.step,
                tokens: record.tokens,
                blockSize: blockSizeOf(record),
                loss: record.loss,
                textLoss: numberOf(record.text_loss),
                paddingLoss: numberOf(record.padding_loss),
                gradNorm: record.grad_norm ?? Number.NaN,
                learningRate: record.lr ?? Number.NaN,
                tokensPerSecond: record.tokens_per_s ?? Number.NaN,
              },
            ],
      ),
      evaluations: evaluationPoints(metrics, exact),
    },
    ar: isAr
      ? { ...comparison?.ar, ...likelihood(evaluation) }
      : baseline || comparison?.ar
        ? { ...comparison?.ar, ...likelihood(baseline) }
        : undefined,
    own: comparison?.own && { ...comparison.own, ...likelihood(evaluation) },
    equal: comparison?.own && { same: comparison.equal ?? 0, prompts: comparison.prompts },
    diffusion: isAr
      ? undefined
      : {
          ...comparison?.diffusion,
          ...likelihood(evaluation),
          strategy: comparison?.strategy,
          threshold: comparison?.threshold ?? recipe.decode.threshold ?? settingDefault('threshold'),
          blockSize: recipe.diffusion.block_size,
        },
    tasks: comparison?.tasks ?? [],
    sweep: comparison?.sweep ?? [],
    tokenEfficiency:
      fromRandom && tokenEfficiency(evaluationPoints(metrics, exact), evaluationPoints(fromRandom, exact)),
    samples: comparison?.samples ?? [],
  }
}

/** What was measured, for the model's card. */
export function scoresOf(
  { objective, diffusion, decode, eval: settings }: Recipe,
  { evaluation, baseline, comparison }: Pick<RunOutcome, 'evaluation' | 'baseline' | 'comparison'>,
): Score[] {
  const scores: Score[] = []
  const text = `${evaluation.tokens} tokens of held-out text`
  const bits = ({ bitsPerByte, bitsPerByteStderr }: Evaluation) =>
    `${bitsPerByte.toFixed(3)}${bitsPerByteStderr > 0 ? ` ± ${bitsPerByteStderr.toFixed(3)}` : ''}`
  scores.push({
    name: traits[objective].exact ? 'bits per byte' : 'bits per byte, upper bound',
    value: bits(evaluation),
    settings: traits[objective].exact ? text : `${text}, blocks of ${diffusion.block_size}`,
  })
  if (baseline) scores.push({ name: 'bits per byte of the base', value: bits(baseline), settings: text })
  const rows =
    settings.tasks.length > 0 ? `${settings.tasks.join(', ')}: ${settings.task_rows} rows of each` : 'held-out prompts'
  for (const [name, summary, threshold] of [
    ['base, one token at a time', comparison?.ar, undefined],
    ['one token at a time', comparison?.own, undefined],
    ['in drafts or blocks', comparison?.diffusion, comparison?.threshold],
  ] as const) {
    if (!summary) continue
    const { score, tokensPerForward, tokensPerSecond } = summary
    const measured = [
      rows,
      `at most ${decode.max_new_tokens} tokens`,
      ...(threshold === undefined ? [] : [`threshold ${threshold}`]),
    ]
    scores.push({
      name,
      value: [
        ...(score
          ? [
              `${(100 * score.accuracy).toFixed(1)} % (${(100 * score.low).toFixed(1)} to ${(100 * score.high).toFixed(1)})`,
            ]
          : []),
        `${tokensPerForward.toFixed(2)} tokens per forward`,
        `${tokensPerSecond.toFixed(0)} tokens/s`,
      ].join(', '),
      settings: measured.join('; '),
    })
  }
  return scores
}

const goal = ({ objective, diffusion: { block_size } }: Recipe): string =>
  objective === 'hybrid'
    ? `to predict the next token, and ${block_size} tokens at masks that it then checks itself`
    : `to denoise blocks of ${block_size} tokens`

const likelihood = (measured: Evaluation | undefined) => ({
  nll: measured?.nll,
  stderr: measured?.stderr,
  bitsPerByte: measured?.bitsPerByte,
  bitsPerByteStderr: measured?.bitsPerByteStderr,
})

const numberOf = (metric: Metric | undefined): number | undefined => (typeof metric === 'number' ? metric : undefined)

function evaluationPoints(metrics: readonly MetricsRecord[], exact: boolean): EvaluationPoint[] {
  return metrics.flatMap(({ step, tokens, block_size, nelbo, bits_per_byte, bits_per_byte_stderr }) =>
    nelbo === undefined || bits_per_byte === undefined
      ? []
      : [
          {
            step,
            tokens,
            blockSize: exact ? undefined : block_size,
            nelbo,
            bitsPerByte: bits_per_byte,
            bitsPerByteStderr: bits_per_byte_stderr,
          },
        ],
  )
}

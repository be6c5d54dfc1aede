// The recipe of a run: one schema for YAML files, command-line flags and the library. It knows names, ranges and defaults;
// it reads no files and knows nothing about models.
import * as z from 'zod'
import { cardSettings, costSettings } from '../account/settings.ts'
import { editDistance } from '../core/edit-distance.ts'
import { UserError } from '../core/types.ts'
import { recipeDecodingFields } from '../decode/settings-zod.ts'
import { check, type Problem } from '../formats/check.ts'
import { trainedObjectives } from '../objectives/index.ts'
import { denoisingFields } from '../objectives/settings.ts'
import { TASK_NAMES } from '../tasks/index.ts'
import { torchTypes } from '../train/torch-stepper.ts'

export const positive = z.number().positive()
export const share = z.number().min(0).max(1)
export const whole = z.int().min(1)
export const wholeOrZero = z.int().min(0)

/** A number of tokens: 300000, or with a suffix "300k", "4M", "1G". */
export const tokenCount = z.union([
  whole,
  z
    .string()
    .regex(/^\d+(\.\d+)?[kKMG]?$/, 'expected a number of tokens such as 300000, 300k or 4M')
    .transform((text) => {
      const factor = { k: 1e3, K: 1e3, M: 1e6, G: 1e9 }[text.at(-1) ?? ''] ?? 1
      return Math.round(Number.parseFloat(text) * factor)
    })
    .pipe(whole),
])

export const path = z.string().min(1)

/** A list; a single text stands for a list of one. */
export const oneOrMore = <T extends z.ZodType>(item: T) =>
  z.union([z.array(item).min(1), path.transform((text) => [text as z.output<T>])])

export const data = z.strictObject({
  train_path: oneOrMore(z.union([path, z.strictObject({ path, weight: positive.optional() })])).describe(
    'training data: files, folders or globs of .txt, .jsonl and .parquet; {path, weight} in a file',
  ),
  validation_path: oneOrMore(path).optional().describe('held-out data; without it a part of train_path is held out'),
  validation_fraction: share
    .max(0.5)
    .default(0.02)
    .describe('share of the documents held out for validation, chosen by a hash of each'),
  validation_tokens: tokenCount.default(16_384).describe('held-out tokens that each evaluation reads'),
  max_seq_len: whole.default(512).describe('length of a packed row in tokens'),
  columns: z
    .strictObject({
      text: z.string().optional().describe('name of the column that holds plain text'),
      prompt: z.string().optional().describe('name of the column that holds the prompt (never masked)'),
      completion: z.string().optional().describe('name of the column that holds the completion (masked)'),
      messages: z.string().optional().describe('name of the column that holds chat messages'),
    })
    .prefault({}),
  template: z
    .enum(['none', 'chat'])
    .optional()
    .describe('how prompts are written (default: as the model records; else chat where it has a chat template)'),
  separator: z
    .string()
    .optional()
    .describe('text between prompt and completion with template none (default: as the model records; else none)'),
  turns: z.enum(['all', 'last']).default('all').describe('assistant turns of a chat that are trained on'),
  bad_rows: z.enum(['skip', 'fail']).default('skip').describe('count rows that cannot be read, or stop at the first'),
  shuffle_buffer: whole.default(2048).describe('documents to shuffle among; 1 keeps the order'),
})

export const train = z.strictObject({
  total_tokens: tokenCount.default(1_000_000).describe('training tokens, each clean token counted once'),
  micro_batch_size: whole.default(1).describe('rows in one forward and backward pass'),
  global_batch_size: whole.default(8).describe('rows in one optimiser step; a multiple of micro_batch_size'),
  lr: positive.default(1e-3).describe('highest learning rate'),
  lr_warmup_ratio: share.default(0.03).describe('share of the tokens over which the learning rate rises'),
  lr_decay_style: z
    .enum(['cosine', 'wsd', 'constant'])
    .default('cosine')
    .describe('how the learning rate falls after the warmup'),
  lr_decay_ratio: share.default(0.2).describe('share of the tokens, at the end, over which wsd falls'),
  lr_min: z.number().min(0).default(0).describe('learning rate that cosine and wsd fall to'),
  weight_decay: z
    .number()
    .min(0)
    .default(0.1)
    .describe('decoupled weight decay of the matrices; norms, biases and embeddings do not decay'),
  beta1: share.lt(1).default(0.9).describe('AdamW: decay of the first moment'),
  beta2: share.lt(1).default(0.95).describe('AdamW: decay of the second moment'),
  adam_eps: positive.default(1e-8).describe('AdamW: epsilon'),
  enable_gradient_checkpointing: z
    .boolean()
    .default(false)
    .describe('compute the activations of a layer again in the backward pass: less memory, more time'),
  max_grad_norm: positive.default(1).describe('clip the global gradient norm to this'),
  seed: z.int().min(0).max(0xffff_ffff).default(0).describe('seed of weights, data order and noise'),
  save_steps: wholeOrZero.default(100).describe('steps between checkpoints; 0 for none before the end'),
  eval_steps: wholeOrZero.default(50).describe('steps between evaluations; 0 for one at the end only'),
  log_steps: whole.default(1).describe('steps between lines of metrics.jsonl'),
  early_stop: wholeOrZero
    .default(0)
    .describe(
      'end after so many validated checkpoints without a better one, and keep the best; 0: train to the last token',
    ),
  keep_best: whole.default(3).describe('best checkpoints by validation NELBO that are kept for merging'),
})

const moe = z.strictObject({
  router: z
    .enum(['trained', 'frozen'])
    .default('trained')
    .describe('mixtures of experts: train the routers, or keep them'),
  router_bias_update_rate: z
    .number()
    .min(0)
    .default(0)
    .describe(
      'step by which the biases that choose experts move against the load after each update (Ling was trained with ' +
        '0.001); 0 leaves them as they are',
    ),
  router_aux_loss_coef: z
    .number()
    .min(0)
    .default(0)
    .describe('factor of an auxiliary loss that balances the load of the experts; 0 for none'),
})

const diffusion = z.strictObject({
  block_size: whole.default(32).describe('tokens that are denoised together, at the end of training and in decoding'),
  schedule: z
    .union([z.enum(['wsd', 'constant']), z.array(z.string().min(1)).min(1)])
    .default('wsd')
    .describe(
      'block sizes over the tokens: wsd (1, 4, 32, 64, L ... block_size), constant, or entries SIZE:SHARE such as ' +
        '1:10%, 8:90%; L is max_seq_len',
    ),
  shares: z
    .strictObject({
      warmup: z.number().min(0).default(0.2).describe('share of the tokens in the warmup of wsd'),
      stable: z.number().min(0).default(0.3).describe('share of the tokens in the stable phase of wsd'),
      decay: z.number().min(0).default(0.5).describe('share of the tokens in the decay of wsd'),
    })
    .prefault({}),
  ...denoisingFields,
  mask_token: z
    .union([z.string().min(1), z.int().min(0)])
    .optional()
    .describe('mask token or its id (default: an unused special token, else a new one)'),
  embedding_noise_sigma: z
    .number()
    .min(0)
    .default(0)
    .describe('standard deviation of the noise on the embeddings of masked positions at the first step'),
  embedding_noise_steps: wholeOrZero.default(0).describe('steps over which embeddings get noise'),
  embedding_noise_decay: z
    .enum(['linear', 'cosine', 'constant'])
    .default('linear')
    .describe('how embedding noise falls over those steps'),
})

const decode = z.strictObject(recipeDecodingFields)

const evaluation = z.strictObject({
  tasks: z
    .array(z.enum(TASK_NAMES))
    .default([])
    .describe(`held-out seeded tasks with exact answers: ${TASK_NAMES.join(', ')}`),
  task_rows: whole.default(100).describe('rows of each task that are decoded'),
  prompts: wholeOrZero.default(8).describe('held-out prompts to decode for speed and samples when there are no tasks'),
  thresholds: z
    .array(share)
    .default([0.5, 0.7, 0.9, 0.95])
    .describe('thresholds of the sweep in the report (score against tokens per forward)'),
  samples: whole
    .default(4)
    .describe('noise draws for each block of held-out text, taken in pairs, which give the standard error'),
  from_random: z
    .number()
    .min(0)
    .default(0)
    .describe('train once more from random weights, on this many times the tokens, to show what the base saves; 0: no'),
})

const loraFields = {
  lora_alpha: positive.default(32).describe('scale of the low-rank weights: lora_alpha / rank'),
  target_modules: z
    .array(z.string().regex(/^\w+$/))
    .min(1)
    .optional()
    .describe('projections that get low-rank weights, by the last part of their names (default: all of a dense layer)'),
}

export const lora = z.strictObject({
  rank: wholeOrZero
    .max(4096)
    .default(0)
    .describe('train low-rank weights of this rank (LoRA) and leave the model as it is; 0: train the model itself'),
  ...loraFields,
  dora: z
    .boolean()
    .default(false)
    .describe('give the rows of the projections trained lengths too (DoRA); needs lora.rank'),
})

const adapter = z.strictObject({
  rank: whole.max(4096).default(16).describe('rank of the low-rank weights'),
  ...loraFields,
  block_size: whole.max(64).default(8).describe('masks of a stride: the most tokens that are drafted at a time'),
  copies: positive.default(1).describe('masks in a step, as a multiple of its clean tokens'),
  distill: share
    .default(0)
    .describe(
      "share of the loss that is the cross-entropy with the base's own distribution instead of the data's tokens",
    ),
  self_generate: tokenCount
    .optional()
    .describe("train on this many tokens of the base's own greedy answers to the prompts of the data, written first"),
  mask_token: z
    .union([z.string().min(1), z.int().min(0)])
    .optional()
    .describe('token or id that other tools take for the mask (default: an unused special token, else a new one)'),
})

/** What every recipe of a training has beside it. */
export const accountSections = { cost: costSettings.prefault({}), card: cardSettings.prefault({}) }

/** What `accelerate` takes: the sections of a conversion, with an adapter instead of blocks. */
export const acceleratorSchema = z.strictObject({
  model: z.string().min(1).describe('autoregressive model: folder, .gguf or .safetensors file, or Hub repository'),
  output_dir: z.string().min(1).describe('folder that receives the adapter, checkpoints and metrics'),
  threads: wholeOrZero.default(0).describe('threads of the executor; 0 for one per core'),
  data,
  train: train.prefault({}),
  adapter: adapter.prefault({}),
  decode: z
    .strictObject({ max_new_tokens: whole.default(128).describe('most tokens of an answer, written or measured') })
    .prefault({}),
  eval: z
    .strictObject({
      prompts: whole.default(32).describe('held-out prompts to choose the settings of decoding with'),
    })
    .prefault({}),
  ...accountSections,
})

export type AcceleratorRecipe = z.output<typeof acceleratorSchema>
export type AcceleratorRecipeInput = z.input<typeof acceleratorSchema>

export const recipeSchema = z.strictObject({
  model: z.string().min(1).describe('checkpoint to start from: folder, .gguf or .safetensors file, or Hub repository'),
  output_dir: z.string().min(1).describe('folder that receives the model, checkpoints, metrics and report'),
  objective: z
    .enum(trainedObjectives)
    .default('diffusion')
    .describe(
      'hybrid: the model predicts the next token and drafts at masks, which it checks itself; diffusion: it denoises blocks; ' +
        'ar: it predicts the next token only',
    ),
  init: z
    .enum(['pretrained', 'random'])
    .default('pretrained')
    .describe('start from the weights of the model, or from random ones with its config.json and tokenizer'),
  threads: wholeOrZero.default(0).describe('threads of the executor; 0 for one per core'),
  executor: z
    .enum(['onnxruntime', 'torch'])
    .default('onnxruntime')
    .describe('what trains: ONNX Runtime, or PyTorch in the Python that UNMASK_PYTHON names'),
  dtype: z
    .enum(torchTypes)
    .default('float32')
    .describe('executor torch: what products and activations are computed in; weights and losses stay float32'),
  processes: whole
    .max(4096)
    .default(1)
    .describe('executor torch: processes that share each step, one per GPU; global_batch_size is for all of them'),
  expert_parallel: whole
    .default(1)
    .describe('executor torch: processes among which the experts of a layer are divided; divides processes'),
  data,
  train: train.prefault({}),
  moe: moe.prefault({}),
  diffusion: diffusion.prefault({}),
  lora: lora.prefault({}),
  decode: decode.prefault({}),
  eval: evaluation.prefault({}),
  ...accountSections,
})

/** A checked recipe with every default filled in. */
export type Recipe = z.output<typeof recipeSchema>
/** What a caller writes: everything with a default may be left out. */
export type RecipeInput = z.input<typeof recipeSchema>

/** One setting of the recipe: its dotted path and what a value looks like. */
export interface Setting {
  path: string
  section: string
  description: string
  kind: 'number' | 'string' | 'boolean' | 'list' | 'numbers' | 'text-or-list' | 'text-or-number'
  /** Allowed values of an enumeration. */
  choices: readonly string[] | undefined
  default: unknown
}

/** Every setting of a schema, in its order: the source of the command-line flags and of the reference page. */
export function recipeSettings(schema: z.ZodType = recipeSchema): Setting[] {
  const settings: Setting[] = []
  visit(schema, [])
  return settings

  function visit(schema: z.core.$ZodType, path: string[]): void {
    let inner = schema
    let fallback: unknown
    while (
      inner instanceof z.ZodDefault ||
      inner instanceof z.ZodPrefault ||
      inner instanceof z.ZodOptional ||
      inner instanceof z.ZodNonOptional
    ) {
      if (inner instanceof z.ZodDefault) fallback = inner.def.defaultValue
      inner = inner.unwrap()
    }
    if (inner instanceof z.ZodObject) {
      for (const [key, child] of Object.entries(inner.shape)) visit(child, [...path, key])
      return
    }
    settings.push({
      path: path.join('.'),
      section: path.length > 1 ? path[0]! : '',
      description: z.globalRegistry.get(schema)?.description ?? z.globalRegistry.get(inner)?.description ?? '',
      kind: kindOf(inner),
      choices: inner instanceof z.ZodEnum ? inner.options.map(String) : undefined,
      default: fallback,
    })
  }
}

function kindOf(schema: z.core.$ZodType): Setting['kind'] {
  if (schema instanceof z.ZodBoolean) return 'boolean'
  if (schema instanceof z.ZodNumber) return 'number'
  if (schema instanceof z.ZodArray) return kindOf(schema.element) === 'number' ? 'numbers' : 'list'
  if (schema instanceof z.ZodUnion) {
    const kinds = schema.options.map(kindOf)
    if (kinds.includes('list')) return 'text-or-list'
    return kinds.includes('number') ? 'text-or-number' : 'string'
  }
  return 'string'
}

/** Says where a value came from: `recipe.yaml:12: train.lr` or `--lr`. */
export type Origin = (path: string) => string

/**
 * Settings of a recipe that do not fit the model, the data or the run that they are for. Named by their paths, unless whoever
 * gave them knows where (`inOrigins`).
 */
export class RecipeError extends UserError {
  override name = 'RecipeError'
  private readonly problems: readonly { path: string; message: string }[]
  private readonly advice: string | undefined

  constructor(problems: readonly { path: string; message: string }[], advice?: string) {
    super(messageOf(problems, advice, (path) => path))
    this.problems = problems
    this.advice = advice
  }

  /** The message with where each setting was given. */
  inOrigins(origin: Origin): string {
    return messageOf(this.problems, this.advice, origin)
  }
}

function messageOf(
  problems: readonly { path: string; message: string }[],
  advice: string | undefined,
  origin: Origin,
): string {
  const lines = problems.map(({ path, message }) => `${origin(path)}: ${message}`)
  return (advice === undefined ? lines : [...lines, advice]).join('\n')
}

/**
 * Checks a recipe and fills in its defaults.
 * Throws UserError with one line per problem; each names the key (through `origin`) and what to write instead.
 */
export function parseRecipe(value: unknown, origin: Origin = (path) => path): Recipe {
  const result = check(recipeSchema, value)
  if ('problems' in result) throw new UserError(problemLines(result.problems, origin).join('\n'))
  const conflicts = findConflicts(result.data)
  if (conflicts.length > 0) {
    throw new UserError(conflicts.map(({ path, message }) => `${origin(path)}: ${message}`).join('\n'))
  }
  return result.data
}

/** `parseRecipe` for an accelerator. */
export function parseAcceleratorRecipe(value: unknown, origin: Origin = (path) => path): AcceleratorRecipe {
  const result = check(acceleratorSchema, value)
  if ('problems' in result) throw new UserError(problemLines(result.problems, origin, acceleratorSchema).join('\n'))
  const { train, data, adapter } = result.data
  const conflicts = trainConflicts(train)
  if (adapter.block_size + 1 >= data.max_seq_len)
    conflicts.push({
      path: 'adapter.block_size',
      message: `${adapter.block_size} masks do not fit into data.max_seq_len ${data.max_seq_len}`,
    })
  if (conflicts.length > 0)
    throw new UserError(conflicts.map(({ path, message }) => `${origin(path)}: ${message}`).join('\n'))
  return result.data
}

/** Checks the sections that a command without a whole recipe takes. Errors as in `parseRecipe`. */
export function parseSections(value: unknown, origin: Origin = (path) => path): Pick<Recipe, 'decode' | 'eval'> {
  const result = check(z.strictObject({ decode: decode.prefault({}), eval: evaluation.prefault({}) }), value)
  if ('data' in result) return result.data
  throw new UserError(problemLines(result.problems, origin).join('\n'))
}

/** Checks prices that replace those of a recipe: only those that are given are returned. Errors as in `parseRecipe`. */
export function parsePrices(value: unknown, origin: Origin = (path) => path): Partial<Recipe['cost']> {
  const { cost = {} } = value as { cost?: object }
  const result = check(z.strictObject({ cost: costSettings }), { cost })
  if ('problems' in result) throw new UserError(problemLines(result.problems, origin).join('\n'))
  return Object.fromEntries(Object.entries(result.data.cost).filter(([key]) => key in cost))
}

/** A line for each problem; each names the key (through `origin`). */
export const problemLines = (
  problems: readonly Problem[],
  origin: Origin,
  schema: z.ZodType = recipeSchema,
): string[] =>
  problems.map(({ path, message, unknownKey }) => {
    const key = path.join('.')
    return `${origin(key)}: ${message}${unknownKey ? suggestion(key, schema) : ''}`
  })

const defaultDiffusion = diffusion.parse({})

/** What of the section `diffusion` the objective hybrid reads. */
const hybridSettings = [
  ...['block_size', 'copies', 'diffusion_loss_weight', 'mask_token', 'confidence_beta', 'confidence_temperature'],
]

const changed = (value: unknown, byDefault: unknown): boolean => JSON.stringify(value) !== JSON.stringify(byDefault)

/** Rules between settings. A default is never in conflict, so that a recipe with its defaults filled in parses again. */
function findConflicts(recipe: Recipe): { path: string; message: string }[] {
  const { train, diffusion, data } = recipe
  const found = trainConflicts(train)
  const add = (path: string, message: string) => found.push({ path, message })
  if (recipe.executor === 'torch') {
    const { processes, expert_parallel } = recipe
    if (train.global_batch_size % (train.micro_batch_size * processes) !== 0)
      add(
        'processes',
        `train.global_batch_size ${train.global_batch_size} is not a multiple of train.micro_batch_size ${train.micro_batch_size} x ${processes} processes`,
      )
    if (processes % expert_parallel !== 0)
      add('expert_parallel', `${expert_parallel} does not divide processes ${processes}`)
  } else {
    for (const [name, byDefault] of [
      ['dtype', 'float32'],
      ['processes', 1],
      ['expert_parallel', 1],
    ] as const)
      if (recipe[name] !== byDefault) add(name, 'has a meaning only with executor: torch')
  }
  if (recipe.moe.router === 'frozen' && recipe.moe.router_aux_loss_coef > 0) {
    add('moe.router_aux_loss_coef', 'balances through the routers: needs moe.router: trained')
  }
  if (recipe.lora.dora && recipe.lora.rank === 0) {
    add('lora.dora', 'changes low-rank weights: needs lora.rank')
  }
  if (recipe.lora.rank > 0 && recipe.init === 'random') {
    add('lora.rank', 'low-rank weights change a trained model: needs init: pretrained')
  }
  if (recipe.lora.rank > 0 && recipe.eval.from_random > 0) {
    add('eval.from_random', 'trains all weights: has no meaning with lora.rank')
  }
  if (recipe.eval.from_random > 0 && (recipe.init === 'random' || recipe.objective === 'ar')) {
    add(
      'eval.from_random',
      'compares with a conversion from base weights: needs objective: diffusion or hybrid, init: pretrained',
    )
  }
  if (diffusion.confidence_beta === 0 && diffusion.confidence_temperature !== 1)
    add('diffusion.confidence_temperature', 'has a meaning only with diffusion.confidence_beta')
  if (recipe.objective === 'ar') {
    if (changed(diffusion, defaultDiffusion)) {
      add('diffusion', 'has no meaning with objective: ar; remove this section or the objective')
    }
    return found
  }
  if (recipe.objective === 'hybrid') {
    for (const [name, value] of Object.entries(diffusion))
      if (!hybridSettings.includes(name) && changed(value, defaultDiffusion[name as keyof typeof diffusion]))
        add(`diffusion.${name}`, 'has no meaning with objective: hybrid; remove it')
    return found
  }
  if (changed(diffusion.diffusion_loss_weight, defaultDiffusion.diffusion_loss_weight))
    add('diffusion.diffusion_loss_weight', 'has a meaning only with objective: hybrid')
  if (!Number.isInteger(diffusion.copies))
    add('diffusion.copies', `expected a whole number with objective: diffusion, not ${diffusion.copies}`)
  if (diffusion.noise_range_low > diffusion.noise_range_high || diffusion.noise_range_high === 0) {
    add(
      'diffusion.noise_range_low',
      `expected 0 <= noise_range_low <= noise_range_high <= 1 and a band above 0, not ${diffusion.noise_range_low} to ${diffusion.noise_range_high}`,
    )
  }
  if (diffusion.complementary_masking && diffusion.copies % 2 !== 0) {
    add('diffusion.complementary_masking', `needs an even diffusion.copies, not ${diffusion.copies}`)
  }
  if (train.early_stop > 0 && diffusion.schedule !== 'constant')
    add('train.early_stop', 'the bound rises and falls with the block size: needs diffusion.schedule: constant')
  for (const name of ['own_predictions', 'corrupted_tokens'] as const) {
    if (diffusion[name] === 0) continue
    if (diffusion.loss_weighting === 'elbo')
      add(`diffusion.${name}`, 'the loss is over visible tokens too, which no bound weighs: needs loss_weighting: mean')
    if (diffusion.schedule !== 'constant') add(`diffusion.${name}`, 'needs schedule: constant')
  }
  if (diffusion.own_predictions === 0 && diffusion.own_turns > 1)
    add('diffusion.own_turns', 'has a meaning only with diffusion.own_predictions')
  if (diffusion.group_size > 1) {
    if (diffusion.complementary_masking)
      add('diffusion.group_size', 'the mask ratios of a group rise: needs complementary_masking: false')
    if (diffusion.noise_per === 'sequence')
      add('diffusion.group_size', 'blocks of a group have mask ratios of their own: needs noise_per: block')
    if (diffusion.schedule !== 'constant')
      add('diffusion.group_size', 'groups are of blocks of one size: needs schedule: constant')
  }
  if (diffusion.block_size > data.max_seq_len || data.max_seq_len % diffusion.block_size !== 0) {
    add('diffusion.block_size', `${diffusion.block_size} does not divide data.max_seq_len ${data.max_seq_len}`)
  }
  if (diffusion.schedule !== 'wsd' && changed(diffusion.shares, defaultDiffusion.shares)) {
    add('diffusion.shares', 'has a meaning only with schedule: wsd')
  }
  if (diffusion.embedding_noise_sigma > 0 !== diffusion.embedding_noise_steps > 0) {
    add('diffusion.embedding_noise_sigma', 'set embedding_noise_sigma and embedding_noise_steps together')
  }
  return found
}

export function trainConflicts(train: Omit<Recipe['train'], 'total_tokens'>): { path: string; message: string }[] {
  const found: { path: string; message: string }[] = []
  if (train.global_batch_size % train.micro_batch_size !== 0)
    found.push({
      path: 'train.global_batch_size',
      message: `${train.global_batch_size} is not a multiple of train.micro_batch_size ${train.micro_batch_size}`,
    })
  if (train.early_stop > 0 && train.save_steps === 0)
    found.push({ path: 'train.early_stop', message: 'looks at saved checkpoints: needs train.save_steps' })
  if (train.lr_min > train.lr)
    found.push({ path: 'train.lr_min', message: `${train.lr_min} is above train.lr ${train.lr}` })
  return found
}

/** ` (did you mean train.lr?)`, or nothing where no known key is near. */
function suggestion(path: string, schema: z.ZodType): string {
  const known = new Set<string>()
  for (const setting of recipeSettings(schema)) {
    const parts = setting.path.split('.')
    for (let length = 1; length <= parts.length; length++) known.add(parts.slice(0, length).join('.'))
  }
  const near = nearest(path, [...known])
  return near === undefined ? '' : `; did you mean ${near}?`
}

/**
 * The candidate that is nearest to `word`, or undefined where none is near. A candidate whose last part is the same wins,
 * because the commonest mistake is a key in the wrong section.
 */
export function nearest(word: string, candidates: readonly string[]): string | undefined {
  const last = (path: string) => path.slice(path.lastIndexOf('.') + 1)
  let best: string | undefined
  let bestDistance = Number.POSITIVE_INFINITY
  for (const candidate of candidates) {
    const distance = Math.min(editDistance(word, candidate), editDistance(last(word), last(candidate)) + 0.5)
    if (distance < bestDistance) {
      best = candidate
      bestDistance = distance
    }
  }
  return bestDistance <= Math.max(2, last(word).length / 3) ? best : undefined
}

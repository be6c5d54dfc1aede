// Measures a model, and its base beside it, on tasks and texts, and keeps every answer: what a conversion costs and keeps.
import { appendFile, readFile, rm } from 'node:fs/promises'
import { join } from 'node:path'
import * as z from 'zod'
import { provenance, publishable } from '../account/provenance.ts'
import { exists, readText, writeTextAtomically } from '../checkpoint/file.ts'
import { type InferenceModel, loadForInference } from '../checkpoint/load.ts'
import { type Device, UserError } from '../core/types.ts'
import { type Batch, checkRows, type DataOptions, validationBatches } from '../data/index.ts'
import { isScored } from '../data/scored.ts'
import {
  type DecodingMode,
  type DecodingSettings,
  modelDecoding,
  settingsFromKeys,
  settingsOfMode,
} from '../decode/index.ts'
import { calibrationBins } from '../eval/calibration-error.ts'
import { calibrateConfidence } from '../eval/confidence-calibration.ts'
import { type Comparisons, compareRuns } from '../eval/suite/compare.ts'
import {
  type AnswerStore,
  answersOf,
  type Condition,
  type Contestant,
  type HarnessOptions,
  runTask,
} from '../eval/suite/harness.ts'
import { suitePage } from '../eval/suite/page.ts'
import { type Answer, answerSchema, type DomainRun, type SuiteRun } from '../eval/suite/records.ts'
import { parameterCounts } from '../models/index.ts'
import type { Executor } from '../runtime/executor.ts'
import { createExecutor } from '../runtime/onnxruntime/executor.ts'
import { openTask, parseTask } from '../tasks/open.ts'
import { createSandbox, type RunProgram } from '../tasks/sandbox.ts'
import { written } from '../text/assemble.ts'
import { createGenerator, type Generator } from '../text/generator.ts'
import { promptIds, promptStyle, textIds } from '../text/prompt.ts'
import { createEvaluator } from '../train/evaluator.ts'
import { type RunFolderOptions, withRunFolder, writeRunRecipe } from '../train/run-folder.ts'
import { allDocuments, wholeFiles } from './evaluate.ts'
import type { SuiteRecipe } from './suite-recipe.ts'

export type SuiteEvent =
  | { type: 'phase'; message: string }
  | { type: 'answers'; task: string; done: number; total: number; secondsLeft: number }

export interface SuiteOptions extends RunFolderOptions {
  recipe: SuiteRecipe
  /** The recipe as YAML, kept beside the run. */
  yaml: string
  command: string
  device?: Device
  signal?: AbortSignal
  /** Brings a model to this machine before it is loaded. */
  fetch?: (model: string) => Promise<unknown>
  onEvent?: (event: SuiteEvent) => void
}

export interface SuiteResult {
  run: SuiteRun
  base: SuiteRun | undefined
  /** The model beside its base. */
  comparisons: Comparisons | undefined
  files: string[]
}

/** What a measurement leaves behind; answers only until it is done. */
const RESULTS = ['model.json', 'base.json', 'report.html']
const ANSWERS = 'answers.jsonl'

/** A model that takes part. */
interface Entrant {
  name: 'model' | 'base'
  source: string
  loaded: InferenceModel
  generator: Generator
  /** Its decoding settings: those of the recipe that its mode reads. */
  settings: DecodingSettings
  mode: DecodingMode
}

/** Throws UserError for wrong rows, files or settings, and where the folder holds a run already. */
export async function suite(options: SuiteOptions): Promise<SuiteResult> {
  const folder = options.recipe.output_dir
  return withRunFolder(folder, options, async () => {
    await checkResults(folder, options)
    return suiteInFolder(options)
  })
}

/** Throws where results would be replaced: those of a measurement that is done, or files of another origin. */
async function checkResults(folder: string, { resume = false, force = false }: Pick<SuiteOptions, 'resume' | 'force'>) {
  if (force) return
  const found: string[] = []
  for (const name of [ANSWERS, ...RESULTS]) if (await exists(join(folder, name))) found.push(name)
  if (resume && found.length > 0 && !found.includes(ANSWERS))
    throw new UserError(`${folder}: is measured already (${found.join(', ')}); --force measures it again`)
  if (!resume && found.length > 0)
    throw new UserError(`${folder} holds ${found.join(', ')}, which this run would replace: name another folder`)
}

async function suiteInFolder(options: SuiteOptions): Promise<SuiteResult> {
  const { recipe, signal, onEvent = () => undefined, fetch } = options
  const phase = (message: string) => onEvent({ type: 'phase', message })
  const domains = recipe.texts.map((text) => {
    const at = text.indexOf('=')
    return { name: text.slice(0, at), path: text.slice(at + 1) }
  })
  await Promise.all(domains.map(({ path }) => checkRows({ paths: [path] })))
  const executor = createExecutor({ threads: recipe.threads || undefined, device: options.device })
  const entrants: Entrant[] = []
  try {
    const sources = [
      ['model', recipe.model],
      ...(recipe.base === undefined ? [] : [['base', recipe.base] as const]),
    ] as const
    for (const [, source] of sources) await fetch?.(source)
    for (const [name, source] of sources) {
      phase(`loading ${source}`)
      entrants.push(await enter(executor, name, source, recipe, signal))
    }
    // One template for all: what is compared is the model, not the frame around its prompts.
    const { template } = promptStyle((entrants[0] as Entrant).loaded, { template: recipe.template })
    let sandbox: Promise<RunProgram> | undefined
    const opened = []
    for (const text of recipe.tasks)
      opened.push(
        await openTask(parseTask(text), {
          ...{ read: readText, template, seed: recipe.seed, seededRows: recipe.task_rows },
          sandbox: () => {
            sandbox ??= createSandbox({ signal })
            return sandbox
          },
        }),
      )
    const names = opened.map(({ task }) => task.name)
    const twice = names.find((name, i) => names.indexOf(name) !== i)
    if (twice !== undefined) throw new UserError(`tasks: ${twice} is named twice`)
    await writeRunRecipe(recipe.output_dir, options.yaml)
    const journal = await openJournal(join(recipe.output_dir, ANSWERS), options.resume ?? false)
    const contestants = entrants.map((entrant) => contestantOf(entrant, { ...recipe, template }))
    const conditions: Condition[] = [
      { name: 'plain' },
      ...recipe.thresholds.map((threshold) => ({ name: `threshold ${threshold}`, threshold })),
      ...recipe.noise.map((noise) => ({ name: noise, noise })),
    ]
    const given = recipe.decode.max_new_tokens
    const runs = opened.map(
      ({ task, rows, samples, maxNewTokens }): HarnessOptions => ({
        ...{ task, conditions, seed: recipe.seed, store: journal, signal },
        rows: rows ?? recipe.task_rows,
        samples: task.choices ? 1 : (samples ?? recipe.samples),
        maxNewTokens: maxNewTokens ?? given,
      }),
    )
    const parts = entrants.map((): Pick<SuiteRun, 'tasks' | 'domains'> => ({ tasks: [], domains: [] }))
    for (const { name, path } of domains) {
      phase(`likelihood of ${name}`)
      for (const [i, entrant] of entrants.entries())
        parts[i]?.domains.push(
          await measureDomain(executor, entrant, { name, path, first: entrants[0] as Entrant, recipe, signal }),
        )
    }
    const total = runs.reduce((sum, run) => sum + answersOf(contestants, run), 0)
    let done = 0
    let fresh = 0
    const began = performance.now()
    for (const run of runs) {
      const tasks = await runTask(contestants, {
        ...run,
        onAnswer: () => {
          done++
          fresh = journal.fresh
          const pace = fresh === 0 ? 0 : (performance.now() - began) / 1000 / fresh
          onEvent({ type: 'answers', task: run.task.name, done, total, secondsLeft: pace * (total - done) })
        },
      })
      for (const [i, task] of tasks.entries()) parts[i]?.tasks.push(task)
    }
    const records = entrants.map(
      (entrant, i): SuiteRun => ({
        format: 'unmask-eval-1',
        ...provenance(options.command, recipe.threads || undefined),
        model: {
          source: publishable(entrant.source),
          name: entrant.loaded.name,
          mode: entrant.mode,
          blockSize: entrant.generator.blockSize,
          parameters: parameterCounts(entrant.loaded.model).total,
        },
        settings: {
          template,
          seed: recipe.seed,
          text_tokens: recipe.text_tokens,
          draws: recipe.draws,
          decode: settingsOfMode(entrant.settings, entrant.mode),
        },
        ...(parts[i] as Pick<SuiteRun, 'tasks' | 'domains'>),
      }),
    )
    const [run, base] = records as [SuiteRun, SuiteRun | undefined]
    const comparisons = base && compareRuns(base, run)
    const files: string[] = []
    const keep = async (name: string, text: string) => {
      const path = join(recipe.output_dir, name)
      await writeTextAtomically(path, text)
      files.push(path)
    }
    for (const [i, record] of records.entries())
      await keep(`${(entrants[i] as Entrant).name}.json`, `${JSON.stringify(record, null, 1)}\n`)
    await keep('report.html', suitePage({ run, base, comparisons }))
    // Every answer stands in the files now.
    await rm(journal.path, { force: true })
    return { run, base, comparisons, files }
  } finally {
    for (const { generator } of entrants) await generator.dispose()
    await executor.dispose()
  }
}

async function enter(
  executor: Executor,
  name: Entrant['name'],
  source: string,
  recipe: SuiteRecipe,
  signal: AbortSignal | undefined,
): Promise<Entrant> {
  const loaded = await loadForInference(source, { signal })
  const mode = name === 'base' ? 'ar' : (recipe.mode ?? modelDecoding(loaded).mode)
  const generator = await createGenerator(executor, loaded, { mode, blockSize: recipe.block_size })
  const { maxNewTokens: _, ...settings } = settingsFromKeys(recipe.decode)
  return { name, source, loaded, generator, mode, settings: settingsOfMode(settings, mode) }
}

function contestantOf({ name, loaded, generator, settings, mode }: Entrant, recipe: SuiteRecipe): Contestant {
  const { tokenizer } = loaded
  return {
    name,
    hasThreshold: mode !== 'ar',
    async write({ prompt, plain, answerPrefix, stop, maxNewTokens, seed, threshold }) {
      const style = { template: recipe.template }
      const chat = promptStyle(loaded, style).template === 'chat'
      const answer = chat ? answerPrefix : undefined
      const ids = plain ? textIds(prompt, loaded) : promptIds(prompt, loaded, { ...style, answer })
      const at = threshold === undefined ? {} : { threshold }
      const result = await written(generator.write(ids, { ...settings, ...at, maxNewTokens, seed, stop }))
      const { text, tokens, forwards, seconds, prefillSeconds, stop: reason } = result
      return { text, tokens, forwards, seconds, firstSeconds: prefillSeconds, stop: reason }
    },
    async choose(prompt, choices) {
      const before = textIds(prompt, loaded)
      if (before.length === 0) throw new UserError('the prompt of a choice has no tokens: there is nothing to continue')
      const sums: number[] = []
      for (const choice of choices) {
        const after = tokenizer.encode(choice, { special: 'text', continues: true })
        const scores = await generator.score([...before, ...after], { samples: recipe.draws, seed: recipe.seed })
        sums.push(scores.slice(before.length).reduce((sum, score) => sum + (score?.logprob ?? 0), 0))
      }
      return sums
    },
  }
}

/** Texts of a domain that its calibration is measured on. */
const CALIBRATED = 64

/** Rows of all entrants are packed as the first one's, so that they can be compared by row where the tokens are the same. */
async function measureDomain(
  executor: Executor,
  { loaded, generator, mode }: Entrant,
  {
    name,
    path,
    first,
    recipe,
    signal,
  }: { name: string; path: string; first: Entrant; recipe: SuiteRecipe; signal: AbortSignal | undefined },
): Promise<DomainRun> {
  const { config } = loaded.model
  const decoding = modelDecoding(loaded)
  const isBound = mode === 'diffusion' && !decoding.causalContext
  const packed = first.mode === 'diffusion' ? first.generator.blockSize : 1
  const block = isBound ? generator.blockSize : 1
  const options: DataOptions = wholeFiles([path], loaded, {
    ...{ template: recipe.template, blockSize: Math.max(packed, block), seed: recipe.seed },
  })
  const batches = await validationBatches({ ...options, validationFraction: allDocuments }, recipe.text_tokens)
  if (batches.length === 0) throw new UserError(`${path}: has no text to measure`)
  const evaluator = createEvaluator(executor, loaded.model, loaded.parameters, {
    ...(isBound ? { maskTokenId: Number(config.mask_token_id) } : {}),
    shift: config.same_token_labels === false,
    finalBlockSize: block,
  })
  const rows: DomainRun['rows'] = []
  try {
    for (const [i, batch] of batches.entries()) {
      signal?.throwIfAborted()
      const { nll, stderr, tokens, bytes } = await evaluator.evaluate([batch], {
        ...{ blockSize: isBound ? block : 'ar', seed: recipe.seed + i, samples: recipe.draws },
      })
      rows.push({ nats: nll * tokens, stderr: stderr * tokens, tokens, bytes })
    }
  } finally {
    await evaluator.dispose()
  }
  const texts = batches.flatMap(documentsOf).slice(0, CALIBRATED)
  const calibration = isBound
    ? await calibrateConfidence(executor, loaded, texts, { blockSize: block, seed: recipe.seed, signal }).then(
        ({ ece, tokens }) => ({ error: ece.raw, tokens }),
      )
    : await nextTokenCalibration(generator, texts, signal)
  return { name, exact: !isBound, rows, calibration }
}

/** The documents of a batch of one row, without padding; `start` is where what is scored begins. */
function documentsOf(batch: Batch): { ids: number[]; start: number }[] {
  const found = new Map<number, { ids: number[]; start: number }>()
  for (const [i, document] of batch.documents.entries()) {
    if (document < 0 || batch.padding[i] === 1) continue
    const text = found.get(document) ?? { ids: [], start: Number.POSITIVE_INFINITY }
    if (isScored(batch, i)) text.start = Math.min(text.start, text.ids.length)
    text.ids.push(batch.ids[i] as number)
    found.set(document, text)
  }
  return [...found.values()].filter(({ start }) => Number.isFinite(start))
}

async function nextTokenCalibration(
  generator: Generator,
  texts: readonly { ids: number[]; start: number }[],
  signal: AbortSignal | undefined,
): Promise<DomainRun['calibration']> {
  const bins = calibrationBins()
  for (const { ids, start } of texts) {
    const scores = await generator.score(ids, { top: 1, signal })
    for (let i = start; i < ids.length; i++) {
      const best = scores[i]?.top[0]
      if (best) bins.add(Math.exp(best.logprob), best.token === ids[i])
    }
  }
  return { error: bins.error(), tokens: bins.count }
}

interface Journal extends AnswerStore {
  path: string
  /** Answers that were put. */
  readonly fresh: number
}

const journalLine = z.object({ key: z.string(), answer: answerSchema })

/** What a line of the journal holds; undefined for an empty one, and for one that an interruption cut. */
function journalEntry(line: string): { key: string; answer: Answer } | undefined {
  let value: unknown
  try {
    value = JSON.parse(line)
  } catch {
    return undefined
  }
  return journalLine.safeParse(value).data
}

/** Answers so far, one a line. Lines that an interruption cut are asked again. */
async function openJournal(path: string, resume: boolean): Promise<Journal> {
  const known = new Map<string, Answer>()
  if (!resume) await rm(path, { force: true })
  else if (await exists(path))
    for (const line of (await readFile(path, 'utf8')).split('\n')) {
      const entry = journalEntry(line)
      if (entry) known.set(entry.key, entry.answer)
    }
  // What follows a cut line begins a new one.
  let fresh = 0
  return {
    path,
    get fresh() {
      return fresh
    },
    get: (key) => known.get(key),
    async put(key, answer) {
      await appendFile(path, `${fresh === 0 ? '\n' : ''}${JSON.stringify({ key, answer })}\n`)
      fresh++
    },
  }
}

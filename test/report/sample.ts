// A made-up report for the tests: every part present, with text that would be markup if it were not escaped.
import type { EvaluationPoint, ReportData, TrainingPoint } from '../../src/eval/report/types.ts'

const schedule = [
  { blockSize: 1, tokens: 100_000 },
  { blockSize: 4, tokens: 100_000 },
  { blockSize: 32, tokens: 200_000 },
  { blockSize: 128, tokens: 500_000 },
  { blockSize: 64, tokens: 300_000 },
  { blockSize: 16, tokens: 300_000 },
  { blockSize: 8, tokens: 1_500_000 },
]
const total = 3_000_000

function blockSizeAt(tokens: number): number {
  let end = 0
  for (const stage of schedule) {
    end += stage.tokens
    if (tokens <= end) return stage.blockSize
  }
  return 8
}

function curve(start: number, end: number, rate: number): EvaluationPoint[] {
  return Array.from({ length: 16 }, (_, index) => {
    const tokens = (index * total) / 15
    const nelbo = end + (start - end) * Math.exp((-rate * tokens) / total)
    return { step: index * 50, tokens, blockSize: blockSizeAt(tokens), nelbo, bitsPerByte: nelbo / Math.LN2 }
  })
}

const score = (accuracy: number) => ({ rows: 400, accuracy, low: accuracy - 0.03, high: Math.min(1, accuracy + 0.02) })

export function sampleReport(): ReportData {
  const points: TrainingPoint[] = Array.from({ length: 732 }, (_, index) => {
    const tokens = (index + 1) * 4096
    const wobble = Math.sin(index * 12.9898) * 0.18
    return {
      step: index + 1,
      tokens,
      blockSize: blockSizeAt(tokens),
      loss: 1.1 + 1.9 * Math.exp((-4 * tokens) / total) + wobble,
      gradNorm: 0.8,
      learningRate: 1e-3,
      tokensPerSecond: 5200,
    }
  })
  const sweep = [0.5, 0.7, 0.9, 0.95].map((threshold, index) => ({
    threshold,
    score: score(0.9 + index * 0.015),
    tokens: 3200,
    forwards: 600 + index * 90,
    tokensPerForward: 5.3 - index * 0.5,
    tokensPerSecond: 900 - index * 80,
  }))
  const fromBase = curve(2.6, 0.9, 6)
  const fromRandom = curve(5.5, 1, 3.2)
  return {
    format: 1,
    title: 'tiny <model> & its blocks',
    summary: 'The tiny model was converted for 3,000,000 tokens and decoded in blocks of 8.',
    created: '2026-01-02T03:04:05.000Z',
    command: 'unmask convert --recipe recipe.yaml',
    seed: 7,
    versions: { unmask: '0.1.0', node: 'v20.0.0', 'onnxruntime-node': '1.30.0' },
    machine: { cpu: 'Example CPU', cores: 2, memoryBytes: 24 * 2 ** 30, platform: 'linux x64', threads: 2 },
    model: {
      name: 'tiny',
      architecture: 'llama',
      parameters: 860_000,
      vocabSize: 264,
      maskToken: { id: 258, token: '<|mask|>' },
    },
    settings: { model: 'models/tiny', train: { lr: 0.001 }, diffusion: { block_size: 8 } },
    training: {
      objective: 'diffusion',
      tokens: total,
      steps: 732,
      seconds: 577,
      tokensPerSecond: 5200,
      peakMemoryBytes: 700 * 2 ** 20,
      account: undefined,
      interrupted: false,
      schedule,
      points,
      evaluations: fromBase,
    },
    ar: {
      bitsPerByte: 1.12,
      nll: 0.78,
      score: score(0.955),
      tokens: 3300,
      forwards: 3300,
      tokensPerForward: 1,
      tokensPerSecond: 310,
    },
    diffusion: { bitsPerByte: 1.31, nll: 0.9, ...sweep[2]!, threshold: 0.9, blockSize: 8 },
    tasks: ['add', 'sort', 'reverse', 'count'].map((task) => ({ task, ar: score(0.95), diffusion: score(0.93) })),
    sweep,
    tokenEfficiency: { fromBase, fromRandom, target: 0.904, tokensFromBase: 2_900_000, tokensFromRandom: undefined },
    samples: [
      { task: 'add', prompt: 'add(12,30)=', expected: '42', ar: '42', diffusion: '42' },
      { task: 'sort', prompt: 'sort(`<b>|cab)=', expected: 'abc', ar: 'abc', diffusion: 'ab\nc<script>' },
    ],
  }
}

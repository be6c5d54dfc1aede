// The generator behind one interface. (Bridges to the engine's present form.)
import type { GenerationResult } from '../../decode/index.ts'
import type { Generator } from '../../generate.ts'
import type { GenerateJob } from './protocol.ts'

export interface DecodeStep {
  step: number
  tokens: {
    position: number
    token: number
    confidence: number
    logprob?: number
    edited?: true
    top?: { token: number; logprob: number }[]
  }[]
  final: number
}

export async function* startGeneration(
  generator: Generator,
  prompt: readonly number[],
  job: GenerateJob,
  signal: AbortSignal,
): AsyncGenerator<DecodeStep, GenerationResult & { cachedTokens: number }, void> {
  const { threshold } = job.sampling
  const generation = generator.generate(prompt, {
    maxNewTokens: job.maxNewTokens,
    signal,
    ...(threshold === undefined ? {} : { threshold }),
  })
  const known = new Set<number>()
  let final = prompt.length
  let step: DecodeStep | undefined
  try {
    for (;;) {
      const { done, value } = await generation.next()
      if (step && (done || value.step !== step.step)) {
        while (known.has(final)) final++
        yield { ...step, final }
        step = undefined
      }
      if (done) return { ...value, cachedTokens: 0 }
      step ??= { step: value.step, tokens: [], final }
      step.tokens.push(value)
      known.add(value.position)
    }
  } finally {
    await generation.return(undefined as never)
  }
}

// Sends a prompt to a model, as a chat or as plain text, as the settings say.
import type { ModelInfo, Run } from './api.ts'
import type { Context } from './context.ts'

export interface Turn {
  role: 'user' | 'assistant'
  content: string
}

/** The last turn is the prompt. Rejects as `Client.run` does, or with RangeError for a setting. */
export function send(
  { client, settings }: Context,
  model: ModelInfo,
  turns: readonly Turn[],
  { signal, onUpdate }: { signal: AbortSignal; onUpdate(run: Run): void },
): Promise<Run> {
  const most = settings.maxTokens()
  const common = { model: model.id, ...settings.fields(model) }
  const options = { most, blockSize: settings.blockSize(model), signal, onUpdate }
  if (!settings.asChat(model)) {
    const prompt = turns.at(-1)?.content ?? ''
    return client.run({ path: '/v1/completions', body: { ...common, prompt, max_tokens: most }, ...options })
  }
  const system = settings.system()
  const messages = [...(system === '' ? [] : [{ role: 'system', content: system }]), ...turns]
  const body = { ...common, messages, max_completion_tokens: most }
  return client.run({ path: '/v1/chat/completions', body, ...options })
}

/** Prompts to begin with: a model without a chat template continues text. */
export const examples = (chat: boolean): readonly string[] =>
  chat
    ? [
        'Explain in two sentences how a diffusion language model writes.',
        'Write a short poem about fog.',
        'List five uses of a brick.',
      ]
    : ['reverse(stone)=', 'add(000407,081536)=', 'sort(8304117)=', 'My fellow citizens, ']

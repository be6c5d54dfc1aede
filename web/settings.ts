// The settings panel: what a request says beside its text. The key lives in its field and nowhere else.
import type { ModelInfo } from './api.ts'
import { h } from './dom.ts'

export interface Settings {
  element: HTMLElement
  key(): string
  /** Shows the field of the key. */
  askKey(): void
  /** Most tokens of an answer. */
  maxTokens(): number
  system(): string
  /** Whether prompts go through the model's chat template. */
  asChat(model: ModelInfo): boolean
  sendAs(format: 'chat' | 'text'): void
  /** Size of the blocks that the model will decode; undefined where there are none. */
  blockSize(model: ModelInfo): number | undefined
  /** Sampling and, for what decodes in blocks, `unmask`. Throws where a value is out of range, at its field. */
  fields(model: ModelInfo): Record<string, unknown>
  /** For a text that is mended: only what block decoding shares. */
  rewriteFields(): Record<string, unknown>
}

interface NumberField {
  name: string
  label: string
  hint: string
  min: number
  max: number
  step: number | 'any'
  placeholder: string
  /** Only for these strategies; '' is the model's own. */
  strategies?: readonly string[]
}

const strategies = [
  ['', 'model default'],
  ['threshold', 'threshold'],
  ['fixed', 'fixed number'],
  ['hierarchy', 'hierarchy'],
  ['credit', 'credit'],
  ['factor', 'factor'],
  ['entropy_bound', 'entropy bound'],
  ['edit', 'edit'],
  ['soft', 'soft'],
] as const

const share = { min: 0, max: 1, step: 'any' as const }

const sampling: readonly NumberField[] = [
  { name: 'max_tokens', label: 'Longest answer', hint: 'tokens', min: 1, max: 100_000, step: 1, placeholder: '128' },
  {
    name: 'temperature',
    label: 'Temperature',
    hint: '0 takes the most probable token',
    min: 0,
    max: 2,
    step: 'any',
    placeholder: '0',
  },
  { name: 'top_p', label: 'Top p', hint: 'draw from this share of probability', ...share, placeholder: '1' },
  {
    name: 'seed',
    label: 'Seed',
    hint: 'the same seed, the same answer',
    min: 0,
    max: Number.MAX_SAFE_INTEGER,
    step: 1,
    placeholder: 'random',
  },
]

const decoding: readonly NumberField[] = [
  {
    ...{ name: 'threshold', label: 'Threshold', hint: 'commit tokens that are surer than this', ...share },
    ...{ placeholder: 'default', strategies: ['', 'threshold', 'hierarchy', 'credit', 'edit', 'soft'] },
  },
  {
    ...{
      name: 'low_threshold',
      label: 'Lower threshold',
      hint: 'of each run of masks, commit the surest above this',
      ...share,
    },
    ...{ placeholder: 'default', strategies: ['hierarchy'] },
  },
  {
    ...{ name: 'tokens_per_step', label: 'Tokens per step', hint: 'commit so many in each forward' },
    ...{ min: 1, max: 4096, step: 1 as const, placeholder: 'default', strategies: ['fixed'] },
  },
  {
    ...{ name: 'factor', label: 'Factor', hint: 'larger commits more at a time', min: 0, max: 1e6 },
    ...{ step: 'any' as const, placeholder: 'default', strategies: ['factor'] },
  },
  {
    ...{ name: 'entropy_bound', label: 'Entropy bound', hint: 'larger commits more at a time', min: 0, max: 1e6 },
    ...{ step: 'any' as const, placeholder: 'default', strategies: ['entropy_bound'] },
  },
  {
    ...{
      name: 'editing_threshold',
      label: 'Editing threshold',
      hint: 'replace a token by one surer than this',
      ...share,
    },
    ...{ placeholder: '0.5', strategies: ['edit', 'soft'] },
  },
  {
    name: 'block_size',
    label: 'Block size',
    hint: 'positions decoded together',
    min: 1,
    max: 128,
    step: 1,
    placeholder: 'default',
  },
  {
    name: 'buffer_size',
    label: 'Buffer',
    hint: 'blocks refined at a time',
    min: 1,
    max: 4,
    step: 1,
    placeholder: 'default',
  },
]

export function createSettings(onChange: () => void): Settings {
  const inputs = new Map<string, HTMLInputElement>()
  const rows = new Map<string, HTMLElement>()
  const changed = () => {
    showFields()
    onChange()
  }

  function row(label: string, control: HTMLElement, hint?: string): HTMLElement {
    const id = `setting-${control.getAttribute('name')}`
    control.id = id
    if (hint) control.setAttribute('aria-describedby', `${id}-hint`)
    return h(
      'div',
      { class: 'row' },
      h('label', { for: id }, label),
      control,
      hint && h('small', { id: `${id}-hint` }, hint),
    )
  }

  function numberRow({ name, label, hint, min, max, step, placeholder }: NumberField): HTMLElement {
    const input = h('input', {
      type: 'number',
      name,
      min,
      max,
      step,
      placeholder,
      inputmode: 'decimal',
      onchange: changed,
    })
    inputs.set(name, input)
    const element = row(label, input, hint)
    rows.set(name, element)
    return element
  }

  const select = (name: string, options: readonly (readonly [string, string])[]) =>
    h('select', { name, onchange: changed }, ...options.map(([value, label]) => h('option', { value }, label)))

  const key = h('input', {
    type: 'password',
    name: 'key',
    autocomplete: 'off',
    spellcheck: 'false',
    onchange: onChange,
  })
  const format = select('format', [
    ['auto', 'automatically'],
    ['chat', 'as a chat'],
    ['text', 'as plain text'],
  ])
  const system = h('textarea', { name: 'system', rows: 2, onchange: onChange })
  const strategy = select('strategy', strategies)
  const group = (title: string, ...children: HTMLElement[]) => h('fieldset', {}, h('legend', {}, title), ...children)
  const form = h(
    'form',
    { class: 'settings', autocomplete: 'off', onsubmit: (event: Event) => event.preventDefault() },
    group('Prompt', row('Prompts are sent', format), row('System message', system, 'chats only')),
    group('Sampling', ...sampling.map(numberRow)),
    group('Block decoding', row('Strategy', strategy, 'what a forward commits'), ...decoding.map(numberRow)),
    group('Access', row('API key', key, 'kept in this page until it is closed, and nowhere else')),
    h('button', { type: 'button', class: 'quiet', onclick: reset }, 'Reset settings'),
  )

  function reset(): void {
    const kept = key.value
    form.reset()
    key.value = kept
    changed()
  }

  function showFields(): void {
    for (const { name, strategies: some } of decoding)
      rows.get(name)!.hidden = some !== undefined && !some.includes(strategy.value)
  }
  showFields()

  function number(name: string): number | undefined {
    const input = inputs.get(name)!
    if (input.value === '' && !input.validity.badInput) return undefined
    if (!input.checkValidity()) {
      const label = rows.get(name)!.querySelector('label')!.textContent
      throw new RangeError(`${label}: ${input.validationMessage}`)
    }
    return Number(input.value)
  }

  const given = (values: Record<string, unknown>) =>
    Object.fromEntries(Object.entries(values).filter(([, value]) => value !== undefined && value !== ''))

  return {
    element: form,
    key: () => key.value.trim(),
    askKey() {
      key.focus()
      key.select()
    },
    maxTokens: () => number('max_tokens') ?? 128,
    system: () => system.value.trim(),
    asChat: (model) => (format.value === 'auto' ? model.chat === true : format.value === 'chat'),
    sendAs(value) {
      format.value = value
      changed()
    },
    blockSize: (model) => (model.mode === 'ar' ? undefined : (number('block_size') ?? model.block_size)),
    fields(model) {
      const common = given({ temperature: number('temperature'), top_p: number('top_p'), seed: number('seed') })
      if (model.mode === 'ar') return common
      const chosen = strategy.value
      const reads = decoding.filter(({ strategies: some }) => some === undefined || some.includes(chosen))
      const unmask = given({
        strategy: chosen,
        ...Object.fromEntries(reads.map(({ name }) => [name, number(name)])),
      })
      return { ...common, ...(Object.keys(unmask).length > 0 ? { unmask } : {}) }
    },
    rewriteFields: () => given({ block_size: number('block_size'), buffer_size: number('buffer_size') }),
  }
}

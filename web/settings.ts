// The settings panel: what a request says beside its text. The key lives in its field and nowhere else.
import {
  type SettingName,
  type StrategyName,
  settingDefault,
  settingKey,
  settingNames,
  settingRow,
  strategyNames,
  strategyReads,
} from '../src/decode/settings.ts'
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
  /** For a text that is corrected: only what block decoding shares. */
  rewriteFields(): Record<string, unknown>
}

interface NumberField {
  /** Name in requests. */
  name: string
  label: string
  hint: string
  min: number
  max: number
  step: number | 'any'
  placeholder: string
  /** The modes that read it. */
  modes: readonly string[]
  /** Whether the strategy of this name reads it; '' is the model's own. */
  readBy(strategy: string): boolean
}

/** Names in requests that are not the settings' own. */
const requestNames: Partial<Record<SettingName, string>> = { maxNewTokens: 'max_tokens' }
/** Largest values where the API leaves them to the server or to the engine. */
const largest: Partial<Record<SettingName, number>> = { maxNewTokens: 100_000, seed: Number.MAX_SAFE_INTEGER }

function numberField(name: SettingName): NumberField[] {
  const { type, help, exposed, modes, strategies } = settingRow(name)
  const { playground, http } = exposed
  if (typeof playground === 'string' || (type.kind !== 'number' && type.kind !== 'whole')) return []
  const limits: { least?: number; most?: number } = typeof http === 'object' ? http : {}
  const value = settingRow(name).default
  return [
    {
      name: requestNames[name] ?? settingKey(name),
      label: playground.label,
      hint: help,
      min: limits.least ?? type.least ?? 0,
      max: largest[name] ?? limits.most ?? type.most ?? Number.MAX_SAFE_INTEGER,
      step: type.kind === 'whole' ? 1 : 'any',
      placeholder: name === 'seed' ? 'random' : (value?.toString() ?? 'default'),
      modes,
      readBy: (strategy) =>
        strategies === undefined || strategyReads((strategy || settingDefault('strategy')) as StrategyName, name),
    },
  ]
}

const isSampling = (name: SettingName) => settingRow(name).modes.includes('ar')
const sampling = settingNames.filter(isSampling).flatMap(numberField)
const decoding = settingNames.filter((name) => !isSampling(name)).flatMap(numberField)
const strategies = [['', 'model default'], ...strategyNames.map((name) => [name, name.replaceAll('_', ' ')])] as const

/** `access`: whether there is a field for a key. Default true. */
export function createSettings(onChange: () => void, { access = true }: { access?: boolean } = {}): Settings {
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

  const select = (name: string, options: readonly (readonly string[])[]) =>
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
    ...(access ? [group('Access', row('API key', key, 'kept in this page until it is closed, and nowhere else'))] : []),
    h('button', { type: 'button', class: 'quiet', onclick: reset }, 'Reset settings'),
  )

  function reset(): void {
    const kept = key.value
    form.reset()
    key.value = kept
    changed()
  }

  function showFields(): void {
    for (const { name, readBy } of decoding) rows.get(name)!.hidden = !readBy(strategy.value)
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
    maxTokens: () => number('max_tokens') ?? settingDefault('maxNewTokens'),
    system: () => system.value.trim(),
    asChat: (model) => (format.value === 'auto' ? model.chat === true : format.value === 'chat'),
    sendAs(value) {
      format.value = value
      changed()
    },
    blockSize: (model) => (model.mode !== 'diffusion' ? undefined : (number('block_size') ?? model.block_size)),
    fields(model) {
      const common = given({ temperature: number('temperature'), top_p: number('top_p'), seed: number('seed') })
      if (model.mode === 'ar') return common
      const chosen = strategy.value
      const { mode = 'diffusion' } = model
      const inBlocks = mode === 'diffusion'
      const reads = decoding.filter(({ modes, readBy }) => modes.includes(mode) && (!inBlocks || readBy(chosen)))
      const unmask = given({
        strategy: inBlocks ? chosen : '',
        ...Object.fromEntries(reads.map(({ name }) => [name, number(name)])),
      })
      return { ...common, ...(Object.keys(unmask).length > 0 ? { unmask } : {}) }
    },
    rewriteFields: () => given({ block_size: number('block_size'), buffer_size: number('buffer_size') }),
  }
}

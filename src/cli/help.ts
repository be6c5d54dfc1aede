// How help looks: two tiers of settings, and lines that fit the terminal without breaking words.
import { type Command, Help, Option } from 'commander'

/** Settings that --help shows; --help-all shows the rest too. */
const commonSettings = new Set([
  ...['model', 'output_dir', 'init', 'objective'],
  ...['data.train_path', 'data.validation_path', 'data.validation_fraction', 'data.max_seq_len', 'data.template'],
  ...['data.columns.text', 'data.columns.prompt', 'data.columns.completion', 'data.columns.messages'],
  ...['train.total_tokens', 'train.micro_batch_size', 'train.global_batch_size', 'train.lr', 'train.seed'],
  ...['train.save_steps', 'train.eval_steps', 'diffusion.block_size', 'diffusion.schedule'],
  ...[
    'data.columns.chosen',
    'data.columns.rejected',
    'train.epochs',
    'preference.beta',
    'preference.draws',
    'lora.rank',
  ],
  ...['adapter.rank', 'adapter.block_size', 'adapter.self_generate'],
  ...['decode.strategy', 'decode.threshold', 'decode.editing_threshold', 'decode.max_post_steps'],
  ...['decode.temperature', 'decode.top_p', 'decode.max_new_tokens', 'eval.tasks', 'eval.prompts'],
  ...['base', 'tasks', 'task_rows', 'samples', 'noise', 'thresholds', 'texts', 'mode', 'seed'],
])

export const isCommon = (path: string): boolean => commonSettings.has(path)

/** Options that only --help-all shows. They are hidden from help alone: a mistyped one is still recognised. */
const rare = new WeakSet<Option>()
/** Commands whose help is to show them. */
const full = new WeakSet<Command>()

export function markRare(option: Option): Option {
  rare.add(option)
  return option
}

/** Adds --help-all to a command that has rare options. */
export function addFullHelp(command: Command): void {
  if (!command.options.some((option) => rare.has(option))) return
  command.addOption(new Option('--help-all', 'show this help with all settings'))
  command.on('option:help-all', () => {
    full.add(command)
    command.help()
  })
}

/** Widest column of terms; a longer term has a line of its own. */
const MOST_TERM = 34
/** Below this, descriptions stand under their terms. */
const LEAST_DESCRIPTION = 36
const INDENT = 6

export const helpWidth = (): number => Math.min(process.stdout.columns || 100, 120)

/** Settings of commander's help. */
export const helpFormat = {
  showGlobalOptions: true,
  /** Those of the program. A command between has its own. */
  visibleGlobalOptions(command: Command): Option[] {
    let root = command
    while (root.parent) root = root.parent
    return root === command ? [] : root.options.filter(({ hidden }) => !hidden)
  },
  formatHelp(command: Command, helper: Help): string {
    for (const option of command.options) if (rare.has(option)) option.hidden = !full.has(command)
    return Help.prototype.formatHelp.call(helper, command, helper)
  },
  padWidth(command: Command, helper: Help): number {
    return Math.min(Help.prototype.padWidth.call(helper, command, helper), MOST_TERM)
  },
  formatItem(term: string, termWidth: number, description: string, helper: Help): string {
    const width = helper.helpWidth ?? 80
    const beside = width - termWidth - 4
    if (beside < LEAST_DESCRIPTION)
      return `  ${term}\n${indented(wrapText(description, width - INDENT), INDENT)}`.trimEnd()
    const lines = wrapText(description, beside).split('\n')
    const gap = ' '.repeat(termWidth + 4)
    if (term.length > termWidth) return [`  ${term}`, ...lines.map((line) => gap + line)].join('\n').trimEnd()
    const [first = '', ...others] = lines
    return [`  ${term.padEnd(termWidth)}  ${first}`, ...others.map((line) => gap + line)].join('\n').trimEnd()
  },
}

const indented = (text: string, by: number): string =>
  text
    .split('\n')
    .map((line) => ' '.repeat(by) + line)
    .join('\n')

/**
 * Breaks lines that are wider than `width` between words; what follows keeps the line's indent. Commands (`  $ ...`) are
 * continued with a backslash, so that they can still be copied.
 */
export function wrapText(text: string, width: number): string {
  return text
    .split('\n')
    .map((line) => (line.length <= width ? line : wrapLine(line, width)))
    .join('\n')
}

function wrapLine(line: string, width: number): string {
  const [, indent = '', rest = ''] = /^(\s*)(.*)$/.exec(line) ?? []
  const isCommand = rest.startsWith('$ ')
  const hanging = isCommand ? `${indent}    ` : indent
  const room = isCommand ? width - 2 : width
  const lines: string[] = []
  let current = indent
  for (const word of rest.split(' ')) {
    const isStart = current.trim() === ''
    if (!isStart && current.length + 1 + word.length > room) {
      lines.push(current)
      current = hanging + word
    } else {
      current += isStart ? word : ` ${word}`
    }
  }
  lines.push(current)
  return lines.join(isCommand ? ' \\\n' : '\n')
}

// Completion scripts for shells, made from the commands as they are registered. Knows nothing about what a command does.
import type { Command, Option } from 'commander'

export const shells = ['bash', 'zsh', 'fish'] as const
export type Shell = (typeof shells)[number]

interface Flag {
  names: string[]
  description: string
  /** Values to choose from; undefined where the flag takes none, empty where it takes anything. */
  values: readonly string[] | undefined
}

interface CommandWords {
  name: string
  /** The command above it, as `eval` of `eval suite`. */
  above: string | undefined
  /** Commands below it. */
  below: readonly string[]
  description: string
  flags: Flag[]
  /** Words that its arguments may be, beside files. */
  words: readonly string[]
}

/** The script that completes commands, flags, values of flags and `words` (names of models) in place of arguments. */
export function completionScript(program: Command, shell: Shell, words: readonly string[]): string {
  // Those below first: what matches them matches the command above, too.
  const commands = program.commands.flatMap((command) =>
    [...command.commands, command].map((each) => wordsOf(each, program, words)),
  )
  return { bash: bashScript, zsh: zshScript, fish: fishScript }[shell](commands)
}

function wordsOf(command: Command, program: Command, words: readonly string[]): CommandWords {
  const helper = command.createHelp()
  const flags = [
    ...helper.visibleOptions(command),
    ...command.options.filter(({ hidden }) => hidden),
    ...program.options,
  ]
  const [argument] = command.registeredArguments
  const below = command.commands.map((inner) => inner.name())
  return {
    name: command.name(),
    above: command.parent === program ? undefined : command.parent?.name(),
    below,
    description: firstSentence(command.description()),
    flags: flags.map(flagOf),
    words: [
      ...below,
      ...(argument?.argChoices ?? (argument && /^(model|models|source)$/.test(argument.name()) ? words : [])),
    ],
  }
}

const flagOf = (option: Option): Flag => ({
  names: [option.short, option.long].filter((name) => name !== undefined),
  description: firstSentence(option.description),
  values: option.required || option.optional ? (option.argChoices ?? choicesIn(option.flags)) : undefined,
})

/** `--strategy <a|b>` names its values. */
function choicesIn(flags: string): string[] {
  const [, inside = ''] = /<([^>]*)>/.exec(flags) ?? []
  return inside.includes('|') ? inside.split('|') : []
}

const firstSentence = (text: string): string => text.split(/[.:;(\n]/, 1)[0]!.trim()

const upper = (commands: readonly CommandWords[]) => commands.filter(({ above }) => above === undefined)

const names = (flags: readonly Flag[]): string => flags.flatMap((flag) => flag.names).join(' ')

function bashScript(commands: readonly CommandWords[]): string {
  const cases = commands.map(({ name, above, flags, words }) => {
    const values = flags
      .filter((flag) => flag.values && flag.values.length > 0)
      .map((flag) => `        ${flag.names.join('|')}) words="${flag.values!.join(' ')}" ;;`)
    const taking = flags.filter((flag) => flag.values?.length === 0).flatMap((flag) => flag.names)
    return `    ${above === undefined ? `"${name} "*` : `"${above} ${name}"`})
      case "$previous" in
${values.map((line) => `${line}\n`).join('')}        ${taking.join('|') || '--'}) ;;
        *) words="${[names(flags), ...words].join(' ')}" ;;
      esac ;;`
  })
  return `# Completion of unmask for bash. Load it with: source <(unmask completion bash)
_unmask() {
  local current=\${COMP_WORDS[COMP_CWORD]} previous=\${COMP_WORDS[COMP_CWORD-1]} words= second=
  if [ "$COMP_CWORD" -gt 2 ]; then second=\${COMP_WORDS[2]}; fi
  if [ "$COMP_CWORD" -eq 1 ]; then
    COMPREPLY=($(compgen -W "${upper(commands)
      .map(({ name }) => name)
      .join(' ')} --help --version" -- "$current"))
    return
  fi
  case "\${COMP_WORDS[1]} $second" in
${cases.join('\n')}
  esac
  COMPREPLY=($(compgen -W "$words" -- "$current"))
  case "$current" in -*) ;; *) COMPREPLY+=($(compgen -f -- "$current")) ;; esac
}
complete -o filenames -F _unmask unmask`
}

const zshQuote = (text: string): string => text.replace(/['[\]:\\]/g, (mark) => (mark === "'" ? "'\\''" : `\\${mark}`))

function zshScript(commands: readonly CommandWords[]): string {
  const cases = commands.map(({ name, above, flags, words }) => {
    const specs = flags.flatMap(({ names, description, values }) =>
      names.map((flag) => {
        const value = values === undefined ? '' : values.length > 0 ? `:value:(${values.join(' ')})` : ':value:_files'
        return `      '*${flag}[${zshQuote(description)}]${value}'`
      }),
    )
    const rest = words.length > 0 ? `_alternative "names:name:(${words.join(' ')})" "files:file:_files"` : '_files'
    const [pattern, shift] =
      above === undefined ? [`'${name} '*`, ''] : [`'${above} ${name}'`, 'shift words; (( CURRENT-- )); ']
    return `    ${pattern}) ${shift}_arguments \\\n${[...specs, `      '*:argument:{${rest}}'`].join(' \\\n')} ;;`
  })
  const list = upper(commands).map(({ name, description }) => `'${name}:${zshQuote(description)}'`)
  return `#compdef unmask
# Completion of unmask for zsh. Load it with: source <(unmask completion zsh)
_unmask() {
  if (( CURRENT == 2 )); then
    local -a commands=(${list.join(' ')})
    _describe 'command' commands
    return
  fi
  local command="$words[2] "
  (( CURRENT > 3 )) && command="$words[2] $words[3]"
  shift words
  (( CURRENT-- ))
  case $command in
${cases.join('\n')}
  esac
}
compdef _unmask unmask`
}

const fishQuote = (text: string): string => `'${text.replace(/['\\]/g, '\\$&')}'`

function fishScript(commands: readonly CommandWords[]): string {
  const lines = commands.flatMap(({ name, above, below, description, flags, words }) => {
    const seen = '__fish_seen_subcommand_from'
    const path = above === undefined ? name : `${above}; and ${seen} ${name}`
    const here = `-n '${seen} ${path}${below.length > 0 ? `; and not ${seen} ${below.join(' ')}` : ''}'`
    return [
      above === undefined && `complete -c unmask -n __fish_use_subcommand -f -a ${name} -d ${fishQuote(description)}`,
      ...(words.length > 0 ? [`complete -c unmask ${here} -a ${fishQuote(words.join(' '))}`] : []),
      ...flags.map(({ names, description: what, values }) => {
        const spelled = names.map((flag) => (flag.startsWith('--') ? `-l ${flag.slice(2)}` : `-s ${flag.slice(1)}`))
        const value = values === undefined ? '' : values.length > 0 ? ` -x -a ${fishQuote(values.join(' '))}` : ' -r'
        return `complete -c unmask ${here} ${spelled.join(' ')}${value} -d ${fishQuote(what)}`
      }),
    ]
  })
  return [
    '# Completion of unmask for fish. Load it with: unmask completion fish | source',
    ...lines.filter(Boolean),
  ].join('\n')
}

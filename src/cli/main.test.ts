// The command line as a user runs it: through the real process.
import { type ChildProcess, spawn } from 'node:child_process'
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, describe, expect, it } from 'vitest'
import { command } from '../../test/built.ts'
import { taskRows } from '../tasks/index.ts'
import { createProgram } from './command-line.ts'

const root = join(import.meta.dirname, '..', '..')
const folder = mkdtempSync(join(tmpdir(), 'unmask-cli-'))
afterAll(() => rmSync(folder, { recursive: true }))
const golden = join(root, 'test', 'golden', 'llama-tied')

interface Finished {
  /** Null where a signal ended it. */
  code: number | null
  signal: NodeJS.Signals | null
  stdout: string
  stderr: string
}

/** `during` sees what has been written so far each time something is. */
function unmask(
  args: readonly string[],
  during?: (child: ChildProcess, stderr: string) => void,
  input = '',
): Promise<Finished> {
  return new Promise((resolve, reject) => {
    const child = spawn(process.execPath, [command, ...args], {
      cwd: root,
      env: { ...process.env, NO_COLOR: '1' },
    })
    child.stdin.end(input)
    let stdout = ''
    let stderr = ''
    child.stdout.on('data', (chunk: Buffer) => {
      stdout += chunk.toString()
    })
    child.stderr.on('data', (chunk: Buffer) => {
      stderr += chunk.toString()
      during?.(child, stderr)
    })
    child.on('error', reject)
    child.on('close', (code, signal) => resolve({ code, signal, stdout, stderr }))
  })
}

const program = () => createProgram({ signal: new AbortController().signal, exitCode: 0, onStop: '' })
const names = [
  'quickstart',
  'pull',
  'list',
  'rm',
  'info',
  'convert',
  'sft',
  'dpo',
  'rl',
  'accelerate',
  'adapt',
  'pipeline',
  'eval',
  'report',
  'generate',
  'chat',
  'infill',
  'rewrite',
  'tune',
  'merge',
  'quantize',
  'export',
  'augment',
  'serve',
  'bench',
  'cluster',
  'completion',
]

describe('help', () => {
  it('lists the commands', () => {
    expect(program().commands.map((command) => command.name())).toEqual(names)
  })

  it.each(names)('of %s has a description, the global flags and examples', (name) => {
    const command = program().commands.find((candidate) => candidate.name() === name)!
    let help = ''
    command.configureOutput({ writeOut: (text) => (help += text) })
    command.outputHelp()
    expect(help).toContain(`Usage: unmask ${name}`)
    expect(help).toContain('--json')
    expect(help).toContain(`$ unmask ${name}`)
  })
})

describe('exit codes', () => {
  it('are 0 for help and version', async () => {
    const { version } = JSON.parse((await import('node:fs')).readFileSync(join(root, 'package.json'), 'utf8'))
    const [help, shown] = await Promise.all([unmask(['--help']), unmask(['--version'])])
    expect(help.code).toBe(0)
    expect(help.stdout).toContain('Exit status:')
    expect(shown).toMatchObject({ code: 0, stdout: `${version}\n`, stderr: '' })
  })

  it('are 2 for a command line that cannot be understood', async () => {
    const { code, stderr } = await unmask(['convrt'])
    expect(code).toBe(2)
    expect(stderr).toContain('Did you mean convert?')
  })

  it.each([
    [['generate', 'models/tiny', '--prompt', 'x', '--mode', 'x'], /Allowed choices are diffusion, ar/],
    [
      ['generate', 'models/tiny', '--prompt', 'x', '--seed', '-1'],
      /^--seed: expected a whole number of at least 0, not "-1"$/,
    ],
    [
      ['generate', 'models/tiny', '--prompt', 'x', '--max-new-tokens', '0'],
      /^--max-new-tokens: expected a number of at least 1/,
    ],
    [['generate', 'models/tiny', '--promt', 'x'], /unknown option '--promt'\n\(Did you mean --prompt\?\)$/],
    [['convert', '--wieght-decay', '0'], /unknown option '--wieght-decay'\n\(Did you mean --weight-decay\?\)$/],
    [['augment', 'a.jsonl'], /^--model: is required\n--out: is required$/],
    [['export', 'models/tiny', 'out'], /^--to: is required$/],
    [
      ['convert', '--lr', 'abc', '--output-dir', 'o'],
      /^--model .*is required\n--train-path .*is required\n--lr: expected a number, not "abc"$/,
    ],
    [['convert', '--resume'], /^--resume: name the run with --output-dir/],
    [
      ['augment', 'a.jsonl', '--model', 'm', '--out', 'o', '--mask-ratio', '2'],
      /^--mask-ratio: expected a number between 0 and 1, not 2$/,
    ],
    [
      ['augment', 'a.jsonl', '--model', 'm', '--out', 'o', '--top-p', '0'],
      /^--top-p: expected a number above 0 and at most 1, not 0$/,
    ],
    [['quickstart', '--total-tokens', 'x'], /^--total-tokens: expected a number above 0/],
    [['generate', 'models/tiny', '--prompt', 'x', '--top-p', '0.5'], /^--top-p: chooses what to draw from, but/],
    [
      ['generate', 'models/tiny', '--prompt', 'x', '--threshold', '0.5', '--low-threshold', '0.5'],
      /^--threshold, --low-threshold: only for block decoding/,
    ],
    [['generate', 'models/tiny', '--prompt', 'x', '--mode', 'diffusion'], /^--mode: diffusion is not one of/],
    [['infill', 'models/tiny'], /--text, or --prefix and --suffix/],
  ] as const)('are 2, with JSON, for wrong values and missing inputs: %j', async (args, message) => {
    const { code, stdout, stderr } = await unmask([...args, '--json'])
    expect(code).toBe(2)
    expect(stderr).not.toMatch(/^ +at /m)
    const { error } = JSON.parse(stdout)
    expect(error.code).toBe(2)
    expect(error.message).toMatch(message)
  })

  it('are 1 for files that cannot be written or are missing, each in one line', async () => {
    const file = join(folder, 'a-file')
    writeFileSync(file, '')
    const run = join(folder, 'a-run')
    mkdirSync(join(run, 'checkpoints', 'step-0000001'), { recursive: true })
    const cases: [string[], RegExp][] = [
      [['merge', golden, golden, '--out', join(file, 'out')], /a-file\/out: /],
      [['quickstart', '--output-dir', file], /a-file: is a file; a folder is needed/],
      [['convert', '--recipe', join(file, 'recipe.yaml')], /recipe.yaml: cannot be read: a part of the path is a file/],
      // The Hub is not asked: a folder of that name is here.
      [['info', 'models/tinny'], /models\/tinny: no such file or folder in models\//],
      [['info', 'owner/model.gguf'], /owner\/model.gguf: no such file/],
      [['info', 'tinny'], /tinny: no such file or folder.*short name.*tiny/],
      [['serve'], /models: name at least one model/],
      [['merge', run, '--out', join(folder, 'y')], /a-run: is a run; say with --best/],
    ]
    const finished = await Promise.all(cases.map(([args]) => unmask(args)))
    for (const [i, { code, stdout, stderr }] of finished.entries()) {
      expect({ code, stdout }).toEqual({ code: 1, stdout: '' })
      expect(stderr).toMatch(/^unmask: [^\n]*\n$/)
      expect(stderr).toMatch(cases[i]![1])
    }
  })

  it('are 1 for what a user can correct, reported in one message without a stack', async () => {
    const { code, stdout, stderr } = await unmask(['info', join(folder, 'none'), '--json'])
    expect(code).toBe(1)
    expect(stderr).toMatch(/^unmask: .*none: no such file or folder.*\n$/)
    expect(JSON.parse(stdout)).toMatchObject({ error: { code: 1 } })
  })
})

describe('info and merge', () => {
  it('describe and average checkpoints as JSON', async () => {
    const out = join(folder, 'merged')
    const merged = await unmask(['merge', golden, golden, '--out', out, '--json'])
    expect(merged.stderr).toBe('')
    expect(JSON.parse(merged.stdout)).toEqual({ out, merged: [golden, golden] })
    const again = await unmask(['merge', golden, golden, '--out', out])
    expect(again).toMatchObject({ code: 1, stdout: '' })
    expect(again.stderr).toContain('--force')
    expect(await unmask(['merge', golden, golden, '--out', out, '--force'])).toMatchObject({ code: 0 })
    const info = await unmask(['info', out, '--json'])
    expect(JSON.parse(info.stdout)).toMatchObject({
      format: 'safetensors',
      modelType: 'llama',
      supported: true,
      differences: { missing: [], unexpected: [], wrongShape: [] },
    })
  })

  it('describe a config.json without weights', async () => {
    const config = JSON.parse(readFileSync(join('test', 'golden', 'llada2-moe', 'config.json'), 'utf8'))
    const path = join(folder, 'config.json')
    writeFileSync(path, JSON.stringify({ ...config, num_experts: 256, hidden_size: 2048 }))
    const { code, stdout } = await unmask(['info', path])
    expect(code).toBe(0)
    expect(stdout).toMatch(/^architecture llada2_moe$/m)
    expect(stdout).toMatch(/^parameters {3}105M \(6\.04M active\)$/m)
  })

  it('say which file is no run', async () => {
    const { code, stderr } = await unmask(['merge', golden, '--best', '2', '--out', join(folder, 'x')])
    expect(code).toBe(1)
    expect(stderr).toContain('no checkpoints in it')
  })
})

describe('chat', () => {
  it('answers line by line, saves the conversation once, and forgets it', async () => {
    const file = join(folder, 'conversation.jsonl')
    const lines = [
      'reverse(ab)=',
      `/save ${file}`,
      `/save ${file}`,
      '/reset',
      '/save',
      '/nothing',
      '/exit',
      'reverse(no)=',
    ]
    const { code, stdout, stderr } = await unmask(['chat', 'tiny'], undefined, `${lines.join('\n')}\n`)
    expect({ code, stdout }).toEqual({ code: 0, stdout: 'ba\n' })
    expect(stderr).toMatch(
      /saved .*\n.*exists already.*\nThe conversation is forgotten.\n\/save FILE: name the file\n\/nothing: no such command/,
    )
    expect(JSON.parse(readFileSync(file, 'utf8'))).toEqual({
      messages: [
        { role: 'user', content: 'reverse(ab)=' },
        { role: 'assistant', content: 'ba' },
      ],
    })
  })

  it('gives an answer a line as JSON', async () => {
    const { stdout } = await unmask(['chat', 'tiny', '--json'], undefined, 'reverse(ab)=\nreverse(no)=\n')
    const answers = stdout
      .trim()
      .split('\n')
      .map((line) => JSON.parse(line))
    expect(answers).toMatchObject([
      { role: 'assistant', content: 'ba' },
      { role: 'assistant', content: 'on' },
    ])
  })

  it('says where the model cannot do what is asked', async () => {
    const { code, stderr } = await unmask(['chat', 'tiny', '--system', 'Be brief.'])
    expect(code).toBe(1)
    expect(stderr).toContain('was not trained on chats')
  })
})

describe('accelerate', () => {
  it('prints the merged recipe, and names a wrong flag or key', async () => {
    const flags = [
      'accelerate',
      'models/tiny',
      '--data',
      'a.jsonl',
      'b.jsonl',
      '--output-dir',
      'o',
      '--dry-run',
      '--json',
    ]
    const { stdout } = await unmask([...flags, '--rank', '8', '--self-generate', '20k', '--block-size', '4'])
    expect(JSON.parse(stdout)).toMatchObject({
      model: 'models/tiny',
      data: { train_path: ['a.jsonl', 'b.jsonl'] },
      adapter: { rank: 8, self_generate: 20_000, block_size: 4 },
    })
    const wrong = await unmask([...flags, '--distill', '2'])
    expect(wrong.code).toBe(2)
    expect(wrong.stderr).toContain('--distill: expected a number of at most 1, not 2')
  })
})

describe('convert', () => {
  const recipe = join(folder, 'recipe.yaml')
  writeFileSync(
    join(folder, 'rows.jsonl'),
    [...taskRows({ seed: 1, count: 600 })].map((row) => JSON.stringify(row)).join('\n'),
  )
  writeFileSync(
    recipe,
    `model: models/tiny
init: random
output_dir: ${join(folder, 'run')}
threads: 1
data: { train_path: ${join(folder, 'rows.jsonl')}, template: none, separator: ' ', max_seq_len: 64, validation_tokens: 300 }
train: { total_tokens: 4k, micro_batch_size: 4, global_batch_size: 4, eval_steps: 0, save_steps: 0 }
diffusion: { block_size: 8, schedule: constant }
eval: { samples: 1, tasks: [reverse], task_rows: 2, thresholds: [0.9] }
decode: { max_new_tokens: 16 }
`,
  )

  it('prints the merged recipe', async () => {
    const { stdout } = await unmask(['convert', '--recipe', recipe, '--lr', '0.002', '--dry-run', '--json'])
    expect(JSON.parse(stdout)).toMatchObject({ train: { lr: 0.002, micro_batch_size: 4 }, threads: 1 })
  })

  it('stops at Ctrl-C with what it has, resumes, and reports', async () => {
    const stopped = await unmask(['convert', '--recipe', recipe], (child, stderr) => {
      if (/ step \d/.test(stderr) && !child.killed) child.kill('SIGINT')
    })
    expect(stopped.stderr).toContain('Stopping after this step, which is saved.')
    expect(stopped.code).toBe(130)
    expect(stopped.stdout).toContain(`Continue with: unmask convert --output-dir ${join(folder, 'run')} --resume`)

    const again = await unmask(['convert', '--recipe', recipe])
    expect(again.code).toBe(1)
    expect(again.stderr).toContain('resume it')

    const mistyped = await unmask(['convert', '--output-dir', join(folder, 'rnu'), '--resume'])
    expect(mistyped).toMatchObject({ code: 1, stdout: '' })
    expect(mistyped.stderr).toContain('rnu: no run to resume: no such folder')
    expect(existsSync(join(folder, 'rnu'))).toBe(false)
    const resume = ['convert', '--output-dir', join(folder, 'run'), '--resume']
    const changed = await unmask([...resume, '--lr', '0.5', '--total-tokens', '5k', '--log-steps', '2'])
    expect(changed).toMatchObject({ code: 2, stdout: '' })
    expect(changed.stderr).toMatch(
      /^unmask: --lr: 0.5, but the run was started with 0.001\n--total-tokens: 5000, but .* 4000\n.*same settings.*\n$/,
    )
    const file = join(folder, 'other.yaml')
    writeFileSync(file, readFileSync(recipe, 'utf8').replace("separator: ' '", 'separator: x'))
    const otherFile = await unmask(['convert', '--recipe', file, '--resume'])
    expect(otherFile.code).toBe(2)
    expect(otherFile.stderr).toContain('other.yaml:5: data.separator: "x", but the run was started with " "')

    const { code, stdout, stderr } = await unmask([...resume, '--json'])
    expect(stderr).toContain('resumed from')
    expect(code).toBe(0)
    const result = JSON.parse(stdout)
    expect(result).toMatchObject({ status: 'completed' })
    for (const file of [result.model, ...Object.values<string>(result.report)])
      expect(existsSync(file), file).toBe(true)
    const generated = await unmask([
      'generate',
      result.model,
      '--prompt',
      'reverse(ab)=',
      '--max-new-tokens',
      '8',
      '--json',
    ])
    // The prompt is written as those of the rows were: plainly, with the separator.
    expect(JSON.parse(readFileSync(join(result.model, 'config.json'), 'utf8'))).toMatchObject({
      ...{ prompt_template: 'none', prompt_separator: ' ' },
    })
    expect(JSON.parse(generated.stdout)).toMatchObject({ mode: 'diffusion', promptTokens: 'reverse(ab)= '.length })
    const constrained = ['generate', result.model, '--prompt', 'reverse(ab)=', '--regex', '[xyz]{3}', '--json']
    expect(JSON.parse((await unmask(constrained)).stdout).text).toMatch(/^[xyz]{3}$/)
    expect((await unmask([...constrained, '--json-object'])).stderr).toContain('only one of them')
  }, 180_000)

  it('stops at once at the second Ctrl-C', async () => {
    let sent = 0
    const { signal } = await unmask(
      ['convert', '--recipe', recipe, '--output-dir', join(folder, 'twice'), '--total-tokens', '1G'],
      (child, stderr) => {
        if (sent === (stderr.includes('Stopping') ? 1 : 0) && / step \d/.test(stderr)) {
          sent++
          child.kill('SIGINT')
        }
      },
    )
    expect(sent).toBe(2)
    expect(signal).toBe('SIGINT')
  }, 60_000)

  it('ends with 3 where training diverges, and says at which step', async () => {
    const { code, stderr } = await unmask([
      'convert',
      '--recipe',
      recipe,
      '--output-dir',
      join(folder, 'diverged'),
      '--lr',
      '1e30',
    ])
    expect(code).toBe(3)
    expect(stderr).toContain('unmask: Training diverged at step')
  }, 60_000)
})

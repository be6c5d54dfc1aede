// `npm run docs:run -- [PAGE...] [--have NEED,...] [--list]` runs the code blocks of README.md and docs, those of one page in
// order in one folder: a copy of the checkout with its build. Blocks that need more than that say so in their info string and
// are left out unless --have names it. Exit code 1 if a block fails.
import { type ChildProcess, spawn, spawnSync } from 'node:child_process'
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { parseArgs } from 'node:util'
import { parse } from 'yaml'
import { type Block, needs, readBlocks, runs } from './docs/blocks.ts'
import { copyCheckout, pages as findPages, prepareModels, ROOT } from './docs/checkout.ts'

/** Longest time of a block without `needs=minutes` or hours. */
const SECONDS = 600

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: { have: { type: 'string', default: '' }, list: { type: 'boolean', default: false } },
})
const have = new Set(values.have.split(','))
const pages = positionals.length > 0 ? positionals : findPages()
const blocksOf = (page: string) => readBlocks(page, readFileSync(join(ROOT, page), 'utf8'))

if (values.list) list()
else await runAll()

function list(): void {
  for (const { page, line, needs } of pages.flatMap(blocksOf).filter(runs))
    console.log(`${page}:${line}  ${needs.join(', ')}`)
  console.log('\nneeds:')
  for (const [name, what] of Object.entries(needs)) console.log(`  ${name.padEnd(12)}${what}`)
}

async function runAll(): Promise<void> {
  // What npx keeps of the copies goes with them.
  const cache = mkdtempSync(join(tmpdir(), 'unmask-docs-npm-'))
  process.env.npm_config_cache = cache
  const counts = { ran: 0, failed: 0, 'needs more': 0 }
  const models = prepareModels()
  for (const page of pages) for (const outcome of await runPage(blocksOf(page), models)) counts[outcome]++
  for (const folder of [models, cache]) rmSync(folder, { recursive: true })
  console.log(`${counts.ran} blocks ran, ${counts.failed} failed, ${counts['needs more']} need more than a checkout`)
  if (counts.failed > 0) process.exitCode = 1
}

type Outcome = 'ran' | 'failed' | 'needs more'

async function runPage(blocks: readonly Block[], models: string): Promise<Outcome[]> {
  if (!blocks.some(runs)) return []
  const folder = copyCheckout(models)
  const server = createServerSlot(folder)
  const outcomes: Outcome[] = []
  try {
    for (const block of blocks) {
      if (block.file) {
        mkdirSync(dirname(join(folder, block.file)), { recursive: true })
        writeFileSync(join(folder, block.file), `${block.code}\n`)
      }
      if (block.language === 'yaml') parse(block.code)
      if (!runs(block)) continue
      const started = performance.now()
      const missing = block.needs.filter((need) => !have.has(need))
      const error = missing.length > 0 ? undefined : await runBlock(block, folder, server)
      const outcome = missing.length > 0 ? 'needs more' : error === undefined ? 'ran' : 'failed'
      outcomes.push(outcome)
      const seconds = `${((performance.now() - started) / 1000).toFixed(1)} s`
      console.log(`${outcome.padEnd(11)}${block.page}:${block.line}  ${missing.join(', ') || seconds}`)
      if (error !== undefined) console.log(`${block.code}\n${error}`.replace(/^/gm, '    '))
    }
  } finally {
    await server.stop()
    rmSync(folder, { recursive: true })
  }
  return outcomes
}

type ServerSlot = ReturnType<typeof createServerSlot>

/** Returns what a failed block printed. */
async function runBlock(block: Block, folder: string, server: ServerSlot): Promise<string | undefined> {
  if (block.serves !== undefined) return server.start(block.code, block.serves)
  const [command, args] = commandOf(block, folder)
  const unlimited = block.needs.includes('minutes') || block.needs.includes('hours')
  const { status, signal, stdout, stderr } = spawnSync(command, args, {
    cwd: folder,
    encoding: 'utf8',
    timeout: unlimited ? undefined : SECONDS * 1000,
  })
  return status === 0 ? undefined : `${stdout.slice(-2000)}${stderr.slice(-4000)}\nended with ${status ?? signal}`
}

function commandOf({ language, code }: Block, folder: string): [string, string[]] {
  if (language === 'sh') return ['sh', ['-ec', code]]
  const file = join(folder, `block.${language === 'python' ? 'py' : language}`)
  writeFileSync(file, code)
  return language === 'python' ? [process.env.UNMASK_PYTHON ?? 'python3', [file]] : ['npx', ['tsx', file]]
}

/** One server at a time, as a page starts it. */
function createServerSlot(folder: string) {
  let running: ChildProcess | undefined
  async function stop(): Promise<void> {
    if (!running || running.exitCode !== null) return
    const ended = new Promise((resolve) => running?.once('exit', resolve))
    // The shell's whole group: the server is its child.
    process.kill(-running.pid!, 'SIGTERM')
    await ended
  }
  return {
    stop,
    async start(code: string, port: number): Promise<string | undefined> {
      await stop()
      if (await isReady(port)) return `port ${port} is taken by another server`
      const child = spawn('sh', ['-ec', code], { cwd: folder, detached: true, stdio: ['ignore', 'ignore', 'pipe'] })
      running = child
      let log = ''
      child.stderr.setEncoding('utf8').on('data', (text: string) => {
        log = (log + text).slice(-4000)
      })
      const until = performance.now() + SECONDS * 1000
      while (performance.now() < until && child.exitCode === null) {
        if (await isReady(port)) return undefined
        await new Promise((resolve) => setTimeout(resolve, 200))
      }
      return `${log}\nno server on port ${port}`
    },
  }
}

/** Whether a server answers there; one of unmask's says 503 until its models are loaded, others know no such page. */
async function isReady(port: number): Promise<boolean> {
  const response = await fetch(`http://127.0.0.1:${port}/ready`).catch(() => undefined)
  // Read, or the connection stays open, and with it the server that is to stop.
  await response?.arrayBuffer()
  return response !== undefined && response.status < 500
}

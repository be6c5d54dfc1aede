// The page of a model that `unmask export --to web` writes: it loads the model into this browser, and then offers chat, infill and
// repair as the playground does.
import { createChannel } from '../../src/browser/channel.ts'
import type { Progress } from '../../src/browser/download.ts'
import { LoadError, megabytes } from '../../src/browser/errors.ts'
import { createCharts } from '../charts.ts'
import { createChat } from '../chat.ts'
import type { Context, Mode } from '../context.ts'
import { byId, h } from '../dom.ts'
import { createInfill } from '../infill.ts'
import { createPanel } from '../panel.ts'
import { createRepair } from '../repair.ts'
import type { Sample } from '../session.ts'
import { createSettings } from '../settings.ts'
import { createTabs } from '../tabs.ts'
import { addThemeButton } from '../theme.ts'
import { createLocalClient } from './client.ts'
import type { PageModel, PageQuestion } from './protocol.ts'

const here = new URL('./', location.href).href
const loading = byId('loading', HTMLElement)
const bar = byId('progress', HTMLProgressElement)
const status = byId('status', HTMLElement)
const choices = byId('choices', HTMLElement)
const about = byId('about', HTMLElement)

addThemeButton(byId('theme', HTMLButtonElement))
createPanel()

/** Has the service worker set the headers that threads need, which most hosts do not send; true where the page is loaded anew. */
async function isolate(): Promise<boolean> {
  if (!('serviceWorker' in navigator)) return false
  const { serviceWorker } = navigator
  try {
    await serviceWorker.register('sw.js')
    await serviceWorker.ready
  } catch {
    // Without it there is one thread, and no use without a network.
    return false
  }
  const tried = sessionStorage.getItem('isolated') !== null
  if (crossOriginIsolated || tried) return false
  sessionStorage.setItem('isolated', 'tried')
  location.reload()
  return true
}

async function load(options: { keep?: boolean } = {}): Promise<void> {
  choices.replaceChildren()
  loading.hidden = false
  const worker = new Worker('worker.js', { type: 'module' })
  const channel = createChannel<PageQuestion>(worker)
  worker.addEventListener('error', ({ message }) => {
    const died = new LoadError('memory', `The model's worker ended${message ? `: ${message}` : ''}.`)
    channel.fail(died)
    if (loading.hidden) fail(died)
  })
  try {
    const runtime = { script: `${here}ort-wasm-simd-threaded.mjs` }
    const question = { kind: 'load', url: here, options: { ...options, runtime } } as const
    const model = (await channel.ask(question, { onPart: (part) => show(part as Progress) })) as PageModel
    loading.hidden = true
    start(
      model,
      createLocalClient(channel, () => model),
    )
  } catch (error) {
    worker.terminate()
    fail(error)
  }
}

function show(progress: Progress): void {
  if (progress.phase === 'wait') status.textContent = 'Another tab downloads this model: waiting for it.'
  else if (progress.phase === 'start') status.textContent = 'Starting the model'
  else {
    const { loaded, total } = progress
    bar.max = total
    bar.value = loaded
    status.textContent = loaded === total ? 'The model is here' : `${megabytes(loaded)} of ${megabytes(total)}`
  }
}

/** What went wrong, and what can be tried. */
function fail(error: unknown): void {
  loading.hidden = false
  status.textContent = error instanceof Error ? error.message : String(error)
  const again = h('button', { type: 'button', class: 'primary', onclick: () => void load() }, 'Try again')
  choices.replaceChildren(again)
  if (error instanceof LoadError && error.reason === 'storage')
    choices.append(
      h('button', { type: 'button', onclick: () => void load({ keep: false }) }, 'Run it without keeping it'),
    )
  again.focus()
}

function start(model: PageModel, client: Context['client']): void {
  const samples: Sample[] = []
  const charts = createCharts()
  const settings = createSettings(
    () => {
      for (const { mode } of modes) mode.refresh()
    },
    { access: false },
  )
  let models: Awaited<ReturnType<typeof client.models>> = []
  const context: Context = {
    ...{ client, settings, models: () => models, model: () => models[0], askKey: () => undefined },
    count(sample) {
      if (!sample) return
      samples.push(sample)
      charts.update(samples)
    },
    refresh: async () => undefined,
  }
  const fills = model.info.infill
  const modes: readonly { name: string; mode: Mode }[] = [
    { name: 'Chat', mode: createChat(context) },
    ...(fills
      ? [
          { name: 'Infill', mode: createInfill(context) },
          { name: 'Repair', mode: createRepair(context) },
        ]
      : []),
  ]
  const main = byId('main', HTMLElement)
  main.replaceChildren()
  const shown = createTabs(modes, { tabs: byId('tabs', HTMLElement), main })
  byId('settings', HTMLElement).append(settings.element)
  byId('session', HTMLElement).append(charts.element)
  charts.update(samples)
  const { threads, why } = model.backend
  about.textContent = `${model.name} · in this browser, ${threads === 1 ? 'one thread' : `${threads} threads`}`
  about.title = why ?? ''
  document.addEventListener('keydown', (event) => {
    const mode = shown.current()
    if (event.key === 'Escape') mode.stop()
    else if (event.key === 'Enter' && (event.ctrlKey || event.metaKey)) mode.run()
    else return
    event.preventDefault()
  })
  void client.models().then((known) => {
    models = known
    for (const { mode } of modes) mode.refresh()
    shown.show(0)
    navigator.serviceWorker?.controller?.postMessage('keep')
  })
}

if (!(await isolate())) await load()

// What the modes of the page share: the server, the settings, the chosen model, the numbers of the session.
import type { Client, ModelInfo } from './api.ts'
import type { Sample } from './session.ts'
import type { Settings } from './settings.ts'

export interface Context {
  client: Client
  settings: Settings
  models(): readonly ModelInfo[]
  /** The chosen one; undefined while none is known. */
  model(): ModelInfo | undefined
  /** Adds to the charts. */
  count(sample: Sample | undefined): void
  /** Opens the panel at the field of the key. */
  askKey(): void
  /** Asks the server again for its models. */
  refresh(): Promise<void>
}

/** One of the page's tabs. */
export interface Mode {
  element: HTMLElement
  /** The models or the settings are others now. */
  refresh(): void
  /** Does what the main button does. */
  run(): void
  stop(): void
  focus(): void
}

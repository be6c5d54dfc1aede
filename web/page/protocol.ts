// What the page asks its worker: to load its model, and then what the server's routes are asked.
import type { Backend, OpenOptions } from '../../src/browser/open.ts'
import type { ModelInfo } from '../../src/serve/worker/protocol.ts'
import type { Path } from '../api.ts'

export type PageQuestion =
  | { kind: 'load'; url: string; options: Pick<OpenOptions, 'keep' | 'update' | 'runtime'> }
  /** Its parts are chunks as the server streams them. */
  | { kind: 'run'; path: Path; body: Record<string, unknown> }
  | { kind: 'count'; text: string }

export interface PageModel {
  name: string
  info: ModelInfo
  backend: Backend
}

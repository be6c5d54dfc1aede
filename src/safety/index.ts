// Safety as a server uses it: one filter for prompts, one for answers, both from the same settings. Knows no HTTP routes.
import { UserError } from '../core/types.ts'
import { createAudit } from './audit.ts'
import { defaultRules } from './default-rules.ts'
import { createFilter, type Filter } from './filter.ts'
import { createPii, type PiiKind } from './pii.ts'
import { createRules, readRules } from './rules.ts'
import type { Detector } from './types.ts'
import { createWords } from './words.ts'

export type { Audit, AuditEntry } from './audit.ts'
export { askEndpoint, type EndpointOptions, type EndpointVerdict } from './endpoint.ts'
export { createFilter, type Filter, type FilterStream, type Judgement, strongest } from './filter.ts'
export { type PiiKind, piiKinds } from './pii.ts'
export { categories, type Finding } from './types.ts'

/** Words and phrases of the package itself. */
export const defaultDetectors = (): Detector[] => [createWords(), createRules(defaultRules)]

export interface SafetyFilters {
  prompts: Filter | undefined
  answers: Filter | undefined
  /** For /v1/moderations: everything that judges, nothing that blocks or redacts. */
  moderation: Filter
}

export interface SafetyFilterSettings {
  filter: boolean
  rules?: string | undefined
  block: readonly string[]
  threshold: number
  pii?: { prompts: boolean; answers: boolean; kinds: readonly PiiKind[]; country?: string | undefined } | undefined
}

/** Throws UserError where the rules cannot be read or used. */
export async function createFilters(settings: SafetyFilterSettings): Promise<SafetyFilters> {
  const { filter, rules, block, threshold, pii } = settings
  const local = defaultDetectors()
  const own = rules === undefined ? [] : [createRules(await readRules(rules))]
  const personal = (wanted: boolean | undefined) =>
    pii && wanted ? [createPii({ kinds: pii.kinds, country: pii.country })] : []
  const of = (detectors: Detector[]) =>
    detectors.length === 0 ? undefined : createFilter({ detectors, block, threshold })
  const judging = [...(filter ? local : []), ...own]
  return {
    prompts: of([...judging, ...personal(pii?.prompts)]),
    answers: of([...judging, ...personal(pii?.answers)]),
    moderation: createFilter({ detectors: [...local, ...own.map(harmless)], threshold }),
  }
}

/** A detector whose findings only count. */
const harmless = ({ find, open }: Detector): Detector => ({
  find: (text, from) => find(text, from).map((finding) => ({ ...finding, action: 'score' })),
  open,
})

export function auditFrom(
  settings: { file: string; text: 'hashed' | 'plain' },
  key: string | undefined,
  onError: (error: unknown) => void,
) {
  if (key !== undefined && key.length < 16) throw new UserError('UNMASK_AUDIT_KEY: at least 16 characters')
  return createAudit({ file: settings.file, plain: settings.text === 'plain', key, onError })
}

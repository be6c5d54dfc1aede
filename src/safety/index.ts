// Safety as a server uses it: one filter for prompts, one for answers, both from the same settings. Knows no HTTP routes.
import { readFile } from 'node:fs/promises'
import { packaged } from '../checkpoint/names.ts'
import { UserError } from '../core/types.ts'
import { createAudit } from './audit.ts'
import { classified, createClassifier, parseClassifier } from './classifier.ts'
import { defaultRules } from './default-rules.ts'
import { createFilter, type Filter } from './filter.ts'
import { createPii, type PiiKind } from './pii.ts'
import { createRules, readRules } from './rules.ts'
import type { Detector, Finding } from './types.ts'
import { createWords } from './words.ts'

export type { Audit, AuditEntry } from './audit.ts'
export { askEndpoint, type EndpointOptions, type EndpointVerdict } from './endpoint.ts'
export { createFilter, type Filter, type FilterStream, type Judgement, strongest } from './filter.ts'
export { type PiiKind, piiKinds } from './pii.ts'
export { categories, type Finding } from './types.ts'

/** Words and phrases of the package itself. */
export const wordDetectors = (): Detector[] => [createWords(), createRules(defaultRules)]

/**
 * How much a word or phrase counts in a category that the classifier judges too, chosen with the classifier's threshold: by
 * itself it flags no text, with a classifier in doubt it does.
 */
const WORDS_SHARE = 0.4

/** The filter of the package: the classifier, with words and phrases as a second voice. */
export async function defaultDetectors(): Promise<Detector[]> {
  const path = packaged('models', 'safety', 'model.safetensors')
  const classifier = createClassifier(parseClassifier(path, await readFile(path)))
  const known = new Set<string>(classified)
  return [
    classifier,
    ...wordDetectors().map((detector) =>
      findings(detector, (finding) =>
        known.has(finding.category) ? { ...finding, score: finding.score * WORDS_SHARE } : finding,
      ),
    ),
  ]
}

/** A detector with other findings. */
const findings = (detector: Detector, change: (finding: Finding) => Finding): Detector => ({
  ...detector,
  find: (...given) => detector.find(...given).map(change),
})

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
  const local = await defaultDetectors()
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
const harmless = (detector: Detector): Detector => findings(detector, (finding) => ({ ...finding, action: 'score' }))

export function auditFrom(
  settings: { file: string; text: 'hashed' | 'plain' },
  key: string | undefined,
  onError: (error: unknown) => void,
) {
  if (key !== undefined && key.length < 16) throw new UserError('UNMASK_AUDIT_KEY: at least 16 characters')
  return createAudit({ file: settings.file, plain: settings.text === 'plain', key, onError })
}

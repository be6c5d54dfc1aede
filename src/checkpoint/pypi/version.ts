// Versions of Python packages and their order (PEP 440).

export interface Version {
  text: string
  epoch: number
  release: number[]
  isPrerelease: boolean
  /** Compared one after the other, behind epoch and release: pre, post and development release, then the local label. */
  suffix: (number | string)[]
}

const PATTERN =
  /^v?(?:(\d+)!)?(\d+(?:\.\d+)*)(?:[-_.]?(alpha|a|beta|b|preview|pre|c|rc)[-_.]?(\d*))?(?:-(\d+)|[-_.]?(post|rev|r)[-_.]?(\d*))?(?:[-_.]?(dev)[-_.]?(\d*))?(?:\+([a-z0-9]+(?:[-_.][a-z0-9]+)*))?$/

const PHASES: Record<string, number> = { alpha: 0, a: 0, beta: 1, b: 1, preview: 2, pre: 2, c: 2, rc: 2 }
/** A final release stands behind its pre-releases; a development release of it before them. */
const FINAL = 3
const BEFORE_PHASES = -1

/** Undefined where the text is no version of PEP 440. */
export function parseVersion(text: string): Version | undefined {
  const match = PATTERN.exec(text.trim().toLowerCase())
  if (!match) return undefined
  const [, epoch, release, phase, phaseNumber, implicitPost, post, postNumber, dev, devNumber, local] = match
  const isPost = implicitPost !== undefined || post !== undefined
  const onlyDev = phase === undefined && !isPost && dev !== undefined
  return {
    text,
    epoch: Number(epoch ?? 0),
    release: release!.split('.').map(Number),
    isPrerelease: phase !== undefined || dev !== undefined,
    suffix: [
      phase !== undefined ? PHASES[phase]! : onlyDev ? BEFORE_PHASES : FINAL,
      Number(phaseNumber || 0),
      isPost ? Number(implicitPost ?? (postNumber || 0)) : -1,
      dev === undefined ? Number.POSITIVE_INFINITY : Number(devNumber || 0),
      ...(local?.split(/[-_.]/).map((part) => (/^\d+$/.test(part) ? Number(part) : part)) ?? []),
    ],
  }
}

/** Below 0 where `a` is older, 0 where both are the same version, however they are written. */
export function compareVersions(a: Version, b: Version): number {
  if (a.epoch !== b.epoch) return a.epoch - b.epoch
  for (let i = 0; i < Math.max(a.release.length, b.release.length); i++) {
    const difference = (a.release[i] ?? 0) - (b.release[i] ?? 0)
    if (difference !== 0) return difference
  }
  for (let i = 0; i < Math.max(a.suffix.length, b.suffix.length); i++) {
    const difference = compareParts(a.suffix[i], b.suffix[i])
    if (difference !== 0) return difference
  }
  return 0
}

/** In local labels a number is newer than text, and either than nothing. */
function compareParts(a: number | string | undefined, b: number | string | undefined): number {
  if (a === b) return 0
  if (a === undefined) return -1
  if (b === undefined) return 1
  if (typeof a === 'number' && typeof b === 'number') return a < b ? -1 : 1
  if (typeof a === 'string' && typeof b === 'string') return a < b ? -1 : 1
  return typeof a === 'number' ? 1 : -1
}

// The tables of attacks: overload, restarts and damaged files.
import { median } from '../../bench/measure.ts'
import type { Line } from './lines.ts'
import { figure, table } from './markdown.ts'

/** A line of scripts/attacks/overload.ts. */
export type Overload =
  | { overload: 'memory'; seconds: number; server_mib: number; models_mib: number; turn: string }
  | { overload: 'turn'; kind: string; requests: number; p50_ms: number; p99_ms: number }
  | { overload: 'rest'; requests: number; p50_ms: number; p99_ms: number }
  | { overload: 'all turns'; requests: number; p50_ms: number; p99_ms: number; times: number; goal: number }
  | { overload: 'end'; clients: number; seconds: number; rounds: number; faults: number; growth: number }

export function overloaded(lines: readonly Overload[]): string {
  const of = <K extends Overload['overload']>(kind: K) =>
    lines.filter((line): line is Extract<Overload, { overload: K }> => line.overload === kind)
  const row = (name: string, { requests, p50_ms, p99_ms }: { requests: number; p50_ms: number; p99_ms: number }) => [
    name,
    ...[requests, p50_ms, p99_ms].map(figure),
  ]
  const memory = of('memory')
  const most = (part: 'server_mib' | 'models_mib') => figure(Math.max(...memory.map((line) => line[part])))
  const [all] = of('all turns')
  const [end] = of('end')
  return [
    table([
      ['the hostile client', 'requests of the others', 'first token, ms, p50', 'p99'],
      ...of('rest').map((line) => row('rests', line)),
      ...of('turn').map((line) => row(line.kind, line)),
      ...(all ? [row('all turns', all)] : []),
    ]),
    all && end
      ? `p99 beside it: ${figure(all.times)} times that of the rests (goal: ${all.goal}). Requests of the others that failed or were answered otherwise than alone: ${end.faults}. Most memory in the last round of all kinds: ${figure(end.growth)} times that in the first; of the server ${most('server_mib')} MiB, of the model's process ${most('models_mib')} MiB.`
      : '',
  ].join('\n\n')
}

/** A line of scripts/attacks/restarts.ts. */
export type Restarts =
  | { restarts: 'deed'; kind: string; seconds: number; own: number }
  | { restarts: 'stopped'; seconds: number }
  | { restarts: 'answers'; what: string; count: number }
  | { restarts: 'end'; deeds: number; seed: number; servers: number; faults: number }

/** Of one run, or of several with other seeds. */
export function restarted(lines: readonly Restarts[]): string {
  const of = <K extends Restarts['restarts']>(kind: K) =>
    lines.filter((line): line is Extract<Restarts, { restarts: K }> => line.restarts === kind)
  const deeds = of('deed')
  const longest = (of: readonly number[]) => figure(Math.max(...of))
  const total = (of: readonly number[]) => of.reduce((sum, value) => sum + value, 0)
  const kinds = [...new Set(deeds.map(({ kind }) => kind))].sort()
  const answers = [...new Set(of('answers').map(({ what }) => what))].sort()
  const countOf = (wanted: string) =>
    total(of('answers').flatMap(({ what, count }) => (what === wanted ? [count] : [])))
  const ends = of('end')
  return [
    table([
      ['what was done', 'times', 'whole after, s, median', 'longest', 'longest, less waiting for a processor'],
      ...kinds.map((kind) => {
        const those = deeds.filter((deed) => deed.kind === kind)
        const seconds = those.map((deed) => deed.seconds)
        return [
          kind,
          figure(those.length),
          figure(median(seconds)),
          longest(seconds),
          longest(those.map(({ own }) => own)),
        ]
      }),
    ]),
    table([['', ''], ...answers.map((what) => [what, figure(countOf(what))])]),
    `${figure(total(ends.map((end) => end.deeds)))} deeds on ${total(ends.map((end) => end.servers))} servers, the last of each while it was stopped; ${total(ends.map((end) => end.faults))} faults. Longest time from SIGTERM until nothing of a server ran: ${longest(of('stopped').map(({ seconds }) => seconds))} s.`,
  ].join('\n\n')
}

/** Damaged files by parser: lines of scripts/attacks/fuzz.ts. */
export function damaged(lines: readonly Line[]): string {
  const parsers = [...new Set(lines.map((line) => line.case.split(': ')[0]!))]
  const find = (parser: string, what: string) => {
    const line = lines.find((line) => line.case === `${parser}: ${what}`)
    return line ? figure(line.value) : ''
  }
  return [
    table([
      ['parser', 'files', 'refused', 'slowest file, ms of the processor', 'largest rest in buffers, MiB'],
      ...parsers
        .filter((parser) => parser !== 'all')
        .map((parser) => [
          parser,
          ...['files', 'refused', 'slowest file', 'largest rest in buffers'].map((what) => find(parser, what)),
        ]),
    ]),
    `${find('all', 'files')} files; ${find('all', 'faults')} faults; peak memory of the process ${find('all', 'peak memory')} MiB.`,
  ].join('\n\n')
}

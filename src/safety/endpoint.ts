// Another moderation service, asked over HTTP in the shape of OpenAI's /v1/moderations.
import * as z from 'zod'
import { check, describeProblems } from '../formats/check.ts'

export interface EndpointOptions {
  url: string
  model?: string
  key?: string
  timeoutSeconds: number
  signal?: AbortSignal
}

export interface EndpointVerdict {
  flagged: boolean
  scores: Map<string, number>
  categories: string[]
}

/** Bytes of an answer that are read. */
const MAX_BYTES = 1 << 20

const answer = z.object({
  results: z
    .array(
      z.object({
        flagged: z.boolean(),
        categories: z.record(z.string(), z.boolean().nullable()).default({}),
        category_scores: z.record(z.string(), z.number().nullable()).default({}),
      }),
    )
    .min(1),
})

/** Asks about one text. Rejects where there is no answer in time, or none of that shape. */
export async function askEndpoint(
  { url, model, key, timeoutSeconds, signal }: EndpointOptions,
  input: string,
): Promise<EndpointVerdict> {
  const response = await fetch(url, {
    method: 'POST',
    redirect: 'error',
    headers: { 'content-type': 'application/json', ...(key ? { authorization: `Bearer ${key}` } : {}) },
    body: JSON.stringify({ input, model }),
    signal: AbortSignal.any([AbortSignal.timeout(timeoutSeconds * 1000), ...(signal ? [signal] : [])]),
  })
  if (!response.ok) {
    await response.body?.cancel()
    throw new Error(`the moderation endpoint answered ${response.status}`)
  }
  const chunks: Uint8Array[] = []
  let size = 0
  for await (const chunk of (response.body ?? []) as AsyncIterable<Uint8Array>) {
    size += chunk.length
    if (size > MAX_BYTES) throw new Error(`the moderation endpoint answered more than ${MAX_BYTES} bytes`)
    chunks.push(chunk)
  }
  const result = check(answer, JSON.parse(Buffer.concat(chunks).toString('utf8')))
  if ('problems' in result)
    throw new Error(`the moderation endpoint answers in another form: ${describeProblems(result.problems)}`)
  const { flagged, categories, category_scores: scores } = result.data.results[0]!
  const known = Object.entries(scores).filter((entry): entry is [string, number] => entry[1] !== null)
  const names = Object.keys(categories).filter((name) => categories[name] === true)
  return { flagged, scores: new Map(known), categories: names }
}

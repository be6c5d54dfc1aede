// How different texts are from each other. Both scores lie between 0 and 1.

const words = (text) => text.toLowerCase().match(/[\p{L}\p{N}']+/gu) ?? []

const grams = (tokens, n) =>
  Array.from({ length: Math.max(0, tokens.length - n + 1) }, (_, i) => tokens.slice(i, i + n).join(' '))

/** distinct-n (Li et al. 2016): different n-grams of all texts over all of them. 1: none comes twice. */
export function distinct(texts, n) {
  const all = texts.flatMap((text) => grams(words(text), n))
  return all.length === 0 ? 0 : new Set(all).size / all.length
}

/**
 * Self-BLEU (Zhu et al. 2018): mean BLEU of each text against all others, n-grams up to `most`. 0: nothing in common, 1: all
 * alike. Counts of 0 become 0.1 (method 1 of Chen and Cherry 2014), so that short texts have a score.
 */
export function selfBleu(texts, most = 4) {
  if (texts.length < 2) return 0
  const scores = texts.map((text, i) => bleu(words(text), texts.filter((_, j) => j !== i).map(words), most))
  return scores.reduce((sum, score) => sum + score, 0) / scores.length
}

function bleu(candidate, references, most) {
  if (candidate.length === 0) return 0
  let log = 0
  for (let n = 1; n <= most; n++) {
    const counts = count(grams(candidate, n))
    const limits = references.map((reference) => count(grams(reference, n)))
    let hits = 0
    let total = 0
    for (const [gram, times] of counts) {
      total += times
      hits += Math.min(times, Math.max(...limits.map((limit) => limit.get(gram) ?? 0)))
    }
    log += Math.log(total === 0 ? 0.1 : Math.max(hits, 0.1) / total) / most
  }
  // The length nearest to the candidate's.
  const nearest = references
    .map(({ length }) => length)
    .reduce((a, b) => (Math.abs(b - candidate.length) < Math.abs(a - candidate.length) ? b : a))
  return Math.min(1, Math.exp(log) * (candidate.length >= nearest ? 1 : Math.exp(1 - nearest / candidate.length)))
}

function count(items) {
  const counts = new Map()
  for (const item of items) counts.set(item, (counts.get(item) ?? 0) + 1)
  return counts
}

// Offensive English words, from the library obscenity, by category. Letters may be doubled, replaced by look-alikes or by
// digits; words that only contain one of them (cocktail) are passed over. A word says nothing of how it is meant.
import {
  englishDataset,
  englishRecommendedTransformers,
  type ParsedPattern,
  RegExpMatcher,
  resolveConfusablesTransformer,
  resolveLeetSpeakTransformer,
  SyntaxKind,
  toAsciiLowerCaseTransformer,
} from 'obscenity'
import type { Detector, Finding } from './types.ts'

/** Category and score of a word; a score below 0.5 does not flag a text by itself. What is not listed is profanity. */
const meanings = new Map<string, { category: string; score: number }>(
  (
    [
      ['hate', 0.9, 'abeed, africoon, arabush, chingchong, chink, dyke, fag, kike, nigger, tranny'],
      ['hate', 0.45, 'abo, boonga, negro'],
      ['harassment', 0.6, 'bastard, bitch, cunt, prick, retard, slut, spastic, twat, whore'],
      [
        'sexual',
        0.8,
        'bestiality, blowjob, cum, deepthroat, doggystyle, double penetration, ejaculate, felch, fellatio',
      ],
      [
        'sexual',
        0.8,
        'finger bang, fisting, gangbang, handjob, hentai, jerk off, jizz, masturbate, orgy, porn, pussy, wank',
      ],
      ['sexual', 0.6, 'anal, boob, buttplug, cock, cuck, dick, dildo, lubejob, orgasm, tit'],
      ['sexual', 0.4, 'anus, hooker, incest, penis, scat, semen, sex, vagina'],
      ['violence', 0.4, 'rape'],
    ] as const
  ).flatMap(([category, score, words]) => words.split(', ').map((word) => [word, { category, score }] as const)),
)

const meaning = (word: string) => meanings.get(word) ?? { category: 'profanity', score: 0.6 }

function terms(): { id: number; word: string; length: number }[] {
  return englishDataset.build().blacklistedTerms.map(({ id, pattern }) => ({
    id,
    word:
      englishDataset.getPayloadWithPhraseMetadata({ termId: id, startIndex: 0, endIndex: 0, matchLength: 0 })
        .phraseMetadata?.originalWord ?? '',
    length: longest(pattern),
  }))
}

/** Characters of the longest text that a pattern matches. */
const longest = ({ nodes }: ParsedPattern): number =>
  nodes.reduce((sum, node) => {
    if (node.kind === SyntaxKind.Optional)
      return sum + (node.childNode.kind === SyntaxKind.Literal ? node.childNode.chars.length : 1)
    return sum + (node.kind === SyntaxKind.Literal ? node.chars.length : 1)
  }, 0)

export function createWords(): Detector {
  const dataset = englishDataset.build()
  const matcher = new RegExpMatcher({ ...dataset, ...englishRecommendedTransformers })
  const known = new Map(terms().map((term) => [term.id, term.word]))
  // An exception reaches at most so far behind the word that it excepts, and a word is bounded by one more character.
  const reach =
    1 +
    Math.max(...terms().map(({ length }) => length), ...(dataset.whitelistedTerms ?? []).map(({ length }) => length))
  const steps = [resolveConfusablesTransformer(), resolveLeetSpeakTransformer(), toAsciiLowerCaseTransformer()]
  const plain = (char: number): number | undefined =>
    steps.reduce<number | undefined>((code, step) => (code === undefined ? code : step.transform(code)), char)

  return {
    find(text, from) {
      return matcher.getAllMatches(text, true).flatMap(({ termId, startIndex: start, endIndex }): Finding[] => {
        const word = known.get(termId) ?? ''
        if (start < from) return []
        return [{ rule: `word:${word}`, ...meaning(word), action: 'score', start, end: endIndex + 1 }]
      })
    },
    open(text, from) {
      // The last characters, of which a repeated one counts once, as the library sees them.
      let at = text.length
      let before: number | undefined
      for (let count = 0; at > from; ) {
        const low = text.charCodeAt(at - 1)
        const pair = at > 1 && low >= 0xdc00 && low <= 0xdfff
        const char = plain(text.codePointAt(at - (pair ? 2 : 1)) as number)
        if (char !== before && ++count > reach) break
        before = char
        at -= pair ? 2 : 1
      }
      return Math.max(at, from)
    },
  }
}

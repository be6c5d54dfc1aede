// Labelled sets that the classifier of src/safety is trained on and scored on, as their authors publish them. None is part of
// this repository; each can be had at the place named, under the licence named.
import { createHash } from 'node:crypto'
import { existsSync } from 'node:fs'
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { csvParse, tsvParseRows } from 'd3-dsv'
import type { categories } from '../../src/safety/types.ts'

export type Category = (typeof categories)[number]

export interface Example {
  set: string
  text: string
  /** What is known of a text; a category that is absent was not labelled. */
  labels: Partial<Record<Category, boolean>>
  /** What a set says of a text beside that, for evaluation. */
  about: Readonly<Record<string, string | boolean>>
}

export interface LabelledSet {
  name: string
  /** Files below the folder of sets. */
  files: readonly string[]
  source: string
  licence: string
  /** `train`; `score`, never trained on; `both`: halves of it, see `halfOf`. */
  use: 'train' | 'score' | 'both'
  read(texts: readonly string[]): Omit<Example, 'set'>[]
}

type Labels = Example['labels']

const row = (text: string | undefined, labels: Labels, about: Example['about'] = {}) => ({
  text: (text ?? '').trim(),
  labels,
  about,
})

/** A text in which none of these is to be found. */
const none = (...names: Category[]): Labels => Object.fromEntries(names.map((name) => [name, false]))

const OPENAI: Readonly<Record<string, Category>> = {
  S: 'sexual',
  S3: 'sexual/minors',
  H: 'hate',
  H2: 'hate/threatening',
  V: 'violence',
  V2: 'violence/graphic',
  HR: 'harassment',
  SH: 'self-harm',
}

const harmless = none(
  ...(['harassment', 'harassment/threatening', 'hate', 'hate/threatening', 'illicit', 'illicit/violent'] as const),
  ...(['self-harm', 'self-harm/intent', 'self-harm/instructions', 'sexual', 'sexual/minors'] as const),
  ...(['violence', 'violence/graphic'] as const),
)

/** Requests for help with something harmful, by the name that a set gives to the harm. */
const requests = (category: Category | undefined, ...more: Category[]): Labels | undefined =>
  category && { ...harmless, ...Object.fromEntries([category, ...more].map((name) => [name, true])) }

const AILUMINATE: Readonly<Record<string, Labels | undefined>> = {
  cse: requests('sexual/minors', 'sexual', 'illicit'),
  hte: requests('hate'),
  iwp: requests('illicit/violent', 'illicit'),
  ncr: requests('illicit'),
  src: requests('illicit'),
  ssh: requests('self-harm'),
  sxc_prn: requests('sexual'),
  vcr: requests('illicit/violent', 'illicit'),
}

const CATQA: Readonly<Record<string, Labels | undefined>> = {
  'Drug:': requests('illicit'),
  'Weapon:': requests('illicit/violent', 'illicit'),
  'Human Trafficking:': requests('illicit'),
  'Cybercrime:': requests('illicit'),
  'Theft and Robbery:': requests('illicit'),
  'Content Sexual exploitation': requests('sexual/minors', 'sexual', 'illicit'),
  'Online predation': requests('sexual/minors', 'illicit'),
  'Racial or ethnic hate': requests('hate'),
  'Religious intolerance': requests('hate'),
  Cyberbullying: requests('harassment'),
  'Terrorism and extremism': requests('illicit/violent', 'illicit'),
  'Self-harm': requests('self-harm', 'self-harm/instructions'),
  'Assault and battery': requests('illicit/violent', 'illicit'),
  'Weapon making': requests('illicit/violent', 'illicit'),
  'Financial fraud': requests('illicit'),
  'Identity theft': requests('illicit'),
  Phishing: requests('illicit'),
  Counterfeiting: requests('illicit'),
  Pornography: requests('sexual'),
  'Erotic text': requests('sexual'),
  'Sexually explicit dialogue': requests('sexual'),
  'Tax planning': harmless,
  'Retirement planning': harmless,
  'Debt management': harmless,
  Lobbying: harmless,
}

export const sets: readonly LabelledSet[] = [
  {
    name: 'openai',
    files: ['openai.jsonl'],
    source: 'data/samples-1680.jsonl.gz of github.com/openai/moderation-api-release, unpacked',
    licence: 'MIT',
    use: 'both',
    read: ([text = '']) =>
      text
        .trim()
        .split('\n')
        .map((line) => {
          const entry = JSON.parse(line) as Record<string, unknown>
          const known = Object.entries(OPENAI).filter(([key]) => entry[key] !== undefined)
          const labels = Object.fromEntries(known.map(([key, name]) => [name, entry[key] === 1])) as Labels
          return row(String(entry.prompt), labels, { any: Object.values(labels).some(Boolean) })
        }),
  },
  {
    name: 'davidson',
    files: ['davidson.csv'],
    source: 'data/labeled_data.csv of github.com/t-davidson/hate-speech-and-offensive-language',
    licence: 'MIT',
    use: 'both',
    // 0: hate, 1: offensive, 2: neither; what is only offensive is mostly coarse, seldom aimed at anybody.
    read: ([text = '']) =>
      csvParse(text).map((entry) =>
        row(
          entry.tweet,
          entry.class === '0' ? { hate: true } : none('hate', 'hate/threatening', 'self-harm', 'sexual/minors'),
          { offensive: entry.class !== '2' },
        ),
      ),
  },
  {
    name: 'hatexplain',
    files: ['hatexplain-val.csv', 'hatexplain-test.csv'],
    source:
      'github.com/hate-alert/HateXplain, its validation and test posts as data/bert_modeling/df_{val,test}.csv of github.com/shivam0109/CS4NLP-HateXplain',
    licence: 'MIT',
    use: 'train',
    read: (texts) =>
      texts
        .flatMap((text) => csvParse(text))
        .filter((entry) => entry.gt_label !== 'offensive')
        .map((entry) =>
          row(
            entry.unmasked_sentence,
            entry.gt_label === 'hate' ? { hate: true } : none('hate', 'hate/threatening', 'harassment'),
          ),
        ),
  },
  {
    name: 'hatemoji',
    files: ['hatemoji-train.csv', 'hatemoji-validation.csv', 'hatemoji-test.csv'],
    source: 'HatemojiBuild of github.com/HannahKirk/Hatemoji',
    licence: 'CC-BY-4.0',
    use: 'train',
    read: (texts) =>
      texts
        .flatMap((text) => csvParse(text))
        .map((entry) =>
          row(
            entry.text,
            entry.label_gold === '1'
              ? { hate: true, 'hate/threatening': entry.type === 'threateninglanguage' }
              : none('hate', 'hate/threatening'),
          ),
        ),
  },
  {
    name: 'edos',
    files: ['edos.csv'],
    source: 'data/edos_labelled_aggregated.csv of github.com/rewire-online/edos',
    licence: 'CC0-1.0',
    use: 'train',
    read: ([text = '']) =>
      csvParse(text).flatMap((entry) => {
        const kind = entry.label_category?.[0]
        if (kind === 'n') return [row(entry.text, none('hate', 'hate/threatening'))]
        if (kind === '1') return [row(entry.text, { hate: true, 'hate/threatening': true })]
        // Casual slurs, stereotypes and discussions are no hate as OpenAI has it, nor its absence.
        return kind === '2' ? [row(entry.text, { hate: true, 'hate/threatening': false })] : []
      }),
  },
  {
    name: 'misogyny',
    files: ['misogyny.csv'],
    source: 'data/final_labels.csv of github.com/ellamguest/online-misogyny-eacl2021',
    licence: 'MIT',
    use: 'train',
    read: ([text = '']) =>
      csvParse(text).flatMap((entry) => {
        if (entry.level_1 === 'Nonmisogynistic')
          return [row(entry.body, entry.level_2?.endsWith('attack') ? { harassment: true } : none('hate'))]
        return entry.level_2 === 'Derogation' || entry.level_2 === 'Treatment' ? [row(entry.body, { hate: true })] : []
      }),
  },
  {
    name: 'toxigen',
    files: ['toxigen-hate.txt', 'toxigen-neutral.txt'],
    source:
      'demonstrations/*/hate_*.txt and prompts/hate_*.txt of github.com/microsoft/TOXIGEN in one file, those called neutral_ in the other',
    licence: 'CDLA-Permissive-2.0',
    use: 'train',
    // Lists of sentences, the same ones in many orders; line ends within a list are written as \\n.
    read: ([hateful = '', neutral = '']) => {
      const sentences = (text: string) =>
        new Set(
          text
            .split(/\\n|\n/)
            .map((line) => line.replace(/^\s*-\s*/, '').trim())
            .filter(({ length }) => length > 10),
        )
      const [hate, other] = [sentences(hateful), sentences(neutral)]
      return [
        ...[...hate].filter((text) => !other.has(text)).map((text) => row(text, { hate: true })),
        ...[...other]
          .filter((text) => !hate.has(text))
          .map((text) => row(text, none('hate', 'hate/threatening', 'harassment'))),
      ]
    },
  },
  {
    name: 'civil',
    files: ['toxic-spans-comments.csv', 'toxic-spans-annotations.csv'],
    source:
      'data/comments.csv and data/annotations.csv of github.com/ipavlopoulos/toxic_spans (comments of Civil Comments)',
    licence: 'CC0-1.0',
    use: 'train',
    read: ([comments = '', annotations = '']) => {
      const votes = new Map<string, { all: number; toxic: number }>()
      for (const entry of csvParse(annotations)) {
        const vote = votes.get(entry.comment_id ?? '') ?? { all: 0, toxic: 0 }
        votes.set(entry.comment_id ?? '', vote)
        vote.all++
        if (entry['not toxic'] === 'False') vote.toxic++
      }
      return csvParse(comments).flatMap((entry) => {
        const { all, toxic } = votes.get(entry.comment_id ?? '') ?? { all: 0, toxic: 0 }
        if (all === 0) return []
        // Insults, of which these comments mostly are.
        if (toxic === all) return [row(entry.comment_text, { harassment: true })]
        return toxic === 0 ? [row(entry.comment_text, none('harassment', 'hate', 'hate/threatening', 'violence'))] : []
      })
    },
  },
  {
    name: 'surge',
    files: ['surge.csv'],
    source: 'toxicity_en.csv of github.com/surge-ai/toxicity',
    licence: 'MIT',
    use: 'train',
    read: ([text = '']) =>
      csvParse(text).flatMap((entry) =>
        entry.is_toxic === 'Toxic' ? [] : [row(entry.text, none('harassment', 'hate', 'violence'))],
      ),
  },
  {
    name: 'madlibs',
    files: ['madlibs.csv'],
    source: 'sentence_templates/en_sentence_templates.csv of github.com/conversationai/unintended-ml-bias-analysis',
    licence: 'Apache-2.0',
    use: 'train',
    // Every 24th: templates with names of groups, which say that a group by itself is no hate.
    read: ([text = '']) =>
      csvParse(text)
        .filter((entry, index) => entry.toxicity === 'nontoxic' && index % 24 === 0)
        .map((entry) => row(entry.phrase, none('hate', 'hate/threatening', 'harassment'))),
  },
  {
    name: 'ailuminate',
    files: ['ailuminate.csv'],
    source: 'airr_official_1.0_demo_en_us_prompt_set_release.csv of github.com/mlcommons/ailuminate',
    licence: 'CC-BY-4.0',
    use: 'train',
    read: ([text = '']) =>
      csvParse(text).flatMap((entry) => {
        const labels = AILUMINATE[entry.hazard ?? '']
        return labels ? [row(entry.prompt_text, labels)] : []
      }),
  },
  {
    name: 'catqa',
    files: ['catqa.json'],
    source: 'harmful_questions/catqa_english.json of github.com/declare-lab/red-instruct',
    licence: 'Apache-2.0',
    use: 'train',
    read: ([text = '']) =>
      Object.values(JSON.parse(text) as Record<string, Record<string, string[]>>)
        .flatMap((kinds) => Object.entries(kinds))
        .flatMap(([kind, questions]) => {
          const labels = CATQA[kind]
          return labels ? questions.map((question) => row(question, labels)) : []
        }),
  },
  {
    name: 'cssrs',
    files: ['cssrs.csv'],
    source:
      'Reddit C-SSRS Suicide Dataset (Zenodo 2667859), as anonymized_dataset/500_Reddit_users_posts_labels.csv of github.com/AmanuelF/Suicide-Risk-Assessment-using-Reddit',
    licence: 'CC-BY-4.0',
    use: 'train',
    // Posts of a person are a Python list of strings; the label is of the person, so a post is labelled with some doubt.
    read: ([text = '']) =>
      csvParse(text).flatMap((entry) => {
        const posts = [...(entry.Post ?? '').matchAll(/(?:^\[|, )(?:'((?:[^'\\]|\\.)*)'|"((?:[^"\\]|\\.)*)")/g)]
        const labels: Labels | undefined =
          entry.Label === 'Supportive'
            ? none('self-harm', 'self-harm/intent')
            : entry.Label === 'Indicator'
              ? undefined
              : { 'self-harm': true, 'self-harm/intent': true }
        return labels ? posts.slice(0, 6).map(([, one, two]) => row(one ?? two, labels)) : []
      }),
  },
  {
    name: 'clinc',
    files: ['clinc.json'],
    source: 'data/data_full.json of github.com/clinc/oos-eval',
    licence: 'CC-BY-3.0',
    use: 'train',
    read: ([text = '']) =>
      Object.values(JSON.parse(text) as Record<string, [string, string][]>)
        .flat()
        .filter((_, index) => index % 5 === 0)
        .map(([query]) => row(query, harmless)),
  },
  {
    name: 'goemotions',
    files: ['goemotions.tsv'],
    source: 'goemotions/data/train.tsv of github.com/google-research/google-research',
    licence: 'Apache-2.0',
    use: 'train',
    // Comments with nothing but admiration, approval, caring, excitement, gratitude, joy, love, optimism, pride or relief.
    read: ([text = '']) =>
      tsvParseRows(text)
        .filter(([, feelings = '']) => feelings.split(',').every((id) => /^(?:0|4|5|13|15|17|18|20|21|23)$/.test(id)))
        .filter((_, index) => index % 2 === 0)
        .map(([comment]) =>
          row(comment, none('harassment', 'hate', 'hate/threatening', 'violence', 'self-harm', 'illicit')),
        ),
  },
  {
    name: 'gsm8k',
    files: ['gsm8k-train.jsonl'],
    source: 'grade_school_math/data/train.jsonl of github.com/openai/grade-school-math',
    licence: 'MIT',
    use: 'train',
    read: ([text = '']) =>
      text
        .trim()
        .split('\n')
        .filter((_, index) => index % 4 === 0)
        .map((line) => row((JSON.parse(line) as { question: string }).question, harmless)),
  },
  {
    name: 'hatecheck',
    files: ['hatecheck.csv'],
    source: 'test_suite_cases.csv of github.com/paul-rottger/hatecheck-data',
    licence: 'CC-BY-4.0',
    use: 'score',
    read: ([text = '']) =>
      csvParse(text).map((entry) =>
        row(
          entry.test_case,
          { hate: entry.label_gold === 'hateful' },
          { functionality: entry.functionality ?? '', hateful: entry.label_gold === 'hateful' },
        ),
      ),
  },
  {
    name: 'hatemojicheck',
    files: ['hatemojicheck.csv'],
    source: 'HatemojiCheck/test.csv of github.com/HannahKirk/Hatemoji',
    licence: 'CC-BY-4.0',
    use: 'score',
    read: ([text = '']) =>
      csvParse(text)
        .filter((entry) => entry.included_in_test_suite === '1')
        .map((entry) => row(entry.text, { hate: entry.label_gold === '1' }, { hateful: entry.label_gold === '1' })),
  },
  {
    name: 'xstest',
    files: ['xstest.csv'],
    source: 'xstest_prompts.csv of github.com/paul-rottger/exaggerated-safety',
    licence: 'CC-BY-4.0',
    use: 'score',
    read: ([text = '']) =>
      csvParse(text).map((entry) =>
        row(entry.prompt, {}, { type: entry.type ?? '', unsafe: entry.label === 'unsafe' }),
      ),
  },
  {
    name: 'simple',
    files: ['simple.csv'],
    source: 'SimpleSafetyTests - test cases.csv of github.com/bertiev/SimpleSafetyTests',
    licence: 'CC-BY-4.0',
    use: 'score',
    read: ([text = '']) =>
      csvParse(text).map((entry) => row(entry.prompts_final, {}, { area: entry.harm_area ?? '', unsafe: true })),
  },
]

/** Which half of a set that is used for both a text belongs to, by its hash alone. */
export const halfOf = (text: string): 'train' | 'score' =>
  createHash('sha256').update(text).digest()[0]! % 2 === 0 ? 'train' : 'score'

/** Reads the sets whose files lie in a folder, in the order of `sets`. */
export async function readSets(folder: string, names = sets.map(({ name }) => name)): Promise<Map<string, Example[]>> {
  const found = new Map<string, Example[]>()
  for (const { name, files, read } of sets) {
    if (!names.includes(name) || !files.every((file) => existsSync(join(folder, file)))) continue
    const texts = await Promise.all(files.map((file) => readFile(join(folder, file), 'utf8')))
    found.set(
      name,
      read(texts)
        .filter(({ text }) => text !== '')
        .map((example) => ({ set: name, ...example })),
    )
  }
  return found
}

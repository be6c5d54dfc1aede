// Phrases that are seldom meant well, for what single words do not show. A small curated list in English: it finds plain
// statements, not meanings.
import type { Rule } from './rules.ts'

const PEOPLE =
  '(?:black|white|asian|brown|jewish|muslim|gay|trans|disabled|chinese|mexican|african|arab|indian)(?: people| men| women| folks?)?|(?:women|blacks|jews|muslims|gays|lesbians|immigrants|refugees|mexicans|arabs|asians|christians|homosexuals|foreigners)'
const KILL = '(?:kill|murder|shoot|stab|strangle|behead|execute|exterminate|hang|lynch|slaughter|burn|gas)'
const SUICIDE =
  '(?:kill(?:ing)? myself|end(?:ing)? my (?:own )?life|commit(?:ting)? suicide|hang(?:ing)? myself|take my own life)'
const CHILD =
  '(?:child(?:ren)?|kid(?:s)?|minor(?:s)?|underage|preteen|toddler|schoolgirl|schoolboy|little (?:girl|boy)|(?:[1-9]|1[0-7])[ -]years?[ -]old)'
const SEX =
  '(?:sex(?:ual(?:ly)?)?|porn|nude|naked|molest\\w{0,4}|fuck\\w{0,4}|rap(?:e|ed|ing)|penis|cock|vagina|pussy|orgasm|lolita)'

const phrases: [id: string, category: string, score: number, pattern: string][] = [
  [
    'slurs',
    'hate',
    0.9,
    '\\b(?:spics?|gooks?|wetbacks?|ragheads?|towelheads?|camel jockeys?|coons?|pakis?|sand ?monkeys?|shemales?|beaners?)\\b',
  ],
  [
    'despise',
    'hate',
    0.8,
    `\\b(?:hate|despise|loathe|detest|can't stand|disgusted by)(?: all)?(?: the| these| those| you)?(?: fucking)? (?:${PEOPLE})\\b`,
  ],
  [
    'inferior',
    'hate',
    0.8,
    `\\b(?:${PEOPLE}) (?:are|is)(?: all| just| nothing but| like| no better than| not| the)?(?: a| an)? (?:inferior|subhuman|vermin|parasites?|animals|scum|disgusting|filth|cockroach(?:es)?|plague|cancer|disease|trash|stupid|evil|worthless|repulsive|human|thieves|criminals|rapists|terrorists|pigs|rats|dogs)\\b`,
  ],
  [
    'expel',
    'hate',
    0.7,
    `\\b(?:get rid of|deport|ban|expel|wipe out|eradicate|eliminate) (?:all |the |these |those ){0,2}(?:${PEOPLE})\\b`,
  ],
  ['kill-group', 'hate/threatening', 0.9, `\\b${KILL} (?:all |the |every |those |these |a ){0,2}(?:${PEOPLE})\\b`],
  [
    'die-group',
    'hate/threatening',
    0.8,
    `\\b(?:${PEOPLE}) (?:should|must|deserve to|need to|ought to)(?: all)? (?:die|be (?:killed|shot|gassed|hanged|hung|beaten|exterminated|burned))\\b`,
  ],
  [
    'kill-you',
    'harassment/threatening',
    0.9,
    `\\b(?:i(?:'ll| will| am going to|'m going to|'m gonna| am gonna| want to| wanna)|we(?:'ll| will| are going to)|gonna) (?:fucking |personally |find you and |come and ){0,2}${KILL} (?:you|him|her|them|your)\\b`,
  ],
  [
    'die-you',
    'harassment',
    0.8,
    "\\b(?:kill yourself|kys|go die|hope you die|you should die|die in a fire|nobody (?:likes|loves|wants) you|you(?:'re| are) (?:a )?(?:worthless|pathetic|disgusting|stupid|ugly|fat|idiot|loser|moron|piece of shit))\\b",
  ],
  [
    'suicide-intent',
    'self-harm/intent',
    0.9,
    `\\b(?:i|i'm|i am|i've|i have)(?: \\w{1,12}){0,4} (?:to |about |of )?${SUICIDE}\\b`,
  ],
  [
    'suicide-thoughts',
    'self-harm',
    0.8,
    '\\b(?:want(?:ed)? to die|suicidal|thinking about suicide|cut(?:ting)? myself|self[- ]harm(?:ing|ed)?|slit (?:my|your|her|his) wrists?|starv(?:e|ing) myself|better off dead|pro[- ]?ana|thinspo)\\b',
  ],
  [
    'suicide-how',
    'self-harm/instructions',
    0.9,
    `\\b(?:how (?:can i|do i|to|should i)|(?:best|painless|easiest|quickest) ways? to)(?: \\w{1,12}){0,2} ${SUICIDE.replaceAll('myself', '(?:my|your)self').replaceAll(' my ', ' (?:my|your) ')}`,
  ],
  [
    'weapons',
    'illicit/violent',
    0.9,
    '\\b(?:how (?:can i|do i|to)|instructions (?:for|to)|recipe for|steps to) (?:make|making|build|building|assemble|construct|cook)?(?: an?| some)? ?(?:pipe |nail |dirty |car |homemade |fertili[sz]er )?(?:bombs?|explosives?|molotov\\w{0,10}|nerve (?:gas|agent)|sarin|ricin|ied|napalm|grenades?)\\b',
  ],
  [
    'drugs',
    'illicit',
    0.8,
    '\\bhow (?:can i|do i|to) (?:make|cook|synthesi[sz]e|produce|manufacture|buy)(?: some)? (?:meth(?:amphetamine)?|crack|cocaine|heroin|fentanyl|lsd|mdma|ghb)\\b',
  ],
  [
    'theft',
    'illicit',
    0.7,
    '\\bhow (?:can i|do i|to) (?:steal|shoplift|hotwire|hack into|launder|forge|counterfeit|clone (?:a )?credit card)',
  ],
  ['minors-sex', 'sexual/minors', 0.8, `\\b${CHILD}\\b[^.!?\\n]{0,80}\\b${SEX}\\b`],
  ['sex-minors', 'sexual/minors', 0.8, `\\b${SEX}\\b[^.!?\\n]{0,80}\\b${CHILD}\\b`],
  [
    'sex-acts',
    'sexual',
    0.7,
    '\\b(?:moan(?:ed|ing|s)?|thrust(?:ing|ed|s)?|horny|aroused|erection|clit(?:oris)?|nipples?|naked|undress\\w{0,3}|escorts?|lingerie|sensual|erotic\\w{0,4}|hard-on|blow job|hand job|oral sex|making love|suck(?:ed|ing|s)? (?:his|my|your|her)|go down on|(?:his|my|her) (?:member|shaft|length))\\b',
  ],
  [
    'attack',
    'violence',
    0.6,
    `\\b(?:${KILL}(?:ed|ing|s)?|blow up|massacre|tortur(?:e|ed|ing)|bomb(?:ed|ing)?) (?:all |the |every |those |these |a |my ){0,2}(?:people|everyone|everybody|children|kids|family|families|civilians|students|teachers|crowd|school|church|infidels|enem(?:y|ies)|wife|husband|boss|neighbou?rs?)\\b`,
  ],
  [
    'gore',
    'violence/graphic',
    0.8,
    '\\b(?:disembowel\\w{0,5}|dismember\\w{0,5}|decapitat\\w{0,4}|behead\\w{0,4}|entrails|intestines|guts spill\\w{0,3}|pool of blood|blood (?:spurt|gush|spray|splatter)\\w{0,4}|brains? (?:splatter|ooz|spill)\\w{0,4}|severed (?:head|limb|arm|leg|hand)s?|gouge\\w{0,2}|rotting (?:flesh|corpses?)|mutilat\\w{0,4})\\b',
  ],
]

export const defaultRules: readonly Rule[] = phrases.map(([id, category, score, pattern]) => ({
  id: `default:${id}`,
  category,
  score,
  pattern,
  case_sensitive: false,
  action: 'score',
}))

"""Sentences, words and tokens of English prose, cut by rules without a model or a data file, so that every machine agrees.

IFEval and IFBench use nltk, which downloads its data at run time; these rules agree with it on ordinary text, but not on all.
"""

import re
import string
from functools import lru_cache

_BREAK = re.compile(r"[.!?…]+[\"'”’)\]*_]*(?=\s|$)")
"""Where a sentence may end: `.`, `?!`, `."`, before a space or the end of the text."""
_ABBREVIATION = re.compile(r"(?:^|[\s(\"'“‘\[])((?:[A-Za-z]\.)+[A-Za-z]?|[A-Za-z]+)\.$")
"""The last word before a full stop: `e.g.`, `U.S.`, `Dr.`."""
_ABBREVIATIONS = frozenset(
    "mr mrs ms dr prof sr jr st vs etc e.g i.e cf al inc ltd co corp dept est fig gen gov hon lt maj col capt sgt rev "
    "mt ave blvd rd no vol pp approx jan feb mar apr jun jul aug sep sept oct nov dec a.m p.m u.s u.k ph.d b.c a.d".split()
)
_MAY_END = frozenset("etc inc ltd co corp jr sr a.m p.m u.s u.k ph.d b.c a.d".split())
"""Abbreviations that may also end a sentence; they do where a capital follows."""
_TOKEN = re.compile(
    # "...", "--"; "U.S."; "3.14", "1,000", "10:30"
    r"\.{3}|--+|(?:[A-Za-z]\.){2,}|\d+(?:[.,:]\d+)*|"
    # "well-known", "don't"; a single mark
    r"\w+(?:[-'’.]\w+)*|[^\w\s]"
)
_CONTRACTION = re.compile(r"(?i)(.+?)(n't|['’](?:s|re|ve|ll|d|m))$")  # `do` and `n't`, `she` and `'s`, `we` and `'ll`
_WORD = re.compile(r"\w+")
_DELETE_PUNCTUATION = str.maketrans("", "", string.punctuation)

STOP_WORDS = frozenset(
    """i me my myself we our ours ourselves you you're you've you'll you'd your yours yourself yourselves he him his himself
    she she's her hers herself it it's its itself they them their theirs themselves what which who whom this that that'll
    these those am is are was were be been being have has had having do does did doing a an the and but if or because as
    until while of at by for with about against between into through during before after above below to from up down in
    out on off over under again further then once here there when where why how all any both each few more most other some
    such no nor not only own same so than too very s t can will just don don't should should've now d ll m o re ve y ain
    aren aren't couldn couldn't didn didn't doesn doesn't hadn hadn't hasn hasn't haven haven't isn isn't ma mightn mightn't
    mustn mustn't needn needn't shan shan't shouldn shouldn't wasn wasn't weren weren't won won't wouldn wouldn't""".split()
)
"""English stop words, those of nltk's corpus."""


def sentences(text: str) -> list[str]:
    """The sentences of a text, stripped; a last one without a full stop counts too."""
    parts, start = [], 0
    for match in _BREAK.finditer(text):
        if not _ends_sentence(text, start, match):
            continue
        parts.append(text[start : match.end()].strip())
        start = match.end()
    parts.append(text[start:].strip())
    return [sentence for sentence in parts if sentence]


def _ends_sentence(text: str, start: int, match: re.Match[str]) -> bool:
    """Whether a match of _BREAK ends a sentence: not in `Dr. Who` or `J. Smith`, nor in `so ... it goes`."""
    after = text[match.end() : match.end() + 40].lstrip()
    if match[0].startswith(("...", "…")):
        return not after[:1].islower()
    if match[0] != ".":
        return True
    # An abbreviation is short: looking back a little is enough, and keeps this linear.
    before = _ABBREVIATION.search(text[max(start, match.start() - 16) : match.end()])
    if before is None:
        return True
    word = before[1].lower().rstrip(".")
    if word in _MAY_END:
        return after[:1].isupper()
    initial = len(word) == 1 and before[1].isupper() and word != "i" and after[:1].isupper()
    return not after or not (word in _ABBREVIATIONS or initial)


@lru_cache(maxsize=256)
def tokens(text: str) -> tuple[str, ...]:
    """Words, numbers and punctuation marks as Penn Treebank tokenisers cut them: `don't` is `do` and `n't`."""
    parts: list[str] = []
    for token in _TOKEN.findall(text):
        contraction = _CONTRACTION.match(token)
        parts.extend(contraction.groups() if contraction else (token,))
    return tuple(parts)


def word_tokens(text: str) -> list[str]:
    """The tokens that hold a letter or a digit."""
    return [token for token in tokens(text) if any(character.isalnum() for character in token)]


def regexp_words(text: str) -> list[str]:
    r"""The runs of \w, which IFEval and IFBench count as words: `don't` is `don` and `t`."""
    return _WORD.findall(text)


def without_punctuation(text: str) -> str:
    """A text without its ASCII punctuation."""
    return text.translate(_DELETE_PUNCTUATION)


def bare_words(text: str) -> list[str]:
    """The words between spaces, in lower case and without ASCII punctuation: `Don't stop.` is `dont` and `stop`."""
    return without_punctuation(text.lower()).split()


_VERBS = frozenset(
    """accept achieve act adapt add address adjust admire admit adopt advance advise agree aim allow analyze answer anticipate
    appear apply appreciate approach arrange arrive ask assemble assess assign assist assume attach attempt attend avoid
    bake balance be become begin believe bind blend boil boost borrow break breathe bring browse build buy calculate call
    capture care carry catch celebrate challenge change charge chase check choose chop clarify clean clear click climb close
    collect combine come commit communicate compare complete compose compute conduct connect consider consult contact contain
    continue contribute control convert cook cool copy correct count cover craft create cross cultivate cut dance deal decide
    define delete deliver demonstrate describe design destroy determine develop discover discuss display divide do document
    download draft draw dream dress drink drive drop earn eat edit educate eliminate embrace emphasize employ empower enable
    encourage engage enhance enjoy ensure enter establish estimate evaluate examine exercise exist expand expect experience
    experiment explain explore express extend face fall feed feel fight fill find finish fix fly focus fold follow forget
    forgive form foster freeze gather generate get give go grab greet grow guess guide handle happen harness have hear heat
    help hide highlight hire hold hope identify ignore illustrate imagine implement improve include increase inform initiate
    innovate insert inspire install integrate introduce invest investigate invite involve join jump justify keep kick know
    launch lead learn leave lend let leverage lift limit link list listen live locate look lose love make manage mark master
    measure meditate meet mention minimize mix modify monitor motivate move multiply navigate need negotiate note notice
    obtain offer open operate optimize order organize outline overcome own pack paint participate pass pay perform persist
    pick place plan plant play point ponder pour practice prepare present preserve press prevent print prioritize proceed
    process produce promote propose protect prove provide pull purchase pursue push put question quit raise reach read
    realize recall receive recognize recommend record recover recruit reduce refer reflect refuse regard relax release rely
    remain remember remind remove repair repeat replace reply report represent request require research resolve respond rest
    return reveal review revise ride rinse rise roast run save say schedule search secure see seek select sell send serve set
    share shift shine show simplify sing sit sketch sleep slice solve sort speak spend sprinkle stand start state stay stir
    stop store strengthen stretch strive structure study submit subtract succeed suggest summarize support suppose survive
    swim switch tackle take talk teach tell test thank think throw touch track train transform translate travel treat trust
    try turn understand unite unleash unlock update upgrade use utilize validate verify view visit visualize wait wake walk
    want warm wash watch wear welcome whisk win wish wonder work worry wrap write""".split()
)
_IRREGULAR = frozenset(
    """am is are was were been being has had having does did done doing went gone made said took taken got gotten gave given
    came became began begun brought built bought caught chose chosen drew drawn drank drunk drove driven ate eaten fell
    fallen felt fought found flew flown forgot forgotten grew grown heard held kept knew known led left lent lost met paid
    ran rode ridden rose risen saw seen sold sent sang sung sat slept spoke spoken spent stood swam swum taught told thought
    threw thrown understood woke woken wore worn won wrote written let's lets""".split()
)


@lru_cache(maxsize=8192)
def is_verb(word: str) -> bool:
    """Whether a word is a form of a common English verb; by a list and not by a tagger, so that the answer never changes."""
    lower = word.lower()
    if lower in _VERBS or lower in _IRREGULAR:
        return True
    for ending, restores in (("ing", ("", "e")), ("ed", ("", "e")), ("es", ("", "e")), ("s", ("",)), ("d", ("",))):
        if not lower.endswith(ending):
            continue
        stem = lower[: -len(ending)]
        doubled = stem[:-1] if len(stem) > 2 and stem[-1:] == stem[-2:-1] else stem
        y_form = stem[:-1] + "y" if stem.endswith("i") else stem
        if any(form in _VERBS for form in [*(stem + rest for rest in restores), doubled, y_form]):
            return True
    return False

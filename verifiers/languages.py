"""Which language a text is in: by scripts that one language alone uses, else by langdetect's statistics with a fixed seed.

All of a text is read. A language needs more than half of its letters, and a text of less than three words is in none.
"""

import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import lru_cache

from tulu.verifiers.prose import STOP_WORDS, is_verb, read_words, regexp_words
from tulu.verifiers.text import visible_text

CODES = frozenset(
    "af ar bg bn ca cs cy da de el en es et fa fi fr gu he hi hr hu id it ja kn ko lt lv mk ml mr ne nl no pa pl pt ro ru sk "
    "sl so sq sv sw ta te th tl tr uk ur vi zh-cn zh-tw".split()
)
_SAMPLE = 2_000
"""Characters at the start of a text that mode tulu3 looks at."""
_PIECE, _PIECES = 600, 40
"""Characters of the pieces that a text is cut into, and how many pieces there are at most; those of a long text are longer."""
_SHORT = 100
"""Characters up to which a text is too short for letter statistics."""
_FEWEST_WORDS = 3
_STOP_WORD_SHARE = 0.2
"""Share of English stop words from which a short text may count as English."""
_ENGLISH_ONLY = frozenset(
    "the and that with this you have from which their will are for they would your been were has should into through".split()
)
_ENGLISH_ONLY_SHARE, _ENGLISH_STOP_WORD_SHARE = 0.1, 0.4
"""Shares of words that English alone has, and of stop words, from which a text counts as English without statistics."""
_HOMOGRAPHS = [
    frozenset(words.split())
    for words in (
        "all am an as d die do hat her in m man most s so t war was will",  # German
        "an as at been by do had have he her in is me more my of over s so t under was we",  # Dutch, Afrikaans
        "a an as d do for has he i m me no o on once or s same t y",  # French, Spanish, Portuguese, Catalan
        "a all am are as as do i in ma me more no o so",  # Italian, Romanian
        "a by do i in ma me my no o on same so to we",  # Polish, Czech, Slovak, Slovene, Croatian
        "all an at be by do for has have he her i is me no on over so to under we",  # Swedish, Danish, Norwegian
        "a be he her is it an as at in ma me most no on o",  # Finnish, Estonian, Hungarian, Turkish
        "a am an as at by do he her i in is me no o on so to",  # Welsh, Albanian, Lithuanian, Latvian, Tagalog, Vietnamese
    )
]
"""English stop words that are common words of other languages too, by groups of those."""
_SHARED_WORDS = frozenset().union(*_HOMOGRAPHS)
_FOREIGN_WORDS = read_words("foreign_words")
"""Common words of languages in Latin letters that are no English words."""
_SCRIPT_OF = {
    "ko": "HANGUL", "th": "THAI", "bn": "BENGALI", "pa": "GURMUKHI", "gu": "GUJARATI", "ta": "TAMIL", "te": "TELUGU",
    "kn": "KANNADA", "ml": "MALAYALAM", "el": "GREEK", "he": "HEBREW",
}  # fmt: skip
"""Scripts that one language alone uses."""
_LANGUAGE_OF = {script: language for language, script in _SCRIPT_OF.items()}
_SHARED_SCRIPTS = {
    **dict.fromkeys(("bg", "mk", "ru", "uk"), "CYRILLIC"),
    **dict.fromkeys(("ar", "fa", "ur"), "ARABIC"),
    **dict.fromkeys(("hi", "mr", "ne"), "DEVANAGARI"),
}
"""The scripts of the languages that share one; every other language is written in Latin letters."""
_KANA = ("HIRAGANA", "KATAKANA", "KATAKANA-HIRAGANA", "HALFWIDTH KATAKANA")
_UNSPACED = {"CJK": 1.5, **dict.fromkeys((*_KANA, "THAI", "LAO", "KHMER", "MYANMAR"), 1 / 3)}
"""Words that a letter counts for in scripts without spaces between words: `你好` is enough to tell Chinese, `はい` is not."""
_FEWEST_LETTERS = 2
"""Different letters that they need; one that is repeated says nothing."""
_JAPANESE_SHARE = 0.1
"""Share of kana among kana and Chinese characters from which a text is Japanese."""
_FIRST_SCRIPTS = (
    ("zh-cn", "\u4e00", "\u9fff"), ("ja", "\u3040", "\u30ff"), ("ko", "\uac00", "\ud7af"), ("th", "\u0e00", "\u0e7f"),
    ("bn", "\u0980", "\u09ff"), ("pa", "\u0a00", "\u0a7f"), ("gu", "\u0a80", "\u0aff"), ("ta", "\u0b80", "\u0bff"),
    ("te", "\u0c00", "\u0c7f"), ("kn", "\u0c80", "\u0cff"), ("ml", "\u0d00", "\u0d7f"), ("el", "\u0370", "\u03ff"),
    ("he", "\u0590", "\u05ff"),
)  # fmt: skip
"""The same scripts as mode tulu3 reads them: (language, first character, last character)."""


def warm() -> None:
    """Loads the language profiles."""
    detect("Dies lädt die Profile der Sprachen.")


@lru_cache(maxsize=4096)
def _script(letter: str) -> str:
    """The script of a letter, which is the first word of its name."""
    words = unicodedata.name(letter, "").split()
    return " ".join(words[:2]) if words[:1] == ["HALFWIDTH"] else "".join(words[:1])


def _letters_by_script(text: str) -> Counter[str]:
    if text.isascii():
        return Counter({"LATIN": sum(count for character, count in Counter(text).items() if character.isalpha())})
    letters: Counter[str] = Counter()
    for character, count in Counter(text).items():
        if character.isalpha():
            letters[_script(character)] += count
    return letters


def _has_three_words(text: str, letters: Mapping[str, int]) -> bool:
    """Whether a text has three different words: between spaces, or letters enough in scripts that put no spaces."""
    written = sum(words * letters.get(script, 0) for script, words in _UNSPACED.items())
    if written >= _FEWEST_WORDS and 2 * sum(letters.get(script, 0) for script in _UNSPACED) > sum(letters.values()):
        return (
            len({character for character in text if character.isalpha() and _script(character) in _UNSPACED}) >= _FEWEST_LETTERS
        )
    words = set()
    for word in text.lower().split():
        if any(character.isalpha() for character in word):
            words.add("".join(character for character in word if character.isalpha()))
            if len(words) == _FEWEST_WORDS:
                return True
    return False


@lru_cache(maxsize=512)
def detect(text: str) -> str | None:
    """The ISO 639-1 code of the language that most of a text is in (zh-cn and zh-tw for Chinese); None where there is none."""
    text = visible_text(text)
    letters = _letters_by_script(text)
    total = sum(letters.values())
    if not _has_three_words(text, letters):
        return None
    kana, chinese = sum(letters[script] for script in _KANA), letters["CJK"]
    if 2 * (kana + chinese) > total and kana > _JAPANESE_SHARE * (kana + chinese):
        return "ja"
    script, count = letters.most_common(1)[0]
    if 2 * count <= total:
        return None
    if script in _LANGUAGE_OF:
        return _LANGUAGE_OF[script]
    votes = _votes(text, script)
    if script == "CJK":
        return "zh-tw" if 2 * votes["zh-tw"] > count else "zh-cn"
    best, letters_of_best = votes.most_common(1)[0] if votes else (None, 0)
    return best if 2 * letters_of_best > total else None


def _votes(text: str, script: str) -> Counter[str]:
    """How many letters of a script stand in pieces of a text that are in each language of that script."""
    pieces = max(1, min(_PIECES, round(len(text) / _PIECE)))
    size = -(-len(text) // pieces)
    votes: Counter[str] = Counter()
    for start in range(0, len(text), size):
        piece = text[start : start + size]
        language = _language_of_piece(piece)
        if language is not None and (script == "CJK" or _SHARED_SCRIPTS.get(language, "LATIN") == script):
            votes[language] += _letters_by_script(piece)[script]
    return votes


def _language_of_piece(piece: str) -> str | None:
    lower = piece.lower()
    words = regexp_words(lower)
    if _is_short_english(words) if len(piece) <= _SHORT else _is_plainly_english(words):
        return "en"
    if len(piece) > _SHORT or not piece.isascii():
        return by_statistics(lower if piece.isupper() or piece.istitle() else piece)
    language = by_statistics(lower)
    if language != "en":
        return language
    # Words that are common elsewhere say nothing: `was ist so in` is no English.
    telling = [word for word in words if word not in _SHARED_WORDS and word not in _FOREIGN_WORDS]
    return "en" if len(telling) >= _FEWEST_WORDS and by_statistics(" ".join(telling)) == "en" else None


def _is_plainly_english(words: Sequence[str]) -> bool:
    """Whether words that English alone has, and stop words, are so many that no statistics are needed."""
    return sum(word in _ENGLISH_ONLY for word in words) > _ENGLISH_ONLY_SHARE * len(words) and (
        sum(word in STOP_WORDS for word in words) >= _ENGLISH_STOP_WORD_SHARE * len(words)
    )


def _is_short_english(words: Sequence[str]) -> bool:
    """Whether a fifth of a few words are English, more than are foreign, and not all of them are words of one other language."""
    english = [word for word in words if word in STOP_WORDS or (len(word) > 3 and is_verb(word))]
    telling = min(sum(word not in homographs for word in english) for homographs in _HOMOGRAPHS)
    foreign = sum(word in _FOREIGN_WORDS for word in words)
    return len(english) >= _STOP_WORD_SHARE * len(words) and telling > foreign


@lru_cache(maxsize=4096)
def by_statistics(sample: str) -> str | None:
    """The language that langdetect names; None where it finds nothing to count."""
    import langdetect

    langdetect.DetectorFactory.seed = 0
    try:
        return str(langdetect.detect(sample))
    except langdetect.LangDetectException:
        return None


def is_language(text: str, language: str) -> bool:
    """Whether a text is in a language; `zh` stands for either Chinese."""
    detected = detect(text)
    return detected is not None and (detected == language or (language == "zh" and detected.startswith("zh")))


def detect_at_start(text: str) -> str | None:
    """The language of a text's start, without regard to how many words there are, as mode tulu3 of ifeval_old reads it."""
    sample = text[:_SAMPLE]
    letters = [character for character in sample if character.isalpha()]
    if not letters:
        return None
    counts = {code: sum(low <= letter <= high for letter in letters) for code, low, high in _FIRST_SCRIPTS}
    script = max(counts, key=lambda name: counts[name])
    if sample.isascii() or (2 * counts[script] <= len(letters) and counts["ja"] <= _JAPANESE_SHARE * len(letters)):
        return by_statistics(sample)
    if counts["ja"] > _JAPANESE_SHARE * len(letters):
        return "ja"
    if script != "zh-cn":
        return script
    return "zh-tw" if by_statistics(sample) == "zh-tw" else "zh-cn"

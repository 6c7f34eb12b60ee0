"""Which language a text is in: by scripts that one language alone uses, else by langdetect's statistics with a fixed seed."""

from functools import lru_cache

from tulu.verifiers.prose import STOP_WORDS, regexp_words

CODES = frozenset(
    "af ar bg bn ca cs cy da de el en es et fa fi fr gu he hi hr hu id it ja kn ko lt lv mk ml mr ne nl no pa pl pt ro ru sk "
    "sl so sq sv sw ta te th tl tr uk ur vi zh-cn zh-tw".split()
)
_SAMPLE = 2_000
"""Characters at the start of a text that are looked at."""
_SHORT = 60
"""Characters up to which a text is too short for letter statistics."""
_STOP_WORD_SHARE = 0.2
"""Share of English stop words from which a short text counts as English."""
_ENGLISH_ONLY = frozenset(
    "the and that with this you have from which their will are for they would your been were has should into through".split()
)
_ENGLISH_ONLY_SHARE = 0.1
"""Share of words that English alone has, from which a text counts as English without statistics."""
_SCRIPTS = (
    ("zh-cn", "\u4e00", "\u9fff"), ("ja", "\u3040", "\u30ff"), ("ko", "\uac00", "\ud7af"), ("th", "\u0e00", "\u0e7f"),
    ("bn", "\u0980", "\u09ff"), ("pa", "\u0a00", "\u0a7f"), ("gu", "\u0a80", "\u0aff"), ("ta", "\u0b80", "\u0bff"),
    ("te", "\u0c00", "\u0c7f"), ("kn", "\u0c80", "\u0cff"), ("ml", "\u0d00", "\u0d7f"), ("el", "\u0370", "\u03ff"),
    ("he", "\u0590", "\u05ff"),
)  # fmt: skip
"""Scripts that one language alone uses, as (language, first character, last character)."""
_JAPANESE_SHARE = 0.1
"""Share of kana from which a text is Japanese; its other characters are shared with Chinese."""


def _by_script(text: str) -> str | None:
    """The language whose script has more than half of the letters; None where no script has."""
    letters = [character for character in text if character.isalpha()]
    counts = {code: sum(low <= letter <= high for letter in letters) for code, low, high in _SCRIPTS}
    if counts["ja"] > _JAPANESE_SHARE * len(letters):
        return "ja"
    code = max(counts, key=lambda name: counts[name])
    return code if 2 * counts[code] > len(letters) else None


def warm() -> None:
    """Loads the language profiles."""
    detect("Loads the language profiles.")


def detect(text: str) -> str | None:
    """The ISO 639-1 code of a text's language (zh-cn and zh-tw for Chinese); None for a text without letters."""
    sample = text[:_SAMPLE]
    if not any(character.isalpha() for character in sample):
        return None
    script = None if sample.isascii() else _by_script(sample)
    if script is not None and script != "zh-cn":
        return script
    code = by_statistics(sample)
    return "zh-cn" if script == "zh-cn" and code != "zh-tw" else code


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
    """Whether a text is in a language; `zh` stands for either Chinese, and English is also recognised by its common words."""
    if language == "en":
        return is_english(text)
    detected = detect(text)
    return detected is not None and (detected == language or (language == "zh" and detected.startswith("zh")))


def is_english(text: str) -> bool:
    """Whether a text is English, whatever its case: because a tenth of its words are English alone, by statistics, or, where it
    is short, because a fifth of its words are English stop words.
    """
    lower = text[:_SAMPLE].lower()
    words = regexp_words(lower)
    if lower.isascii() and sum(word in _ENGLISH_ONLY for word in words) > _ENGLISH_ONLY_SHARE * len(words):
        return True
    if detect(lower) == "en":
        return True
    stop_words = sum(word in STOP_WORDS for word in words)
    return bool(words) and len(lower) <= _SHORT and lower.isascii() and stop_words >= _STOP_WORD_SHARE * len(words)

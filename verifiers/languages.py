"""Which language a text is in: langdetect with a fixed seed, and no opinion where there is nothing to tell from."""

from functools import lru_cache
from typing import Any

from tulu.verifiers.prose import STOP_WORDS, regexp_words

CODES = frozenset(
    "af ar bg bn ca cs cy da de el en es et fa fi fr gu he hi hr hu id it ja kn ko lt lv mk ml mr ne nl no pa pl pt ro ru sk "
    "sl so sq sv sw ta te th tl tr uk ur vi zh-cn zh-tw".split()
)
_SAMPLE = 2_000
"""Characters that are looked at; more changes nothing."""
_SHORT = 60
_ENGLISH_SHARE = 0.2
_ENGLISH_ONLY = frozenset(
    "the and that with this you have from which their will are for they would your been were has should into through".split()
)
_ENGLISH_ONLY_SHARE = 0.1
"""Share of words that no other language has, from which a text needs no statistics to be English."""


_SCRIPTS = (
    ("zh-cn", "\u4e00", "\u9fff"), ("ja", "\u3040", "\u30ff"), ("ko", "\uac00", "\ud7af"), ("th", "\u0e00", "\u0e7f"),
    ("bn", "\u0980", "\u09ff"), ("pa", "\u0a00", "\u0a7f"), ("gu", "\u0a80", "\u0aff"), ("ta", "\u0b80", "\u0bff"),
    ("te", "\u0c00", "\u0c7f"), ("kn", "\u0c80", "\u0cff"), ("ml", "\u0d00", "\u0d7f"), ("el", "\u0370", "\u03ff"),
    ("he", "\u0590", "\u05ff"),
)  # fmt: skip
"""Scripts of one language only, which say more than letter statistics do."""
_JAPANESE_SHARE = 0.1


def _by_script(text: str) -> str | None:
    letters = [character for character in text if character.isalpha()]
    counts = {code: sum(low <= letter <= high for letter in letters) for code, low, high in _SCRIPTS}
    if counts["ja"] > _JAPANESE_SHARE * len(letters):
        return "ja"
    code = max(counts, key=lambda name: counts[name])
    return code if 2 * counts[code] > len(letters) else None


def _library() -> Any:
    import langdetect

    langdetect.DetectorFactory.seed = 0
    return langdetect


def warm() -> None:
    """Loads the language profiles."""
    detect("Loads the language profiles.")


def detect(text: str) -> str | None:
    """The ISO 639-1 code (zh-cn and zh-tw for Chinese) of a text; None where it holds no letters to tell from."""
    sample = text[:_SAMPLE]
    if not any(character.isalpha() for character in sample):
        return None
    script = None if sample.isascii() else _by_script(sample)
    if script is not None and script != "zh-cn":
        return script
    found = by_statistics(sample)
    return "zh-cn" if script == "zh-cn" and found != "zh-tw" else found


@lru_cache(maxsize=4096)
def by_statistics(sample: str) -> str | None:
    """langdetect's own answer, None where it finds no features."""
    library = _library()
    try:
        return str(library.detect(sample))
    except library.LangDetectException:
        return None


def is_language(text: str, code: str) -> bool:
    """Whether a text is in a language; `zh` is either Chinese, and English may also be told by its function words."""
    if code == "en":
        return is_english(text)
    found = detect(text)
    return found is not None and (found == code or (code == "zh" and found.startswith("zh")))


def is_english(text: str) -> bool:
    """Whether a text is English, in capitals too: by words that only English has, by statistics, or, where it is short, where a
    fifth of its words are English stop words.
    """
    lower = text[:_SAMPLE].lower()
    words = regexp_words(lower)
    if lower.isascii() and sum(word in _ENGLISH_ONLY for word in words) > _ENGLISH_ONLY_SHARE * len(words):
        return True
    if detect(lower) == "en":
        return True
    known = sum(word in STOP_WORDS for word in words)
    return bool(words) and len(lower) <= _SHORT and lower.isascii() and known >= _ENGLISH_SHARE * len(words)

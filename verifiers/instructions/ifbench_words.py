"""IFBench's instructions on words, counts and ratios (Pyatkin et al. 2025; allenai/IFBench instructions.py @ db69a6f)."""

import re
import string
from collections import Counter

from tulu.verifiers.instructions.core import whole_words
from tulu.verifiers.prose import (
    STOP_WORDS,
    bare,
    bare_words,
    count_words,
    is_verb,
    regexp_words,
    sentences,
    tokens,
    word_tokens,
)

NAMES = (
    "Emma Liam Sophia Jackson Olivia Noah Ava Lucas Isabella Mason Mia Ethan Charlotte Alexander Amelia Benjamin Harper Leo "
    "Zoe Daniel Chloe Samuel Lily Matthew Grace Owen Abigail Gabriel Ella Jacob Scarlett Nathan Victoria Elijah Layla "
    "Nicholas Audrey David Hannah Christopher Penelope Thomas Nora Andrew Aria Joseph Claire Ryan Stella Jonathan"
).split()
PRONOUNS = frozenset(
    """i me we us you he him she her it they them my mine our ours your yours his hers its their theirs myself ourselves
    yourself yourselves himself herself itself themselves this that these those who whom whose which what whoever whomever
    whatever whichever anybody anyone anything everybody everyone everything nobody nothing somebody someone something each
    either neither both all some any none""".split()
)
_CONJUNCTIONS = frozenset("and but for nor or so yet".split())
_PRIMES = frozenset(n for n in range(2, 100) if all(n % d for d in range(2, n)))
_EDGES = string.punctuation + " "
_CONSONANTS = re.compile(r"[bcdfghjklmnpqrstvwxyz]{2}")
_JAPANESE = re.compile(r"[\u3040-\u30ff\u4e00-\u9fff]")
_TOLERANCE = 2.0


def word_count_range(text: str, *, min_words: int, max_words: int) -> bool:
    return min_words <= count_words(text) <= max_words


def unique_word_count(text: str, *, N: int) -> bool:
    return len({word.strip(_EDGES) for word in text.lower().split()} - {""}) >= N


def conjunctions(text: str, *, small_n: int) -> bool:
    return len(_CONJUNCTIONS & {word.strip(_EDGES).lower() for word in text.split()}) >= small_n


def person_names(text: str, *, N: int) -> bool:
    return len(set(NAMES) & set(regexp_words(text))) >= N


def numbers(text: str, *, N: int) -> bool:
    return len(re.findall(r"\d+", bare(text))) == N


def punctuation(text: str) -> bool:
    if not any(mark in text for mark in ("!?", "?!", "‽")):
        return False
    rest = text.replace("?!", "", 1)
    rest = rest if rest != text else text.replace("!?", "", 1)
    return set(".,!?;:") <= set(rest)


def pronouns(text: str, *, N: int) -> bool:
    return sum(token in PRONOUNS for token in tokens(text.lower().replace("/", " "))) >= N


def words_japanese(text: str, *, N: int) -> bool:
    every = [word.strip(_EDGES) for word in text.split()][N - 1 :: N]
    asked = [word for word in every if word and not word.isdigit()]
    return bool(every) and all(_JAPANESE.search(word) for word in asked)


def keywords_multiple(text: str, *, keyword1: str, keyword2: str, keyword3: str, keyword4: str, keyword5: str) -> bool:
    keywords = (keyword1, keyword2, keyword3, keyword4, keyword5)
    return [whole_words(text, keyword.strip()) for keyword in keywords] == [1, 2, 3, 5, 7]


def stop_words(text: str, *, percentage: float) -> bool:
    words = regexp_words(text.lower())
    return bool(words) and 100 * sum(word in STOP_WORDS for word in words) / len(words) <= percentage


def _endings(text: str) -> Counter[str]:
    return Counter(sentence[-1] for sentence in sentences(text))


def sentence_type(text: str) -> bool:
    ends = _endings(text)
    return ends["?"] > 0 and ends["."] == 2 * ends["?"]


def sentence_balance(text: str) -> bool:
    ends = _endings(text)
    return ends["."] > 0 and ends["."] == ends["?"] == ends["!"]


def sentence_words(text: str) -> bool:
    found = sentences(text)
    words = bare_words(" ".join(found))
    return len(found) == 3 and len({len(sentence) for sentence in found}) == 1 and len(words) == len(set(words))


def overlap(text: str, *, reference_text: str, percentage: float) -> bool:
    own, reference = ({found[at : at + 3] for at in range(len(found) - 2)} for found in (tokens(text), tokens(reference_text)))
    return bool(own) and abs(100 * len(own & reference) / len(own) - percentage) <= _TOLERANCE


def alphabet(text: str) -> bool:
    initials = [word[0] for word in bare_words(text)]
    if not initials or initials[0] not in string.ascii_lowercase:
        return False
    first = ord(initials[0]) - ord("a")
    return all(initial == chr(ord("a") + (first + at) % 26) for at, initial in enumerate(initials))


def vowel(text: str) -> bool:
    text = text.strip().lower()
    return bool(text) and "\n" not in text and len(set("aeiou") & set(text)) <= 3


def consonants(text: str) -> bool:
    words = text.lower().split()
    return bool(words) and all(_CONSONANTS.search(word) for word in words)


def palindromes(text: str) -> bool:
    return sum(len(word) >= 5 and word == word[::-1] for word in bare_words(text)) >= 10


def prime_lengths(text: str) -> bool:
    words = bare(text).split()
    return bool(words) and all(len(word) in _PRIMES for word in words)


def start_verb(text: str) -> bool:
    words = regexp_words(text[:200])
    return bool(words) and is_verb(words[0])


def repeats(text: str, *, small_n: int) -> bool:
    counts = Counter(bare_words(text))
    return bool(counts) and max(counts.values()) <= small_n


def odd_even_syllables(text: str) -> bool:
    import syllapy

    parities = [syllapy.count(word) % 2 for word in bare_words(text)]
    return bool(parities) and all(a != b for a, b in zip(parities, parities[1:], strict=False))


def last_first(text: str) -> bool:
    found = [bare_words(sentence) for sentence in sentences(text)]
    return bool(found) and all(found) and all(before[-1] == after[0] for before, after in zip(found, found[1:], strict=False))


def paragraph_last_first(text: str) -> bool:
    lines = [line.strip().lower().strip(_EDGES).split() for line in text.split("\n")]
    lines = [words for words in lines if words]
    return bool(lines) and all(words[0].strip(_EDGES) == words[-1].strip(_EDGES) for words in lines)


def no_consecutive(text: str) -> bool:
    initials = [word[0] for word in bare_words(text)]
    return bool(initials) and all(a != b for a, b in zip(initials, initials[1:], strict=False))


def keywords_specific_position(text: str, *, keyword: str, n: int, m: int) -> bool:
    found = sentences(text)
    words = word_tokens(found[n - 1]) if 1 <= n <= len(found) else []
    return 1 <= m <= len(words) and words[m - 1].lower() == keyword.strip().lower()


def words_position(text: str, *, keyword: str) -> bool:
    words = [word.lower() for word in word_tokens(text)]
    return len(words) > 1 and words[1] == words[-2] == keyword.strip().lower()


def alliteration_increment(text: str) -> bool:
    before, found = -1, sentences(text)
    for sentence in found:
        initials = [word[0] for word in (word.lstrip(_EDGES) for word in sentence.lower().split()) if word]
        same = [a == b for a, b in zip(initials, initials[1:], strict=False)]
        # A run of k equal initials counts k words: one for each pair, and one more where the run begins.
        count = sum(pair + (pair and not (at and same[at - 1])) for at, pair in enumerate(same))
        if count <= before:
            return False
        before = count
    return bool(found)


def sentence_keyword(text: str, *, word: str, N: int) -> bool:
    found = sentences(text)
    return 1 <= N <= len(found) and whole_words(found[N - 1], word) > 0


def increment(text: str, *, small_n: int) -> bool:
    lengths = [len(bare(sentence).split()) for sentence in sentences(text)]
    return bool(lengths) and all(b - a == small_n for a, b in zip(lengths, lengths[1:], strict=False))

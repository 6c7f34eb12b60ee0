"""IFBench's instructions on words, counts and ratios (Pyatkin et al. 2025; allenai/IFBench instructions.py @ db69a6f)."""

import re
import string
from collections import Counter

from tulu.verifiers.instructions.ifeval import count_whole_words
from tulu.verifiers.prose import (
    STOP_WORDS,
    bare_words,
    is_verb,
    regexp_words,
    sentences,
    tokens,
    without_punctuation,
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
"""Per cent by which an overlap may be off."""


def word_count_range(text: str, *, min_words: int, max_words: int) -> bool:
    return min_words <= len(regexp_words(text)) <= max_words


def unique_word_count(text: str, *, N: int) -> bool:
    """Whether at least N different words occur."""
    return len({word.strip(_EDGES) for word in text.lower().split()} - {""}) >= N


def conjunctions(text: str, *, small_n: int) -> bool:
    """Whether at least so many different conjunctions occur."""
    return len(_CONJUNCTIONS & {word.strip(_EDGES).lower() for word in text.split()}) >= small_n


def person_names(text: str, *, N: int) -> bool:
    """Whether at least N different names of the list occur."""
    return len(set(NAMES) & set(regexp_words(text))) >= N


def numbers(text: str, *, N: int) -> bool:
    return len(re.findall(r"\d+", without_punctuation(text))) == N


def punctuation(text: str) -> bool:
    """Whether every mark of `.,!?;:` occurs, and an interrobang (`!?`) besides."""
    if not any(mark in text for mark in ("!?", "?!", "‽")):
        return False
    rest = text.replace("?!", "", 1)
    rest = rest if rest != text else text.replace("!?", "", 1)
    return set(".,!?;:") <= set(rest)


def pronouns(text: str, *, N: int) -> bool:
    return sum(token in PRONOUNS for token in tokens(text.lower().replace("/", " "))) >= N


def words_japanese(text: str, *, N: int) -> bool:
    """Whether every N-th word is Japanese, unless it is a number."""
    every_nth = [word.strip(_EDGES) for word in text.split()][N - 1 :: N]
    return bool(every_nth) and all(_JAPANESE.search(word) for word in every_nth if word and not word.isdigit())


def keywords_multiple(text: str, *, keyword1: str, keyword2: str, keyword3: str, keyword4: str, keyword5: str) -> bool:
    """Whether the five keywords occur 1, 2, 3, 5 and 7 times."""
    keywords = (keyword1, keyword2, keyword3, keyword4, keyword5)
    return [count_whole_words(text, keyword.strip()) for keyword in keywords] == [1, 2, 3, 5, 7]


def stop_words(text: str, *, percentage: float) -> bool:
    """Whether at most so many per cent of the words are stop words."""
    words = regexp_words(text.lower())
    return bool(words) and 100 * sum(word in STOP_WORDS for word in words) / len(words) <= percentage


def _count_last_characters(text: str) -> Counter[str]:
    return Counter(sentence[-1] for sentence in sentences(text))


def sentence_type(text: str) -> bool:
    """Whether there are two statements for every question."""
    ends = _count_last_characters(text)
    return ends["?"] > 0 and ends["."] == 2 * ends["?"]


def sentence_balance(text: str) -> bool:
    """Whether there are as many statements as questions and as exclamations."""
    ends = _count_last_characters(text)
    return ends["."] > 0 and ends["."] == ends["?"] == ends["!"]


def sentence_words(text: str) -> bool:
    """Whether there are three sentences of equal length, in which no word occurs twice."""
    parts = sentences(text)
    words = bare_words(" ".join(parts))
    return len(parts) == 3 and len({len(sentence) for sentence in parts}) == 1 and len(words) == len(set(words))


def overlap(text: str, *, reference_text: str, percentage: float) -> bool:
    """Whether so many per cent of the text's runs of three tokens occur in the reference."""
    trigrams, reference = _trigrams(text), _trigrams(reference_text)
    return bool(trigrams) and abs(100 * len(trigrams & reference) / len(trigrams) - percentage) <= _TOLERANCE


def _trigrams(text: str) -> set[tuple[str, ...]]:
    words = tokens(text)
    return {words[start : start + 3] for start in range(len(words) - 2)}


def alphabet(text: str) -> bool:
    """Whether each word begins with the letter that follows the initial of the word before it; a follows z."""
    initials = [word[0] for word in bare_words(text)]
    if not initials or initials[0] not in string.ascii_lowercase:
        return False
    first = ord(initials[0]) - ord("a")
    return all(initial == chr(ord("a") + (first + index) % 26) for index, initial in enumerate(initials))


def vowel(text: str) -> bool:
    """Whether the text is one paragraph and uses at most three different vowels."""
    text = text.strip().lower()
    return bool(text) and "\n" not in text and len(set("aeiou") & set(text)) <= 3


def consonants(text: str) -> bool:
    """Whether every word has two consonants in a row."""
    words = text.lower().split()
    return bool(words) and all(_CONSONANTS.search(word) for word in words)


def palindromes(text: str) -> bool:
    """Whether there are ten palindromes of five letters or more."""
    return sum(len(word) >= 5 and word == word[::-1] for word in bare_words(text)) >= 10


def prime_lengths(text: str) -> bool:
    """Whether the length of every word is a prime number."""
    words = without_punctuation(text).split()
    return bool(words) and all(len(word) in _PRIMES for word in words)


def start_verb(text: str) -> bool:
    words = regexp_words(text[:200])
    return bool(words) and is_verb(words[0])


def repeats(text: str, *, small_n: int) -> bool:
    """Whether no word occurs more than so many times."""
    counts = Counter(bare_words(text))
    return bool(counts) and max(counts.values()) <= small_n


def odd_even_syllables(text: str) -> bool:
    """Whether words with an odd and with an even number of syllables take turns."""
    import syllapy

    parities = [syllapy.count(word) % 2 for word in bare_words(text)]
    return bool(parities) and all(a != b for a, b in zip(parities, parities[1:], strict=False))


def last_first(text: str) -> bool:
    """Whether every sentence begins with the last word of the sentence before it."""
    parts = [bare_words(sentence) for sentence in sentences(text)]
    return bool(parts) and all(parts) and all(before[-1] == after[0] for before, after in zip(parts, parts[1:], strict=False))


def paragraph_last_first(text: str) -> bool:
    """Whether every paragraph ends with the word that it begins with."""
    lines = [line.strip().lower().strip(_EDGES).split() for line in text.split("\n")]
    lines = [words for words in lines if words]
    return bool(lines) and all(words[0].strip(_EDGES) == words[-1].strip(_EDGES) for words in lines)


def no_consecutive(text: str) -> bool:
    """Whether no two neighbouring words begin with the same letter."""
    initials = [word[0] for word in bare_words(text)]
    return bool(initials) and all(a != b for a, b in zip(initials, initials[1:], strict=False))


def keywords_specific_position(text: str, *, keyword: str, n: int, m: int) -> bool:
    """Whether the keyword is word m of sentence n."""
    parts = sentences(text)
    words = word_tokens(parts[n - 1]) if 1 <= n <= len(parts) else []
    return 1 <= m <= len(words) and words[m - 1].lower() == keyword.strip().lower()


def words_position(text: str, *, keyword: str) -> bool:
    """Whether the keyword is the second word and the last but one."""
    words = [word.lower() for word in word_tokens(text)]
    return len(words) > 1 and words[1] == words[-2] == keyword.strip().lower()


def alliteration_increment(text: str) -> bool:
    """Whether each sentence has more words in alliteration than the sentence before it."""
    before, parts = -1, sentences(text)
    for sentence in parts:
        initials = [word[0] for word in (word.lstrip(_EDGES) for word in sentence.lower().split()) if word]
        same = [a == b for a, b in zip(initials, initials[1:], strict=False)]
        # A run of k equal initials counts k words: one for each pair, and one more where the run begins.
        count = sum(pair + (pair and not (index and same[index - 1])) for index, pair in enumerate(same))
        if count <= before:
            return False
        before = count
    return bool(parts)


def sentence_keyword(text: str, *, word: str, N: int) -> bool:
    """Whether sentence N has the keyword."""
    parts = sentences(text)
    return 1 <= N <= len(parts) and count_whole_words(parts[N - 1], word) > 0


def increment(text: str, *, small_n: int) -> bool:
    """Whether each sentence has so many words more than the sentence before it."""
    lengths = [len(without_punctuation(sentence).split()) for sentence in sentences(text)]
    return bool(lengths) and all(b - a == small_n for a, b in zip(lengths, lengths[1:], strict=False))

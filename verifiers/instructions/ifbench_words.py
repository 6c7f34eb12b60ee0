"""IFBench's instructions on words, counts and ratios (Pyatkin et al. 2025; allenai/IFBench instructions.py @ db69a6f)."""

import re
import string
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from operator import ne

from tulu.verifiers.instructions.if_rlvr import keyword_specific_position
from tulu.verifiers.instructions.ifeval import Instruction, count_whole_words, every, every_two
from tulu.verifiers.prose import (
    STOP_WORDS,
    Cut,
    bare_words,
    is_verb,
    last_mark,
    read_words,
    regexp_words,
    sentences,
    tokens,
    upstream_sentences,
    without_punctuation,
    word_tokens,
)

NAMES = read_words("first_names")
PRONOUNS = read_words("pronouns")
_CONJUNCTIONS = frozenset("and but for nor or so yet".split())
_PRIMES = frozenset(n for n in range(2, 100) if all(n % d for d in range(2, n)))
_EDGES = string.punctuation + " "
_CONSONANTS = re.compile(r"[bcdfghjklmnpqrstvwxyz]{2}")
_JAPANESE = re.compile(r"[\u3040-\u30ff\u4e00-\u9fff]")
_TOLERANCE = 2.0
"""Per cent by which an overlap may be off."""


def punctuation(text: str) -> bool:
    """Whether every mark of `.,!?;:` occurs, and an interrobang (`!?`) besides."""
    if not any(mark in text for mark in ("!?", "?!", "‽")):
        return False
    rest = text.replace("?!", "", 1)
    rest = rest if rest != text else text.replace("!?", "", 1)
    return set(".,!?;:") <= set(rest)


def words_japanese(text: str, N: int) -> bool:
    """Whether every N-th word is Japanese, unless it is a number."""
    every_nth = [word.strip(_EDGES) for word in text.split()][N - 1 :: N]
    return bool(every_nth) and all(_JAPANESE.search(word) for word in every_nth if word and not word.isdigit())


def stop_words(text: str, percentage: float) -> bool:
    """Whether at most so many per cent of the words are stop words."""
    words = regexp_words(text.lower())
    return bool(words) and 100 * sum(word in STOP_WORDS for word in words) / len(words) <= percentage


def _count_marks(text: str) -> Counter[str]:
    return Counter(last_mark(sentence) for sentence in sentences(text))


def _upstream_marks(text: str) -> Counter[str]:
    return Counter(sentence[-1] for sentence in upstream_sentences(text))


def sentence_type(text: str, count: Callable[[str], Counter[str]] = _count_marks) -> bool:
    """Whether there are two statements for every question."""
    ends = count(text)
    return ends["?"] > 0 and ends["."] == 2 * ends["?"]


def sentence_balance(text: str, count: Callable[[str], Counter[str]] = _count_marks) -> bool:
    """Whether there are as many statements as questions and as exclamations."""
    ends = count(text)
    return ends["."] > 0 and ends["."] == ends["?"] == ends["!"]


def sentence_words(text: str, cut: Cut = sentences) -> bool:
    """Whether there are three sentences of equal length, in which no word occurs twice."""
    parts = cut(text)
    words = bare_words(" ".join(parts))
    return len(parts) == 3 and len({len(sentence) for sentence in parts}) == 1 and len(words) == len(set(words))


def overlap(text: str, reference_text: str, percentage: float) -> bool:
    """Whether so many per cent of the text's different runs of three characters occur in the reference."""
    return _shares(_trigrams(text), _trigrams(reference_text), percentage)


def upstream_overlap(text: str, reference_text: str, percentage: float) -> bool:
    """The same over tokens, as mode tulu3 has it."""
    return _shares(_trigrams(tokens(text)), _trigrams(tokens(reference_text)), percentage)


def _trigrams(items: Sequence[str]) -> set[Sequence[str]]:
    return {items[start : start + 3] for start in range(len(items) - 2)}


def _shares(trigrams: set[Sequence[str]], reference: set[Sequence[str]], percentage: float) -> bool:
    return bool(trigrams) and abs(100 * len(trigrams & reference) / len(trigrams) - percentage) <= _TOLERANCE


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


def repeats(text: str, small_n: int) -> bool:
    """Whether no word occurs more than so many times."""
    counts = Counter(bare_words(text))
    return bool(counts) and max(counts.values()) <= small_n


def odd_even_syllables(text: str) -> bool:
    """Whether words with an odd and with an even number of syllables take turns."""
    import syllapy

    parities = [syllapy.count(word) % 2 for word in bare_words(text)]
    return every_two(parities, ne)


def last_first(text: str, cut: Cut = sentences) -> bool:
    """Whether every sentence begins with the last word of the sentence before it."""
    parts = [bare_words(sentence) for sentence in cut(text)]
    return all(parts) and every_two(parts, lambda before, after: before[-1] == after[0])


def paragraph_last_first(text: str) -> bool:
    """Whether every paragraph ends with the word that it begins with."""
    lines = [line.strip().lower().strip(_EDGES).split() for line in text.split("\n")]
    lines = [words for words in lines if words]
    return bool(lines) and all(words[0].strip(_EDGES) == words[-1].strip(_EDGES) for words in lines)


def words_position(text: str, keyword: str) -> bool:
    """Whether the keyword is the second word and the last but one."""
    words = [word.lower() for word in word_tokens(text)]
    return len(words) > 1 and words[1] == words[-2] == keyword.strip().lower()


def alliteration_increment(text: str, cut: Cut = sentences) -> bool:
    """Whether each sentence has more words in alliteration than the sentence before it."""
    before, parts = -1, cut(text)
    for sentence in parts:
        initials = [word[0] for word in (word.lstrip(_EDGES) for word in sentence.lower().split()) if word]
        same = [a == b for a, b in zip(initials, initials[1:], strict=False)]
        # A run of k equal initials counts k words: one for each pair, and one more where the run begins.
        count = sum(pair + (pair and not (index and same[index - 1])) for index, pair in enumerate(same))
        if count <= before:
            return False
        before = count
    return bool(parts)


def sentence_keyword(text: str, word: str, N: int, cut: Cut = sentences) -> bool:
    """Whether sentence N has the keyword."""
    parts = cut(text)
    return 1 <= N <= len(parts) and count_whole_words(parts[N - 1], word) > 0


def keyword_position(text: str, keyword: str, n: int, m: int, cut: Cut = sentences) -> bool:
    return keyword_specific_position(text, keyword.strip(), n, m, cut)


def increment(text: str, small_n: int, cut: Cut = sentences) -> bool:
    """Whether each sentence has so many words more than the sentence before it."""
    return every_two([len(without_punctuation(sentence).split()) for sentence in cut(text)], lambda a, b: b - a == small_n)


INSTRUCTIONS: dict[str, Instruction] = {
    "count:word_count_range": lambda text, min_words, max_words: min_words <= len(regexp_words(text)) <= max_words,
    # At least N different words.
    "count:unique_word_count": lambda text, N: len({word.strip(_EDGES) for word in text.lower().split()} - {""}) >= N,
    # At least so many different conjunctions.
    "count:conjunctions": lambda text, small_n: (
        len(_CONJUNCTIONS & {word.strip(_EDGES).lower() for word in text.split()}) >= small_n
    ),
    # At least N different names of the list.
    "count:person_names": lambda text, N: len(NAMES & set(regexp_words(text))) >= N,
    "count:numbers": lambda text, N: len(re.findall(r"\d+", without_punctuation(text))) == N,
    "count:punctuation": punctuation,
    "count:pronouns": lambda text, N: sum(token in PRONOUNS for token in tokens(text.lower().replace("/", " "))) >= N,
    "count:words_japanese": words_japanese,
    # The five keywords occur 1, 2, 3, 5 and 7 times.
    "count:keywords_multiple": lambda text, keyword1, keyword2, keyword3, keyword4, keyword5: (
        [count_whole_words(text, keyword.strip()) for keyword in (keyword1, keyword2, keyword3, keyword4, keyword5)]
        == [1, 2, 3, 5, 7]
    ),
    "ratio:stop_words": stop_words,
    "ratio:sentence_type": sentence_type,
    "ratio:sentence_balance": sentence_balance,
    "ratio:sentence_words": sentence_words,
    "ratio:overlap": overlap,
    "words:alphabet": alphabet,
    "words:vowel": vowel,
    # Two consonants in a row in every word.
    "words:consonants": lambda text: every(text.lower().split(), _CONSONANTS.search),
    # Ten palindromes of five letters or more.
    "words:palindrome": lambda text: sum(len(word) >= 5 and word == word[::-1] for word in bare_words(text)) >= 10,
    "words:prime_lengths": lambda text: every(without_punctuation(text).split(), lambda word: len(word) in _PRIMES),
    # The first word is a verb.
    "words:start_verb": lambda text: every(regexp_words(text[:200])[:1], is_verb),
    "words:repeats": repeats,
    "words:odd_even_syllables": odd_even_syllables,
    "words:last_first": last_first,
    "words:paragraph_last_first": paragraph_last_first,
    # No two neighbouring words begin with the same letter.
    "words:no_consecutive": lambda text: every_two([word[0] for word in bare_words(text)], ne),
    "words:keywords_specific_position": keyword_position,
    "words:words_position": words_position,
    "sentence:alliteration_increment": alliteration_increment,
    "sentence:keyword": sentence_keyword,
    "sentence:increment": increment,
}

UPSTREAM: dict[str, Instruction] = {
    "ratio:overlap": upstream_overlap,
    "ratio:sentence_type": partial(sentence_type, count=_upstream_marks),
    "ratio:sentence_balance": partial(sentence_balance, count=_upstream_marks),
    "ratio:sentence_words": partial(sentence_words, cut=upstream_sentences),
    "words:last_first": partial(last_first, cut=upstream_sentences),
    "words:keywords_specific_position": partial(keyword_position, cut=upstream_sentences),
    "sentence:alliteration_increment": partial(alliteration_increment, cut=upstream_sentences),
    "sentence:keyword": partial(sentence_keyword, cut=upstream_sentences),
    "sentence:increment": partial(increment, cut=upstream_sentences),
}
"""The instructions that mode tulu3 computes otherwise."""

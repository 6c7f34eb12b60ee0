"""The 29 further instructions of IF-RLVR's training set (open-instruct IFEvalG/instructions.py @ e6c3044).

Mode strict counts words where the instruction says words. In mode tulu3, as the table UPSTREAM says, punctuation marks are
words too, keywords are regular expressions that may match inside words, and an empty text follows many instructions.
"""

import re
from collections.abc import Callable, Sequence
from functools import partial

from tulu.verifiers.instructions.ifeval import (
    Instruction,
    count_matches,
    count_whole_words,
    every,
    every_two,
    holds,
    letter_frequency,
    starred_paragraphs,
)
from tulu.verifiers.prose import Cut, regexp_words, sentences, tokens, upstream_sentences, without_punctuation, word_tokens


def repeat_phrase(text: str, phrase: str, small_n: int) -> bool:
    """Whether the phrase occurs so many times between its first and last word, each time with exactly one word changed."""
    phrase_words = phrase.split()
    first, last = phrase_words[0] + " ", " " + phrase_words[-1]
    repeats, start = [], text.find(first)
    while start >= 0:
        end = text.find(last, start + len(first))
        if end < 0:
            break
        repeats.append(text[start : end + len(last)].split())
        start = text.find(first, end + len(last))
    return len(repeats) == small_n and all(
        len(words) == len(phrase_words) and sum(a != b for a, b in zip(words, phrase_words, strict=True)) == 1
        for words in repeats
    )


def copy(text: str, prompt_to_repeat: str) -> bool:
    return text.strip().lower() == prompt_to_repeat.strip().lower()


def copying_multiple(text: str, prompt_to_repeat: str, N: int) -> bool:
    parts = text.split("******")
    return len(parts) == N and all(copy(part, prompt_to_repeat) for part in parts)


def sentence_hyphens(text: str, cut: Cut = sentences) -> bool:
    """Whether sentences are joined by hyphens without spaces: `One.-Two.`"""
    parts = re.split(r"(?<=[.!?])-(?=\S)", text.strip())
    return bool(text.strip()) and all(part == part.strip() and len(cut(part)) == 1 for part in parts)


def bigram_wrapping(text: str) -> bool:
    """Whether every two words are wrapped: `<<two words>> <<by two>>`."""
    words = text.split()
    pairs = [words[start : start + 2] for start in range(0, len(words), 2)]
    unbroken = all(not pair[0].endswith(">>") and not pair[1].startswith("<<") for pair in pairs if len(pair) == 2)
    return unbroken and bool(pairs) and all(pair[0].startswith("<<") and pair[-1].endswith(">>") for pair in pairs)


def upstream_bigram_wrapping(text: str) -> bool:
    words = text.split()
    return all(a.startswith("<<") and b.endswith(">>") for a, b in zip(words[::2], words[1::2], strict=False))


def no_adjacent_consecutive(text: str) -> bool:
    """Whether no word begins with the letter of the alphabet after that of the word before it."""
    initials = [word[0].lower() for word in (word.strip("\"'“”‘’([{*_") for word in text.split()) if word]
    return every_two(initials, lambda a, b: ord(b) - ord(a) != 1)


def upstream_no_adjacent(text: str) -> bool:
    words = text.lower().split()
    return all(ord(b[0]) - ord(a[0]) != 1 for a, b in zip(words, words[1:], strict=False))


def palindrome(text: str) -> bool:
    words = (without_punctuation(word).lower() for word in text.split())
    return any(len(word) >= 3 and word == word[::-1] for word in words)


def keyword_specific_position(text: str, keyword: str, n: int, m: int, cut: Cut = sentences) -> bool:
    """Whether the keyword is word m of sentence n."""
    parts = cut(text)
    words = word_tokens(parts[n - 1]) if 1 <= n <= len(parts) else []
    return 1 <= m <= len(words) and words[m - 1].lower() == keyword.lower()


def upstream_keyword_position(text: str, keyword: str, n: int, m: int) -> bool:
    parts = upstream_sentences(text)
    words = tokens(parts[n - 1]) if n <= len(parts) else ()
    return m <= len(words) and words[m - 1] == keyword


def start_end(text: str) -> bool:
    """Whether the text ends with the word that it starts with, and with no punctuation."""
    words = regexp_words(text)
    return len(words) > 1 and words[0].lower() == words[-1].lower() and text.rstrip().endswith(words[-1])


def upstream_start_end(text: str) -> bool:
    words = tokens(text)
    return len(words) > 1 and words[0].lower() == words[-1].lower()


def paragraphs2(text: str) -> bool:
    """Whether there are two paragraphs, with a blank line between them."""
    parts = [part.strip() for part in text.split("\n\n")]
    return all(parts[1:-1]) and len([part for part in parts if part]) == 2


def _first_word(sentence: str) -> str:
    words = regexp_words(sentence)
    return words[0].lower() if words else ""


def _last_word(sentence: str) -> str:
    words = sentence.split()
    return re.sub(r"[^\w\s]", "", words[-1]).lower() if words else ""


def last_word_sent(text: str, last_word: str, cut: Cut = sentences) -> bool:
    return every(cut(text), lambda sentence: _last_word(sentence) == last_word.strip().lower())


def _counting_composition(text: str, n_sent: int, n_words: int, split: Callable[[str], Sequence[str]], cut: Cut) -> bool:
    """Whether there are three paragraphs with `***` between them, each of so many sentences of so many words."""
    paragraphs = [cut(part) for part in starred_paragraphs(text, 3) or ()]
    return bool(paragraphs) and all(
        len(paragraph) == n_sent and all(len(split(sentence)) == n_words for sentence in paragraph) for paragraph in paragraphs
    )


def count_unique(text: str) -> bool:
    words = [word.lower() for word in regexp_words(text)]
    return bool(words) and len(words) == len(set(words))


INSTRUCTIONS: dict[str, Instruction] = {
    "copy:repeat_phrase": repeat_phrase,
    "copy:copy": copy,
    "copy:copying_simple": copy,
    "copy:copying_multiple": copying_multiple,
    # The prompt from one character to another.
    "new:copy_span_idx": lambda text, prompt_to_repeat, n_start, n_end: copy(text, prompt_to_repeat[n_start:n_end]),
    "detectable_format:sentence_hyphens": sentence_hyphens,
    # Every word in brackets: `[every] [word]`.
    "detectable_format:square_brackets": lambda text: every(
        text.split(), lambda word: word.startswith("[") and word.endswith("]") and len(word) > 2
    ),
    "detectable_format:bigram_wrapping": bigram_wrapping,
    "keywords:no_adjacent_consecutive": no_adjacent_consecutive,
    "keywords:word_once": lambda text, keyword: count_whole_words(text, keyword) == 1,
    "keywords:word_count_different_numbers": lambda text, keyword, frequency, relation: holds(
        count_whole_words(text, keyword), relation, frequency
    ),
    "keywords:exclude_word_harder": lambda text, keyword: not count_whole_words(text, keyword),
    "keywords:palindrome": palindrome,
    "keywords:keyword_specific_position": keyword_specific_position,
    "keywords:start_end": start_end,
    # Two paragraphs, with `***` between them.
    "paragraphs:paragraphs": lambda text: starred_paragraphs(text, 2) is not None,
    "paragraphs:paragraphs2": paragraphs2,
    "first_word:first_word_sent": lambda text, first_word: every(
        sentences(text), lambda sentence: _first_word(sentence) == first_word.strip().lower()
    ),
    "first_word:first_word_answer": lambda text, first_word: _first_word(text) == first_word.strip().lower(),
    "last_word:last_word_sent": last_word_sent,
    "last_word:last_word_answer": lambda text, last_word: _last_word(text) == last_word.strip().lower(),
    "punctuation:punctuation_dot": lambda text: "." not in text,
    "punctuation:punctuation_exclamation": lambda text: "!" not in text,
    # At most N words in lower case.
    "count:lowercase_counting": lambda text, N: len(re.findall(r"\b[a-z]+\b", text)) <= N,
    "letters:letter_counting": lambda text, N, relation: holds(len(re.findall("[a-zA-Z]", text)), relation, N),
    "letters:letter_counting2": letter_frequency,
    "count:counting_composition": lambda text, n_sent, n_words: _counting_composition(
        text, n_sent, n_words, word_tokens, sentences
    ),
    "count:count_unique": count_unique,
    # The first keyword once, and the second twice.
    "count:count_increment_word": lambda text, keyword1, keyword2: (
        count_whole_words(text, keyword1) == 1 and count_whole_words(text, keyword2) == 2
    ),
}

UPSTREAM: dict[str, Instruction] = {
    "detectable_format:sentence_hyphens": partial(sentence_hyphens, cut=upstream_sentences),
    "detectable_format:square_brackets": lambda text: all(word.startswith("[") and word.endswith("]") for word in text.split()),
    "detectable_format:bigram_wrapping": upstream_bigram_wrapping,
    "keywords:no_adjacent_consecutive": upstream_no_adjacent,
    "keywords:word_once": lambda text, keyword: count_matches(text, keyword) == 1,
    "keywords:word_count_different_numbers": lambda text, keyword, frequency, relation: holds(
        count_matches(text, keyword), relation, frequency
    ),
    "keywords:exclude_word_harder": lambda text, keyword: f" {keyword} " not in text,
    "keywords:palindrome": lambda text: any(word == word[::-1] for word in text.split()),
    "keywords:keyword_specific_position": upstream_keyword_position,
    "keywords:start_end": upstream_start_end,
    "first_word:first_word_sent": lambda text, first_word: all(
        sentence.split()[0].lower() == first_word.strip().lower() for sentence in upstream_sentences(text)
    ),
    "last_word:last_word_sent": partial(last_word_sent, cut=upstream_sentences),
    "first_word:first_word_answer": lambda text, first_word: text.split()[0].lower() == first_word.strip().lower(),
    "count:counting_composition": lambda text, n_sent, n_words: _counting_composition(
        text, n_sent, n_words, tokens, upstream_sentences
    ),
    "count:count_unique": lambda text: len(tokens(text)) == len(set(tokens(text))),
    "count:count_increment_word": lambda text, keyword1, keyword2: (
        [count_matches(text, keyword) for keyword in (keyword1, keyword2)] == [1, 2]
    ),
}
"""The instructions that mode tulu3 computes otherwise."""

"""The 29 further instructions of IF-RLVR's training set (open-instruct IFEvalG/instructions.py @ e6c3044).

Mode strict counts words where the instruction says words. Open-instruct counts punctuation as words too, and parts of words as
keywords; the functions at the end do that for mode tulu3.
"""

import re

from tulu.verifiers.instructions.ifeval import Relation, count_whole_words, holds, starred_paragraphs
from tulu.verifiers.prose import regexp_words, sentences, tokens, without_punctuation, word_tokens

_LOWERCASE = re.compile(r"\b[a-z]+\b")
_LETTER = re.compile(r"[a-zA-Z]")


def repeat_phrase(text: str, *, phrase: str, small_n: int) -> bool:
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


def copy(text: str, *, prompt_to_repeat: str) -> bool:
    return text.strip().lower() == prompt_to_repeat.strip().lower()


def copying_multiple(text: str, *, prompt_to_repeat: str, N: int) -> bool:
    parts = text.split("******")
    return len(parts) == N and all(copy(part, prompt_to_repeat=prompt_to_repeat) for part in parts)


def copy_span_idx(text: str, *, prompt_to_repeat: str, n_start: int, n_end: int) -> bool:
    """Whether the text is the prompt from one character to another."""
    return text.strip().lower() == prompt_to_repeat[n_start:n_end].strip().lower()


def sentence_hyphens(text: str) -> bool:
    """Whether sentences are joined by hyphens without spaces: `One.-Two.`"""
    parts = re.split(r"(?<=[.!?])-(?=\S)", text.strip())
    return bool(text.strip()) and all(part == part.strip() and len(sentences(part)) == 1 for part in parts)


def square_brackets(text: str) -> bool:
    """Whether every word is in brackets: `[every] [word]`."""
    words = text.split()
    return bool(words) and all(word.startswith("[") and word.endswith("]") and len(word) > 2 for word in words)


def bigram_wrapping(text: str) -> bool:
    """Whether every two words are wrapped: `<<two words>> <<by two>>`."""
    words = text.split()
    pairs = [words[start : start + 2] for start in range(0, len(words), 2)]
    unbroken = all(not pair[0].endswith(">>") and not pair[1].startswith("<<") for pair in pairs if len(pair) == 2)
    return unbroken and bool(pairs) and all(pair[0].startswith("<<") and pair[-1].endswith(">>") for pair in pairs)


def no_adjacent_consecutive(text: str) -> bool:
    """Whether no word begins with the letter of the alphabet after that of the word before it."""
    initials = [word[0].lower() for word in (word.strip("\"'“”‘’([{*_") for word in text.split()) if word]
    return bool(initials) and all(ord(b) - ord(a) != 1 for a, b in zip(initials, initials[1:], strict=False))


def word_once(text: str, *, keyword: str) -> bool:
    return count_whole_words(text, keyword) == 1


def word_count_different_numbers(text: str, *, keyword: str, frequency: int, relation: Relation) -> bool:
    return holds(count_whole_words(text, keyword), relation, frequency)


def exclude_word_harder(text: str, *, keyword: str) -> bool:
    return not count_whole_words(text, keyword)


def palindrome(text: str) -> bool:
    words = (without_punctuation(word).lower() for word in text.split())
    return any(len(word) >= 3 and word == word[::-1] for word in words)


def keyword_specific_position(text: str, *, keyword: str, n: int, m: int) -> bool:
    """Whether the keyword is word m of sentence n."""
    parts = sentences(text)
    words = word_tokens(parts[n - 1]) if 1 <= n <= len(parts) else []
    return 1 <= m <= len(words) and words[m - 1].lower() == keyword.lower()


def start_end(text: str) -> bool:
    """Whether the text ends with the word that it starts with, and with no punctuation."""
    words = regexp_words(text)
    return len(words) > 1 and words[0].lower() == words[-1].lower() and text.rstrip().endswith(words[-1])


def paragraphs(text: str) -> bool:
    """Whether there are two paragraphs, with `***` between them."""
    parts = starred_paragraphs(text)
    return parts is not None and len(parts) == 2


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


def first_word_sent(text: str, *, first_word: str) -> bool:
    parts = sentences(text)
    return bool(parts) and all(_first_word(sentence) == first_word.strip().lower() for sentence in parts)


def first_word_answer(text: str, *, first_word: str) -> bool:
    return _first_word(text) == first_word.strip().lower()


def last_word_sent(text: str, *, last_word: str) -> bool:
    parts = sentences(text)
    return bool(parts) and all(_last_word(sentence) == last_word.strip().lower() for sentence in parts)


def last_word_answer(text: str, *, last_word: str) -> bool:
    return _last_word(text) == last_word.strip().lower()


def punctuation_dot(text: str) -> bool:
    return "." not in text


def punctuation_exclamation(text: str) -> bool:
    return "!" not in text


def lowercase_counting(text: str, *, N: int) -> bool:
    """Whether there are at most N words in lower case."""
    return len(_LOWERCASE.findall(text)) <= N


def letter_counting(text: str, *, N: int, relation: Relation) -> bool:
    return holds(len(_LETTER.findall(text)), relation, N)


def counting_composition(text: str, *, n_sent: int, n_words: int) -> bool:
    """Whether there are three paragraphs with `***` between them, each of so many sentences of so many words."""
    parts = starred_paragraphs(text)
    if parts is None or len(parts) != 3:
        return False
    paragraphs = [sentences(part) for part in parts]
    return all(
        len(paragraph) == n_sent and all(len(word_tokens(sentence)) == n_words for sentence in paragraph)
        for paragraph in paragraphs
    )


def count_unique(text: str) -> bool:
    words = [word.lower() for word in regexp_words(text)]
    return bool(words) and len(words) == len(set(words))


def count_increment_word(text: str, *, keyword1: str, keyword2: str) -> bool:
    """Whether the first keyword occurs once and the second twice."""
    return count_whole_words(text, keyword1) == 1 and count_whole_words(text, keyword2) == 2


# What mode tulu3 computes otherwise: keywords are regular expressions that may match inside words, punctuation marks are words,
# and an empty text follows many instructions.


def upstream_word_once(text: str, *, keyword: str) -> bool:
    return len(re.findall(keyword, text, re.IGNORECASE)) == 1


def upstream_word_count(text: str, *, keyword: str, frequency: int, relation: Relation) -> bool:
    return holds(len(re.findall(keyword, text, re.IGNORECASE)), relation, frequency)


def upstream_exclude_word(text: str, *, keyword: str) -> bool:
    return f" {keyword} " not in text


def upstream_palindrome(text: str) -> bool:
    return any(word == word[::-1] for word in text.split())


def upstream_keyword_position(text: str, *, keyword: str, n: int, m: int) -> bool:
    parts = sentences(text)
    words = tokens(parts[n - 1]) if n <= len(parts) else ()
    return m <= len(words) and words[m - 1] == keyword


def upstream_start_end(text: str) -> bool:
    words = tokens(text)
    return len(words) > 1 and words[0].lower() == words[-1].lower()


def upstream_first_word_sent(text: str, *, first_word: str) -> bool:
    return all(sentence.split()[0].lower() == first_word.strip().lower() for sentence in sentences(text))


def upstream_first_word_answer(text: str, *, first_word: str) -> bool:
    return text.split()[0].lower() == first_word.strip().lower()


def upstream_last_word_answer(text: str, *, last_word: str) -> bool:
    return re.sub(r"[^\w\s]", "", text.split()[-1]).lower() == last_word.strip().lower()


def upstream_square_brackets(text: str) -> bool:
    return all(word.startswith("[") and word.endswith("]") for word in text.split())


def upstream_bigram_wrapping(text: str) -> bool:
    words = text.split()
    return all(a.startswith("<<") and b.endswith(">>") for a, b in zip(words[::2], words[1::2], strict=False))


def upstream_no_adjacent(text: str) -> bool:
    words = text.lower().split()
    return all(ord(b[0]) - ord(a[0]) != 1 for a, b in zip(words, words[1:], strict=False))


def upstream_composition(text: str, *, n_sent: int, n_words: int) -> bool:
    parts = starred_paragraphs(text)
    if parts is None or len(parts) != 3:
        return False
    paragraphs = [sentences(part) for part in parts]
    return all(
        len(paragraph) == n_sent and all(len(tokens(sentence)) == n_words for sentence in paragraph) for paragraph in paragraphs
    )


def upstream_count_unique(text: str) -> bool:
    return len(tokens(text)) == len(set(tokens(text)))


def upstream_increment(text: str, *, keyword1: str, keyword2: str) -> bool:
    counts = [len(re.findall(keyword, text, re.IGNORECASE)) for keyword in (keyword1, keyword2)]
    return counts == [1, 2]

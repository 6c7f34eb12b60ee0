"""Every verifiable instruction by its id: IFEval's 25, IF-RLVR's 29 more, IFBench's 58; and their arguments, checked."""

import inspect
from collections.abc import Callable, Mapping
from difflib import get_close_matches
from functools import lru_cache
from typing import Any, get_args

from tulu.verifiers.contract import GoldError, Mode, is_finite
from tulu.verifiers.instructions import core as core
from tulu.verifiers.instructions import ifbench_format as layout
from tulu.verifiers.instructions import ifbench_words as words
from tulu.verifiers.instructions import train as train
from tulu.verifiers.languages import CODES

Instruction = Callable[..., bool]

INSTRUCTIONS: dict[str, Instruction] = {
    # IFEval
    "keywords:existence": core.existence,
    "keywords:frequency": core.frequency,
    "keywords:forbidden_words": core.forbidden_words,
    "keywords:letter_frequency": core.letter_frequency,
    "language:response_language": core.response_language,
    "length_constraints:number_sentences": core.number_sentences,
    "length_constraints:number_paragraphs": core.number_paragraphs,
    "length_constraints:number_words": core.number_words,
    "length_constraints:nth_paragraph_first_word": core.nth_paragraph_first_word,
    "detectable_content:number_placeholders": core.number_placeholders,
    "detectable_content:postscript": core.postscript,
    "detectable_format:number_bullet_lists": core.number_bullet_lists,
    "detectable_format:constrained_response": core.constrained_response,
    "detectable_format:number_highlighted_sections": core.number_highlighted_sections,
    "detectable_format:multiple_sections": core.multiple_sections,
    "detectable_format:json_format": core.json_format,
    "detectable_format:title": core.title,
    "combination:two_responses": core.two_responses,
    "combination:repeat_prompt": core.repeat_prompt,
    "startend:end_checker": core.end_checker,
    "change_case:capital_word_frequency": core.capital_word_frequency,
    "change_case:english_capital": core.english_capital,
    "change_case:english_lowercase": core.english_lowercase,
    "punctuation:no_comma": core.no_comma,
    "startend:quotation": core.quotation,
    # IF-RLVR
    "copy:repeat_phrase": train.repeat_phrase,
    "copy:copy": train.copy,
    "copy:copying_simple": train.copy,
    "copy:copying_multiple": train.copying_multiple,
    "new:copy_span_idx": train.copy_span_idx,
    "detectable_format:sentence_hyphens": train.sentence_hyphens,
    "detectable_format:square_brackets": train.square_brackets,
    "detectable_format:bigram_wrapping": train.bigram_wrapping,
    "keywords:no_adjacent_consecutive": train.no_adjacent_consecutive,
    "keywords:word_once": train.word_once,
    "keywords:word_count_different_numbers": train.word_count_different_numbers,
    "keywords:exclude_word_harder": train.exclude_word_harder,
    "keywords:palindrome": train.palindrome,
    "keywords:keyword_specific_position": train.keyword_specific_position,
    "keywords:start_end": train.start_end,
    "paragraphs:paragraphs": train.paragraphs,
    "paragraphs:paragraphs2": train.paragraphs2,
    "first_word:first_word_sent": train.first_word_sent,
    "first_word:first_word_answer": train.first_word_answer,
    "last_word:last_word_sent": train.last_word_sent,
    "last_word:last_word_answer": train.last_word_answer,
    "punctuation:punctuation_dot": train.punctuation_dot,
    "punctuation:punctuation_exclamation": train.punctuation_exclamation,
    "count:lowercase_counting": train.lowercase_counting,
    "letters:letter_counting": train.letter_counting,
    "letters:letter_counting2": core.letter_frequency,
    "count:counting_composition": train.counting_composition,
    "count:count_unique": train.count_unique,
    "count:count_increment_word": train.count_increment_word,
    # IFBench
    "count:word_count_range": words.word_count_range,
    "count:unique_word_count": words.unique_word_count,
    "count:conjunctions": words.conjunctions,
    "count:person_names": words.person_names,
    "count:numbers": words.numbers,
    "count:punctuation": words.punctuation,
    "count:pronouns": words.pronouns,
    "count:words_japanese": words.words_japanese,
    "count:keywords_multiple": words.keywords_multiple,
    "ratio:stop_words": words.stop_words,
    "ratio:sentence_type": words.sentence_type,
    "ratio:sentence_balance": words.sentence_balance,
    "ratio:sentence_words": words.sentence_words,
    "ratio:overlap": words.overlap,
    "words:alphabet": words.alphabet,
    "words:vowel": words.vowel,
    "words:consonants": words.consonants,
    "words:palindrome": words.palindromes,
    "words:prime_lengths": words.prime_lengths,
    "words:start_verb": words.start_verb,
    "words:repeats": words.repeats,
    "words:odd_even_syllables": words.odd_even_syllables,
    "words:last_first": words.last_first,
    "words:paragraph_last_first": words.paragraph_last_first,
    "words:no_consecutive": words.no_consecutive,
    "words:keywords_specific_position": words.keywords_specific_position,
    "words:words_position": words.words_position,
    "sentence:alliteration_increment": words.alliteration_increment,
    "sentence:keyword": words.sentence_keyword,
    "sentence:increment": words.increment,
    "format:parentheses": layout.parentheses,
    "format:quotes": layout.quotes,
    "format:options": layout.options,
    "format:newline": layout.newline,
    "format:emoji": layout.emoji,
    "format:line_indent": layout.line_indent,
    "format:quote_unquote": layout.quote_unquote,
    "format:list": layout.bullet_list,
    "format:thesis": layout.thesis,
    "format:sub-bullets": layout.sub_bullets,
    "format:no_bullets_bullets": layout.no_bullets_bullets,
    "format:title_case": layout.title_case,
    "format:output_template": layout.output_template,
    "format:no_whitespace": layout.no_whitespace,
    "custom:multiples": layout.multiples,
    "custom:mcq_count_length": layout.mcq_count_length,
    "custom:reverse_newline": layout.reverse_newline,
    "custom:word_reverse": layout.word_reverse,
    "custom:character_reverse": layout.character_reverse,
    "custom:sentence_alphabet": layout.sentence_alphabet,
    "custom:european_capitals_sort": layout.european_capitals_sort,
    "custom:csv_city": layout.csv_city,
    "custom:csv_special_character": layout.csv_special_character,
    "custom:csv_quotes": layout.csv_quotes,
    "custom:date_format_list": layout.date_format_list,
    "repeat:repeat_change": layout.repeat_change,
    "repeat:repeat_simple": layout.repeat_simple,
    "repeat:repeat_span": layout.repeat_span,
}

UPSTREAM: dict[str, Instruction] = {
    "keywords:existence": core.upstream_existence,
    "keywords:frequency": core.upstream_frequency,
    "keywords:forbidden_words": core.upstream_forbidden_words,
    "language:response_language": core.upstream_response_language,
    "change_case:english_capital": core.upstream_english_capital,
    "change_case:english_lowercase": core.upstream_english_lowercase,
    "detectable_format:json_format": core.upstream_json_format,
    "detectable_format:square_brackets": train.upstream_square_brackets,
    "detectable_format:bigram_wrapping": train.upstream_bigram_wrapping,
    "keywords:no_adjacent_consecutive": train.upstream_no_adjacent,
    "keywords:word_once": train.upstream_word_once,
    "keywords:word_count_different_numbers": train.upstream_word_count,
    "keywords:exclude_word_harder": train.upstream_exclude_word,
    "keywords:palindrome": train.upstream_palindrome,
    "keywords:keyword_specific_position": train.upstream_keyword_position,
    "keywords:start_end": train.upstream_start_end,
    "first_word:first_word_sent": train.upstream_first_word_sent,
    "first_word:first_word_answer": train.upstream_first_word_answer,
    "last_word:last_word_answer": train.upstream_last_word_answer,
    "count:counting_composition": train.upstream_composition,
    "count:count_unique": train.upstream_count_unique,
    "count:count_increment_word": train.upstream_increment,
}
"""What open-instruct reads otherwise, for mode tulu3; all other ids mean the same in both modes."""


def instruction(name: str, mode: Mode) -> Instruction:
    """The function of an id; GoldError with the nearest ids for an unknown one."""
    if name not in INSTRUCTIONS:
        near = get_close_matches(name, INSTRUCTIONS, n=2, cutoff=0.4)
        raise GoldError(f"instruction id {name!r} is unknown" + (f"; did you mean {' or '.join(near)}?" if near else ""))
    return UPSTREAM.get(name, INSTRUCTIONS[name]) if mode == "tulu3" else INSTRUCTIONS[name]


@lru_cache(maxsize=256)
def _parameters(function: Instruction) -> Mapping[str, Any]:
    found = inspect.signature(function).parameters
    return {key: value.annotation for key, value in found.items() if key != "text"}


def arguments(name: str, function: Instruction, given: Mapping[str, Any] | None) -> dict[str, Any]:
    """The keyword arguments of an instruction as its function takes them, nulls dropped; GoldError names what is amiss."""
    kept = {key: value for key, value in (given or {}).items() if value is not None}
    wanted = _parameters(function)
    if unknown := sorted(set(kept) - set(wanted)):
        raise GoldError(f"{name}: unknown argument {', '.join(unknown)}; it takes {', '.join(wanted) or 'none'}")
    if missing := sorted(set(wanted) - set(kept)):
        # Upstream draws a missing value at random, anew for every verdict.
        raise GoldError(f"{name}: missing argument {', '.join(missing)}")
    return {key: _typed(name, key, kept[key], wanted[key]) for key in wanted}


def _typed(name: str, key: str, value: Any, kind: Any) -> Any:
    if kind is str:
        # IF-RLVR writes some keywords as lists of one.
        value = value[0] if isinstance(value, list) and len(value) == 1 else value
        usable = isinstance(value, str) and value.strip() and (key != "language" or value in CODES | {"zh"})
    elif kind in (int, float):
        usable = is_finite(value) and (kind is float or value == int(value))
        value = kind(value) if usable else value
    elif kind == list[str]:
        usable = isinstance(value, list) and all(isinstance(entry, str) and entry for entry in value)
    else:
        usable = value in get_args(kind)
    if not usable:
        raise GoldError(f"{name}: argument {key} cannot be {value!r}")
    return value

"""The table of all verifiable instructions (25 of IFEval, 29 of IF-RLVR, 58 of IFBench), and the check of their arguments."""

import inspect
from collections.abc import Callable, Mapping
from difflib import get_close_matches
from functools import lru_cache
from typing import Any, get_args

from tulu.verifiers.contract import GoldError, Mode, is_finite
from tulu.verifiers.instructions import if_rlvr, ifbench_format, ifbench_words, ifeval
from tulu.verifiers.languages import CODES

Instruction = Callable[..., bool]

INSTRUCTIONS: dict[str, Instruction] = {
    # IFEval
    "keywords:existence": ifeval.existence,
    "keywords:frequency": ifeval.frequency,
    "keywords:forbidden_words": ifeval.forbidden_words,
    "keywords:letter_frequency": ifeval.letter_frequency,
    "language:response_language": ifeval.response_language,
    "length_constraints:number_sentences": ifeval.number_sentences,
    "length_constraints:number_paragraphs": ifeval.number_paragraphs,
    "length_constraints:number_words": ifeval.number_words,
    "length_constraints:nth_paragraph_first_word": ifeval.nth_paragraph_first_word,
    "detectable_content:number_placeholders": ifeval.number_placeholders,
    "detectable_content:postscript": ifeval.postscript,
    "detectable_format:number_bullet_lists": ifeval.number_bullet_lists,
    "detectable_format:constrained_response": ifeval.constrained_response,
    "detectable_format:number_highlighted_sections": ifeval.number_highlighted_sections,
    "detectable_format:multiple_sections": ifeval.multiple_sections,
    "detectable_format:json_format": ifeval.json_format,
    "detectable_format:title": ifeval.title,
    "combination:two_responses": ifeval.two_responses,
    "combination:repeat_prompt": ifeval.repeat_prompt,
    "startend:end_checker": ifeval.end_checker,
    "change_case:capital_word_frequency": ifeval.capital_word_frequency,
    "change_case:english_capital": ifeval.english_capital,
    "change_case:english_lowercase": ifeval.english_lowercase,
    "punctuation:no_comma": ifeval.no_comma,
    "startend:quotation": ifeval.quotation,
    # IF-RLVR
    "copy:repeat_phrase": if_rlvr.repeat_phrase,
    "copy:copy": if_rlvr.copy,
    "copy:copying_simple": if_rlvr.copy,
    "copy:copying_multiple": if_rlvr.copying_multiple,
    "new:copy_span_idx": if_rlvr.copy_span_idx,
    "detectable_format:sentence_hyphens": if_rlvr.sentence_hyphens,
    "detectable_format:square_brackets": if_rlvr.square_brackets,
    "detectable_format:bigram_wrapping": if_rlvr.bigram_wrapping,
    "keywords:no_adjacent_consecutive": if_rlvr.no_adjacent_consecutive,
    "keywords:word_once": if_rlvr.word_once,
    "keywords:word_count_different_numbers": if_rlvr.word_count_different_numbers,
    "keywords:exclude_word_harder": if_rlvr.exclude_word_harder,
    "keywords:palindrome": if_rlvr.palindrome,
    "keywords:keyword_specific_position": if_rlvr.keyword_specific_position,
    "keywords:start_end": if_rlvr.start_end,
    "paragraphs:paragraphs": if_rlvr.paragraphs,
    "paragraphs:paragraphs2": if_rlvr.paragraphs2,
    "first_word:first_word_sent": if_rlvr.first_word_sent,
    "first_word:first_word_answer": if_rlvr.first_word_answer,
    "last_word:last_word_sent": if_rlvr.last_word_sent,
    "last_word:last_word_answer": if_rlvr.last_word_answer,
    "punctuation:punctuation_dot": if_rlvr.punctuation_dot,
    "punctuation:punctuation_exclamation": if_rlvr.punctuation_exclamation,
    "count:lowercase_counting": if_rlvr.lowercase_counting,
    "letters:letter_counting": if_rlvr.letter_counting,
    "letters:letter_counting2": ifeval.letter_frequency,
    "count:counting_composition": if_rlvr.counting_composition,
    "count:count_unique": if_rlvr.count_unique,
    "count:count_increment_word": if_rlvr.count_increment_word,
    # IFBench
    "count:word_count_range": ifbench_words.word_count_range,
    "count:unique_word_count": ifbench_words.unique_word_count,
    "count:conjunctions": ifbench_words.conjunctions,
    "count:person_names": ifbench_words.person_names,
    "count:numbers": ifbench_words.numbers,
    "count:punctuation": ifbench_words.punctuation,
    "count:pronouns": ifbench_words.pronouns,
    "count:words_japanese": ifbench_words.words_japanese,
    "count:keywords_multiple": ifbench_words.keywords_multiple,
    "ratio:stop_words": ifbench_words.stop_words,
    "ratio:sentence_type": ifbench_words.sentence_type,
    "ratio:sentence_balance": ifbench_words.sentence_balance,
    "ratio:sentence_words": ifbench_words.sentence_words,
    "ratio:overlap": ifbench_words.overlap,
    "words:alphabet": ifbench_words.alphabet,
    "words:vowel": ifbench_words.vowel,
    "words:consonants": ifbench_words.consonants,
    "words:palindrome": ifbench_words.palindromes,
    "words:prime_lengths": ifbench_words.prime_lengths,
    "words:start_verb": ifbench_words.start_verb,
    "words:repeats": ifbench_words.repeats,
    "words:odd_even_syllables": ifbench_words.odd_even_syllables,
    "words:last_first": ifbench_words.last_first,
    "words:paragraph_last_first": ifbench_words.paragraph_last_first,
    "words:no_consecutive": ifbench_words.no_consecutive,
    "words:keywords_specific_position": ifbench_words.keywords_specific_position,
    "words:words_position": ifbench_words.words_position,
    "sentence:alliteration_increment": ifbench_words.alliteration_increment,
    "sentence:keyword": ifbench_words.sentence_keyword,
    "sentence:increment": ifbench_words.increment,
    "format:parentheses": ifbench_format.parentheses,
    "format:quotes": ifbench_format.quotes,
    "format:options": ifbench_format.options,
    "format:newline": ifbench_format.newline,
    "format:emoji": ifbench_format.emoji,
    "format:line_indent": ifbench_format.line_indent,
    "format:quote_unquote": ifbench_format.quote_unquote,
    "format:list": ifbench_format.bullet_list,
    "format:thesis": ifbench_format.thesis,
    "format:sub-bullets": ifbench_format.sub_bullets,
    "format:no_bullets_bullets": ifbench_format.no_bullets_bullets,
    "format:title_case": ifbench_format.title_case,
    "format:output_template": ifbench_format.output_template,
    "format:no_whitespace": ifbench_format.no_whitespace,
    "custom:multiples": ifbench_format.multiples,
    "custom:mcq_count_length": ifbench_format.mcq_count_length,
    "custom:reverse_newline": ifbench_format.reverse_newline,
    "custom:word_reverse": ifbench_format.word_reverse,
    "custom:character_reverse": ifbench_format.character_reverse,
    "custom:sentence_alphabet": ifbench_format.sentence_alphabet,
    "custom:european_capitals_sort": ifbench_format.european_capitals_sort,
    "custom:csv_city": ifbench_format.csv_city,
    "custom:csv_special_character": ifbench_format.csv_special_character,
    "custom:csv_quotes": ifbench_format.csv_quotes,
    "custom:date_format_list": ifbench_format.date_format_list,
    "repeat:repeat_change": ifbench_format.repeat_change,
    "repeat:repeat_simple": ifbench_format.repeat_simple,
    "repeat:repeat_span": ifbench_format.repeat_span,
}

UPSTREAM: dict[str, Instruction] = {
    "keywords:existence": ifeval.upstream_existence,
    "keywords:frequency": ifeval.upstream_frequency,
    "keywords:forbidden_words": ifeval.upstream_forbidden_words,
    "language:response_language": ifeval.upstream_response_language,
    "change_case:english_capital": ifeval.upstream_english_capital,
    "change_case:english_lowercase": ifeval.upstream_english_lowercase,
    "detectable_format:json_format": ifeval.upstream_json_format,
    "detectable_format:square_brackets": if_rlvr.upstream_square_brackets,
    "detectable_format:bigram_wrapping": if_rlvr.upstream_bigram_wrapping,
    "keywords:no_adjacent_consecutive": if_rlvr.upstream_no_adjacent,
    "keywords:word_once": if_rlvr.upstream_word_once,
    "keywords:word_count_different_numbers": if_rlvr.upstream_word_count,
    "keywords:exclude_word_harder": if_rlvr.upstream_exclude_word,
    "keywords:palindrome": if_rlvr.upstream_palindrome,
    "keywords:keyword_specific_position": if_rlvr.upstream_keyword_position,
    "keywords:start_end": if_rlvr.upstream_start_end,
    "first_word:first_word_sent": if_rlvr.upstream_first_word_sent,
    "first_word:first_word_answer": if_rlvr.upstream_first_word_answer,
    "last_word:last_word_answer": if_rlvr.upstream_last_word_answer,
    "count:counting_composition": if_rlvr.upstream_composition,
    "count:count_unique": if_rlvr.upstream_count_unique,
    "count:count_increment_word": if_rlvr.upstream_increment,
}
"""The instructions that mode tulu3 computes otherwise, as open-instruct does; all others are the same in both modes."""


def instruction(name: str, mode: Mode) -> Instruction:
    """The function of an id; GoldError with the nearest ids for an unknown one."""
    if name not in INSTRUCTIONS:
        similar = get_close_matches(name, INSTRUCTIONS, n=2, cutoff=0.4)
        raise GoldError(f"instruction id {name!r} is unknown" + (f"; did you mean {' or '.join(similar)}?" if similar else ""))
    return UPSTREAM.get(name, INSTRUCTIONS[name]) if mode == "tulu3" else INSTRUCTIONS[name]


@lru_cache(maxsize=256)
def _parameters(function: Instruction) -> Mapping[str, Any]:
    """The types of an instruction's keyword arguments, by name."""
    parameters = inspect.signature(function).parameters
    return {key: value.annotation for key, value in parameters.items() if key != "text"}


def check_arguments(name: str, function: Instruction, kwargs: Mapping[str, Any] | None) -> dict[str, Any]:
    """The keyword arguments of an instruction as its function takes them, without nulls; GoldError where one cannot be used."""
    values = {key: value for key, value in (kwargs or {}).items() if value is not None}
    kinds = _parameters(function)
    if unknown := sorted(set(values) - set(kinds)):
        raise GoldError(f"{name}: unknown argument {', '.join(unknown)}; it takes {', '.join(kinds) or 'none'}")
    if missing := sorted(set(kinds) - set(values)):
        # IFEval draws a missing value at random, which would differ from one verdict to the next.
        raise GoldError(f"{name}: missing argument {', '.join(missing)}")
    return {key: _check_type(name, key, values[key], kinds[key]) for key in kinds}


def _check_type(name: str, key: str, value: Any, kind: Any) -> Any:
    if kind is str:
        # IF-RLVR writes some keywords as lists with one entry.
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

"""Rows to arrays of tokens and trained flags, a batch of rows at a time."""

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tulu.data.chat import Encoded, encode_batch, tokenize
from tulu.data.formats import Kind, parse_conversation, parse_text
from tulu.data.messages import Unusable
from tulu.data.preferences import Pair, pair_rows, parse_pair
from tulu.data.row_report import Counter
from tulu.data.sources import Row
from tulu.data.token_cache import ArraysBuilder, Part
from tulu.errors import DataError
from tulu.types import Message

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_BATCH = 1000
"""Rows that are tokenised side by side."""
Tokens = NDArray[np.int32]
Flags = NDArray[np.bool_]


@dataclass(frozen=True)
class TokeniseOptions:
    """How rows become groups."""

    kind: Kind
    max_length: int
    """Most tokens of a conversation, of a side of a pair, or of a piece of text."""
    drop_long: bool = False
    """Whether pairs with a side over max_length are dropped (reward models), rather than truncated (DPO)."""


@dataclass(frozen=True)
class TokenisedGroup:
    """A group as segments, the prompt first: the tokens of each, and whether each token is trained."""

    id: str
    segments: Sequence[tuple[Tokens, Flags]]
    margin: float = 0.0


ParsedRow = tuple[str, Any]
"""A row's id, and what it means: a text, a conversation or a pair."""
Encode = Callable[["PreTrainedTokenizerBase", TokeniseOptions, Counter, Sequence[ParsedRow]], Iterator[TokenisedGroup]]


def encode_part(name: str, rows: Iterable[Row], tokenizer: "PreTrainedTokenizerBase", options: TokeniseOptions) -> Part:
    """All usable rows of a source as one part; DataError where none is usable."""
    counter = Counter(name)
    builder, ids = ArraysBuilder(), []
    for batch in batch_rows(rows):
        parsed = list(_parse(batch, options.kind, counter, tokenizer))
        for group in ENCODERS[options.kind](tokenizer, options, counter, parsed):
            builder.add(group.segments, group.margin)
            ids.append(group.id)
    if not ids:
        raise DataError(counter.nothing_left())
    arrays = builder.build()
    return Part(arrays, ids, counter.report(len(arrays.tokens), int(arrays.trained.sum())))


def batch_rows(rows: Iterable[Row]) -> Iterator[list[Row]]:
    """A thousand rows at a time."""
    batch: list[Row] = []
    for row in rows:
        batch.append(row)
        if len(batch) == _BATCH:
            yield batch
            batch = []
    if batch:
        yield batch


def _parse(rows: Sequence[Row], kind: Kind, counter: Counter, tokenizer: "PreTrainedTokenizerBase") -> Iterator[ParsedRow]:
    specials = re.compile("|".join(re.escape(token) for token in tokenizer.all_special_tokens) or r"(?!)")
    for row in rows:
        plain_rows = pair_rows(row) if kind == "pairs" else [row]
        for plain in plain_rows:
            counter.rows += 1
            try:
                value = PARSERS[kind](plain)
            except Unusable as error:
                counter.drop(str(error), plain.id)
                continue
            if len(plain_rows) > 1:
                counter.note("several answers in a row: every chosen one is paired with every rejected one", plain.id)
            if any(specials.search(content) for content in _contents(value)):
                counter.note("its text spells a special token, which becomes that token", plain.id)
            yield plain.id, value


def _contents(value: str | list[Message] | Pair) -> Iterator[str]:
    """The texts of a parsed row."""
    if isinstance(value, str):
        yield value
    else:
        for messages in [value.chosen, value.rejected] if isinstance(value, Pair) else [value]:
            yield from (message["content"] for message in messages)


def _flags(encoded: Encoded) -> Flags:
    flags = np.zeros(len(encoded.tokens), dtype=np.bool_)
    for start, end in encoded.spans:
        flags[start:end] = True
    return flags


def _encode_conversations(
    tokenizer: "PreTrainedTokenizerBase",
    options: TokeniseOptions,
    counter: Counter,
    rows: Sequence[tuple[str, list[Message]]],
) -> Iterator[TokenisedGroup]:
    """Over-long conversations are truncated; what follows the last trained token is never read, so it is left out."""
    stops = set(tokenizer.all_special_ids)
    conversations = encode_batch(tokenizer, [messages for _, messages in rows], "all")
    for (row_id, _), encoded in zip(rows, conversations, strict=True):
        if not encoded.spans:
            counter.drop(encoded.problem or "nothing to train on", row_id)
            continue
        start, end = encoded.spans[0][0], encoded.spans[-1][1]
        if start >= options.max_length:
            counter.drop("nothing to train on after truncation", row_id)
            continue
        if end > options.max_length:
            counter.truncate(row_id)
            end = options.max_length
        elif stops.isdisjoint(encoded.tokens[encoded.spans[-1][0] : end]):
            counter.note("no end-of-turn token is trained (the template writes none): the model will not learn to stop", row_id)
        tokens, flags = np.array(encoded.tokens[:end], dtype=np.int32), _flags(encoded)[:end]
        yield TokenisedGroup(row_id, [(tokens[:start], flags[:start]), (tokens[start:], flags[start:])])


def _encode_pairs(
    tokenizer: "PreTrainedTokenizerBase", options: TokeniseOptions, counter: Counter, rows: Sequence[tuple[str, Pair]]
) -> Iterator[TokenisedGroup]:
    conversations = encode_batch(tokenizer, [side for _, pair in rows for side in (pair.chosen, pair.rejected)], "last")
    for (row_id, pair), chosen, rejected in zip(rows, conversations[::2], conversations[1::2], strict=True):
        sides = (chosen, rejected)
        if any(not side.spans for side in sides):
            counter.drop(chosen.problem or rejected.problem or "nothing to train on", row_id)
            continue
        if chosen.tokens == rejected.tokens:
            counter.drop("chosen equals rejected", row_id)
            continue
        long = any(len(side.tokens) > options.max_length for side in sides)
        if long and options.drop_long:
            counter.drop(f"longer than {options.max_length} tokens", row_id)
            continue
        tokens = [np.array(side.tokens[: options.max_length], dtype=np.int32) for side in sides]
        flags = [_flags(side)[: options.max_length] for side in sides]
        if not all(side.any() for side in flags):
            counter.drop("an answer is lost to truncation", row_id)
            continue
        if np.array_equal(tokens[0], tokens[1]):
            counter.drop("chosen equals rejected after truncation", row_id)
            continue
        if long:
            counter.truncate(row_id)
        if pair.chosen[:-1] != pair.rejected[:-1]:
            counter.note("chosen and rejected answer different prompts", row_id)
        shared = _shared_length(tokens, flags)
        prompt = (tokens[0][:shared], flags[0][:shared])
        completions = [(side[shared:], trained[shared:]) for side, trained in zip(tokens, flags, strict=True)]
        yield TokenisedGroup(row_id, [prompt, *completions], pair.margin)


def _shared_length(tokens: Sequence[Tokens], flags: Sequence[Flags]) -> int:
    """Length of the longest common prefix that holds no trained token."""
    limit = min(int(np.argmax(side)) for side in flags)
    differs = tokens[0][:limit] != tokens[1][:limit]
    return int(np.argmax(differs)) if differs.any() else limit


def _encode_texts(
    tokenizer: "PreTrainedTokenizerBase", options: TokeniseOptions, counter: Counter, rows: Sequence[tuple[str, str]]
) -> Iterator[TokenisedGroup]:
    """Every token is trained, end-of-text included; long texts go on in further groups, each led by the token before it."""
    eos = tokenizer.eos_token_id
    lead = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else eos
    if eos is None or lead is None:
        raise DataError("this tokenizer has no end-of-text token, which divides texts; set its eos_token")
    encodings = tokenize(tokenizer, [content for _, content in rows])
    for (row_id, _), encoding in zip(rows, encodings, strict=True):
        tokens = np.array([lead, *encoding.ids, eos], dtype=np.int32)
        step = max(1, options.max_length - 1)
        for number, start in enumerate(range(0, len(tokens) - 1, step)):
            window = tokens[start : start + step + 1]
            flags = np.arange(len(window)) > 0
            group_id = f"{row_id}/{number}" if number else row_id
            yield TokenisedGroup(group_id, [(window[:1], flags[:1]), (window[1:], flags[1:])])


PARSERS: dict[Kind, Callable[[Row], Any]] = {"text": parse_text, "sft": parse_conversation, "pairs": parse_pair}
ENCODERS: dict[Kind, Encode] = {"text": _encode_texts, "sft": _encode_conversations, "pairs": _encode_pairs}

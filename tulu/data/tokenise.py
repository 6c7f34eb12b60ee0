"""Rows to arrays of tokens and trained flags, a batch at a time."""

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tulu.data.chat import Encoded, encode_batch, tokenize
from tulu.data.formats import READ, Kind, Pair, Unusable
from tulu.data.row_report import Counter
from tulu.data.sources import Row
from tulu.data.token_cache import Arrays, Part
from tulu.errors import DataError
from tulu.types import Message

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_BATCH = 1000
Tokens = NDArray[np.int32]
Flags = NDArray[np.bool_]


@dataclass(frozen=True)
class Options:
    """How rows become groups."""

    kind: Kind
    max_length: int
    drop_long: bool = False
    """Drop pairs with a side over max_length (reward models), rather than truncate (DPO)."""


@dataclass(frozen=True)
class Laid:
    """A group's segments, the prompt first, each with its trained flags."""

    id: str
    segments: Sequence[tuple[Tokens, Flags]]
    margin: float = 0.0


Encode = Callable[["PreTrainedTokenizerBase", Options, Counter, Sequence[tuple[str, Any]]], Iterator[Laid]]


def encode_part(name: str, rows: Iterable[Row], tokenizer: "PreTrainedTokenizerBase", options: Options) -> Part:
    """All usable rows of a source as one part; DataError where none is usable."""
    counter = Counter(name)
    laid: list[Laid] = []
    for batch in batched(rows):
        read = list(_read(batch, options.kind, counter, tokenizer))
        laid.extend(ENCODERS[options.kind](tokenizer, options, counter, read))
    if not laid:
        raise DataError(counter.nothing_left())
    arrays = _join(laid)
    tokens, trained = len(arrays.tokens), int(arrays.trained.sum())
    return Part(arrays, [each.id for each in laid], counter.report(tokens, trained))


def batched(rows: Iterable[Row]) -> Iterator[list[Row]]:
    """A thousand rows at a time."""
    batch: list[Row] = []
    for row in rows:
        batch.append(row)
        if len(batch) == _BATCH:
            yield batch
            batch = []
    if batch:
        yield batch


def _read(rows: Sequence[Row], kind: Kind, counter: Counter, tokenizer: "PreTrainedTokenizerBase") -> Iterator[tuple[str, Any]]:
    specials = re.compile("|".join(re.escape(token) for token in tokenizer.all_special_tokens) or r"(?!)")
    for row in rows:
        counter.rows += 1
        try:
            value = READ[kind](row)
        except Unusable as reason:
            counter.drop(str(reason), row.id)
            continue
        if any(specials.search(content) for content in _contents(value)):
            counter.note("its text spells a special token, which becomes that token", row.id)
        yield row.id, value


def _contents(value: str | list[Message] | Pair) -> Iterator[str]:
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


def _sft(
    tokenizer: "PreTrainedTokenizerBase", options: Options, counter: Counter, rows: Sequence[tuple[str, list[Message]]]
) -> Iterator[Laid]:
    """Over-long conversations are truncated; what follows the last trained token is never read, so it is left out."""
    stops = set(tokenizer.all_special_ids)
    encoded = encode_batch(tokenizer, [messages for _, messages in rows], "all")
    for (row_id, _), each in zip(rows, encoded, strict=True):
        if not each.spans:
            counter.drop(each.problem or "nothing to train on", row_id)
            continue
        start, end = each.spans[0][0], each.spans[-1][1]
        if start >= options.max_length:
            counter.drop("nothing to train on after truncation", row_id)
            continue
        if end > options.max_length:
            counter.truncate(row_id)
            end = options.max_length
        elif stops.isdisjoint(each.tokens[each.spans[-1][0] : end]):
            counter.note("no end-of-turn token is trained (the template writes none): the model will not learn to stop", row_id)
        tokens, flags = np.array(each.tokens[:end], dtype=np.int32), _flags(each)[:end]
        yield Laid(row_id, [(tokens[:start], flags[:start]), (tokens[start:], flags[start:])])


def _pairs(
    tokenizer: "PreTrainedTokenizerBase", options: Options, counter: Counter, rows: Sequence[tuple[str, Pair]]
) -> Iterator[Laid]:
    encoded = encode_batch(tokenizer, [side for _, pair in rows for side in (pair.chosen, pair.rejected)], "last")
    for (row_id, pair), chosen, rejected in zip(rows, encoded[::2], encoded[1::2], strict=True):
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
        cut = [np.array(side.tokens[: options.max_length], dtype=np.int32) for side in sides]
        flags = [_flags(side)[: options.max_length] for side in sides]
        if not all(each.any() for each in flags):
            counter.drop("an answer is lost to truncation", row_id)
            continue
        if np.array_equal(cut[0], cut[1]):
            counter.drop("chosen equals rejected after truncation", row_id)
            continue
        if long:
            counter.truncate(row_id)
        if pair.chosen[:-1] != pair.rejected[:-1]:
            counter.note("chosen and rejected answer different prompts", row_id)
        shared = _shared(cut, flags)
        head = (cut[0][:shared], flags[0][:shared])
        tails = [(tokens[shared:], mask[shared:]) for tokens, mask in zip(cut, flags, strict=True)]
        yield Laid(row_id, [head, *tails], pair.margin)


def _shared(tokens: Sequence[Tokens], flags: Sequence[Flags]) -> int:
    """Length of the longest common prefix that holds no trained token."""
    limit = min(int(np.argmax(each)) for each in flags)
    differs = tokens[0][:limit] != tokens[1][:limit]
    return int(np.argmax(differs)) if differs.any() else limit


def _text(
    tokenizer: "PreTrainedTokenizerBase", options: Options, counter: Counter, rows: Sequence[tuple[str, str]]
) -> Iterator[Laid]:
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
            yield Laid(f"{row_id}/{number}" if number else row_id, [(window[:1], flags[:1]), (window[1:], flags[1:])])


def _join(laid: Sequence[Laid]) -> Arrays:
    segments = [segment for each in laid for segment in each.segments]
    return Arrays(
        tokens=np.concatenate([tokens for tokens, _ in segments]),
        trained=np.concatenate([flags for _, flags in segments]),
        bounds=np.cumsum([0, *(len(tokens) for tokens, _ in segments)], dtype=np.int64),
        first=np.cumsum([0, *(len(each.segments) for each in laid)], dtype=np.int64),
        margins=np.array([each.margin for each in laid], dtype=np.float64),
    )


ENCODERS: dict[Kind, Encode] = {"text": _text, "sft": _sft, "pairs": _pairs}

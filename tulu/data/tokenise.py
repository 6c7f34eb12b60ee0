"""Rows to arrays of tokens and trained flags, a batch of rows at a time, on all cores where there are many rows."""

import re
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from tulu.config.cores import cores
from tulu.config.stages import RowKind
from tulu.data.chat import Encoded, encode_batch, tokenize
from tulu.data.formats import Conversation, parse_conversation, parse_text
from tulu.data.left_out import ODD_ROLE, THOUGHTS, loss_of, odd_role
from tulu.data.preferences import Pair, pair_rows, parse_pair
from tulu.data.row_report import RowReport
from tulu.data.sources import Row
from tulu.data.token_cache import Arrays, Part, PartWriter
from tulu.data.workers import in_batches, shared_out
from tulu.errors import DataError
from tulu.types import Completion, Group, Message, Tools

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_BATCH = 500
"""Rows that are tokenised side by side."""
_ALONE = 2.0
"""Seconds after which worker processes are started, each of which takes about as long to import what it needs."""


@dataclass(frozen=True)
class TokeniseOptions:
    """How rows become groups."""

    kind: RowKind
    max_length: int
    """Most tokens of a conversation, of a side of a pair, or of a piece of text."""
    drop_long: bool = False
    """Whether a conversation or a pair over max_length is dropped, rather than truncated."""
    labels: Literal["all", "last"] = "last"
    """The assistant's turns of a side of a pair that are trained."""


ParsedRow = tuple[str, Any]
"""A row's id, and what it means: a text, a conversation or a pair."""
Encode = Callable[["PreTrainedTokenizerBase", TokeniseOptions, RowReport, Sequence[ParsedRow]], Iterator[Group]]


@dataclass(frozen=True)
class Batch:
    """Rows that stand one after the other in a source."""

    rows: Sequence[Row]
    begins: bool
    """Whether the first of them is the first of the source."""


Settings = tuple["PreTrainedTokenizerBase", TokeniseOptions]
"""What is the same for all batches of a source."""


def encode_part(
    name: str,
    rows: Iterable[Row],
    tokenizer: "PreTrainedTokenizerBase",
    options: TokeniseOptions,
    folder: Path | None = None,
    workers: int | None = None,
) -> Part:
    """All usable rows of a source as one part, which `folder` holds if one is given; DataError where no row is usable.

    The part is the same for any number of workers. By default this process works alone, and once that takes long there is
    one for each core.
    """
    batches = (Batch(batch, begins=number == 0) for number, batch in enumerate(in_batches(rows, _BATCH)))
    with PartWriter(name, folder) as writer:
        for arrays, report in _encoded((tokenizer, options), batches, workers):
            writer.add(arrays, report)
        if not writer.report.tokens:
            raise DataError(writer.report.nothing_left())
        return writer.part()


def _encoded(settings: Settings, batches: Iterator[Batch], workers: int | None) -> Iterator[tuple[Arrays, RowReport]]:
    """Every batch encoded, in order."""
    began = time.monotonic()
    for batch in batches if workers in (None, 1) else ():
        yield encode_batch_of_rows(settings, batch)
        if workers is None and time.monotonic() - began > _ALONE:
            workers = cores()
            if workers > 1:
                break
    if workers is not None and workers > 1:
        yield from shared_out("tulu.data.tokenise.encode_batch_of_rows", settings, batches, workers)


def encode_batch_of_rows(settings: Settings, batch: Batch) -> tuple[Arrays, RowReport]:
    """The usable rows of a batch, and what became of all of them."""
    tokenizer, options = settings
    report = RowReport("")
    specials = re.compile("|".join(re.escape(token) for token in tokenizer.all_special_tokens) or r"(?!)")
    parsed = list(_parse(batch, options.kind, report, specials))
    return Arrays.of(ENCODERS[options.kind](tokenizer, options, report, parsed)), report


def _parse(batch: Batch, kind: RowKind, report: RowReport, specials: re.Pattern[str]) -> Iterator[ParsedRow]:
    for row in batch.rows:
        plain_rows = pair_rows(row) if kind == "pairs" else [row]
        for plain in plain_rows:
            value = report.read(plain, kind, PARSERS[kind], _contents, batch.begins)
            if value is None:
                continue
            if len(plain_rows) > 1:
                report.note("several answers in a row: every chosen one is paired with every rejected one", plain.id)
            if any(specials.search(content) for content in _contents(value)):
                report.note("its text spells a special token, which becomes that token", plain.id)
            yield plain.id, value


def _contents(value: str | Conversation | Pair) -> list[str]:
    if isinstance(value, str):
        return [value]
    messages = [*value.chosen, *value.rejected] if isinstance(value, Pair) else value.messages
    return [message["content"] for message in messages]


def _loss(tokenizer: "PreTrainedTokenizerBase", encoded: Encoded, messages: Sequence[Message], tools: Tools) -> str:
    """Why a conversation cannot be trained whole; nothing where it can."""
    return loss_of(tokenizer, encoded, messages, tools) if encoded.spans else encoded.problem or "nothing to train on"


def _encode_conversations(
    tokenizer: "PreTrainedTokenizerBase", options: TokeniseOptions, report: RowReport, rows: Sequence[tuple[str, Conversation]]
) -> Iterator[Group]:
    """Over-long conversations are truncated or dropped; what follows the last trained token is never read, so it is left out."""
    stops = set(tokenizer.all_special_ids)
    chats = [chat for _, chat in rows]
    encodings = encode_batch(tokenizer, [chat.messages for chat in chats], "all", [chat.tools for chat in chats])
    for (row_id, chat), encoded in zip(rows, encodings, strict=True):
        if reason := _loss(tokenizer, encoded, chat.messages, chat.tools):
            report.drop(reason, row_id)
            continue
        start, end = encoded.spans[0][0], encoded.spans[-1][1]
        if end > options.max_length and options.drop_long:
            report.drop(f"longer than {options.max_length} tokens", row_id)
            continue
        if start >= options.max_length:
            report.drop("nothing to train on after truncation", row_id)
            continue
        if encoded.shortened:
            report.note(THOUGHTS, row_id)
        if odd := odd_role(tokenizer, chat.messages):
            report.note(ODD_ROLE, row_id, odd)
        if end > options.max_length:
            report.truncate(row_id, _cuts_a_turn(encoded, options.max_length))
            end = options.max_length
        elif stops.isdisjoint(encoded.tokens[encoded.spans[-1][0] : end]):
            report.note("no end-of-turn token is trained (the template writes none): the model will not learn to stop", row_id)
        yield Group(encoded.tokens[:start], [Completion(encoded.tokens[start:end], encoded.trained[start:end])], row_id)


def _cuts_a_turn(encoded: Encoded, length: int) -> bool:
    """Whether cutting off at a length goes through a trained turn, whose end is then not trained."""
    return any(start < length < end for start, end in encoded.spans)


def _encode_pairs(
    tokenizer: "PreTrainedTokenizerBase", options: TokeniseOptions, report: RowReport, rows: Sequence[tuple[str, Pair]]
) -> Iterator[Group]:
    chats = [side for _, pair in rows for side in (pair.chosen, pair.rejected)]
    encodings = encode_batch(tokenizer, chats, options.labels, [pair.tools for _, pair in rows for _ in range(2)])
    for (row_id, pair), chosen, rejected in zip(rows, encodings[::2], encodings[1::2], strict=True):
        reason = _loss(tokenizer, chosen, pair.chosen, pair.tools) or _loss(tokenizer, rejected, pair.rejected, pair.tools)
        sides = [Completion(side.tokens[: options.max_length], side.trained[: options.max_length]) for side in (chosen, rejected)]
        long = max(len(chosen.tokens), len(rejected.tokens)) > options.max_length
        if reason:
            report.drop(reason, row_id)
        elif chosen.tokens == rejected.tokens:
            report.drop("chosen equals rejected", row_id)
        elif long and options.drop_long:
            report.drop(f"longer than {options.max_length} tokens", row_id)
        elif not all(any(side.trained) for side in sides):
            report.drop("an answer is lost to truncation", row_id)
        elif sides[0].tokens == sides[1].tokens:
            report.drop("chosen equals rejected after truncation", row_id)
        else:
            if long:
                report.truncate(row_id, any(_cuts_a_turn(side, options.max_length) for side in (chosen, rejected)))
            if chosen.shortened or rejected.shortened:
                report.note(THOUGHTS, row_id)
            if odd := odd_role(tokenizer, [*pair.chosen, *pair.rejected]):
                report.note(ODD_ROLE, row_id, odd)
            if pair.chosen[:-1] != pair.rejected[:-1]:
                report.note("chosen and rejected answer different prompts", row_id)
            shared = _shared_length(*sides)
            completions = [Completion(side.tokens[shared:], side.trained[shared:]) for side in sides]
            yield Group(sides[0].tokens[:shared], completions, row_id, pair.margin)


def _shared_length(chosen: Completion, rejected: Completion) -> int:
    """Length of the longest common prefix that holds no trained token."""
    limit = min(chosen.trained.index(True), rejected.trained.index(True))
    return next((place for place in range(limit) if chosen.tokens[place] != rejected.tokens[place]), limit)


def _encode_texts(
    tokenizer: "PreTrainedTokenizerBase", options: TokeniseOptions, report: RowReport, rows: Sequence[tuple[str, str]]
) -> Iterator[Group]:
    """Every token is trained, end-of-text included; long texts go on in further groups, each led by the token before it."""
    eos = tokenizer.eos_token_id
    lead = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else eos
    if eos is None or lead is None:
        raise DataError("this tokenizer has no end-of-text token, which divides texts; set its eos_token")
    encodings = tokenize(tokenizer, [content for _, content in rows])
    for (row_id, _), encoding in zip(rows, encodings, strict=True):
        tokens = [lead, *encoding.ids, eos]
        step = max(1, options.max_length - 1)
        for number, start in enumerate(range(0, len(tokens) - 1, step)):
            piece = tokens[start + 1 : start + step + 1]
            group_id = f"{row_id}/{number}" if number else row_id
            yield Group([tokens[start]], [Completion(piece, [True] * len(piece))], group_id)


PARSERS: dict[RowKind, Callable[[Row], Any]] = {"text": parse_text, "sft": parse_conversation, "pairs": parse_pair}
ENCODERS: dict[RowKind, Encode] = {"text": _encode_texts, "sft": _encode_conversations, "pairs": _encode_pairs}

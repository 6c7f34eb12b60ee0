"""Rows that hold several: message trees (OASST) and tasks with instances (self-instruct) become plain rows."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import combinations
from typing import Any

from tulu.config.stages import RowKind
from tulu.data.faults import Misfit, read_each
from tulu.data.sources import Row
from tulu.errors import DataError

_ROLES = {"prompter": "user", "assistant": "assistant"}


def unroll(rows: Sequence[Row], kind: RowKind) -> Sequence[Row]:
    """Every row as the plain rows it holds, with the ids FILE:LINE/1, FILE:LINE/2, ...

    The first row says whether the rows are nested. Plain rows are returned as they are, without reading any other. A row that is
    not nested as the first one is stays one row, whose `problem` says so, and which no reader takes.
    """
    try:
        first = rows[0].columns if rows else {}
    except DataError:
        return rows  # whoever reads the first row gets the error, beside those of the other rows
    if kind != "text" and isinstance(first.get("prompt"), Mapping) and "replies" in first["prompt"]:
        read = _ranked_pairs if kind == "pairs" else _threads
    elif kind == "sft" and isinstance(first.get("instances"), list | tuple):
        read = _instances
    else:
        return rows
    return [plain for row in read_each(rows, range(len(rows))) for plain in _plain_rows(row, read)]


def _plain_rows(row: Row, read: Callable[[Row], Iterable[dict[str, Any]]]) -> list[Row]:
    try:
        return [Row(f"{row.id}/{number}", columns) for number, columns in enumerate(read(row), 1)]
    except Misfit as error:
        return [Row(row.id, row.columns, problem=error.reason)]


def origin(row_id: str) -> str:
    """The id of the row in its file, without the number of the plain row or of the copy: a.jsonl:3 of a.jsonl:3/2#4."""
    stem, colon, place = row_id.rpartition(":")
    return f"{stem}{colon}{place.partition('#')[0].partition('/')[0]}"


def _instances(row: Row) -> Iterator[dict[str, Any]]:
    """One row per instance of a task: {instruction, input, output}."""
    instances = row.columns.get("instances")
    if (
        not isinstance(instances, list | tuple)
        or not instances
        or not all(isinstance(instance, Mapping) for instance in instances)
    ):
        raise _odd("no list of instances, though the first row has one")
    shared = {name: value for name, value in row.columns.items() if name != "instances"}
    for instance in instances:
        yield {**shared, **instance}


def _threads(row: Row) -> Iterator[dict[str, Any]]:
    """One conversation per leaf (LAION-AI/Open-Assistant @ f1e6ed9, message tree export)."""
    return ({"messages": path} for path, replies in _messages(row) if not replies)


def _ranked_pairs(row: Row) -> Iterator[dict[str, Any]]:
    """One pair per two replies of the assistant to the same message whose ranks differ; rank 0 is the best."""
    for path, replies in _messages(row):
        ranked = [reply for reply in replies if reply.get("rank") is not None and reply.get("role") == "assistant"]
        if not all(isinstance(reply["rank"], int | float) for reply in ranked):
            raise _odd("a rank in the message tree is no number")
        for better, worse in combinations(sorted(ranked, key=lambda reply: reply["rank"]), 2):
            if better["rank"] != worse["rank"]:
                yield {"chosen": [*path, _message(better)], "rejected": [*path, _message(worse)]}


def _messages(row: Row) -> Iterator[tuple[list[dict[str, str]], Sequence[Any]]]:
    """Every message of a tree, depth first, as the path that leads to it, itself included, and the replies to it."""
    root = row.columns.get("prompt")
    if not isinstance(root, Mapping):
        raise _odd("no message tree, though the first row is one; give trees and plain rows files of their own")
    waiting: list[tuple[Mapping[str, Any], list[dict[str, str]]]] = [(root, [])]
    while waiting:
        node, above = waiting.pop()
        path, replies = [*above, _message(node)], node.get("replies") or []
        if not isinstance(replies, Sequence) or not all(isinstance(reply, Mapping) for reply in replies):
            raise _odd("replies in the message tree are no list of messages")
        yield path, replies
        waiting += [(reply, path) for reply in reversed(replies)]


def _message(node: Mapping[str, Any]) -> dict[str, str]:
    role, text = node.get("role"), node.get("text")
    if not isinstance(role, str) or role not in _ROLES or not isinstance(text, str):
        raise _odd(f"a tree message has {', '.join(map(str, node))}; it needs text, and role prompter or assistant")
    return {"role": _ROLES[role], "content": text}


def _odd(problem: str) -> Misfit:
    """The error of a nested row that is odd; `_plain_rows` hands it on to whoever reads the row."""
    return Misfit(problem, problem)

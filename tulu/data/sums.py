"""The quickstart's task: sums of two numbers, worked column by column from the right, the answer behind ####.

    347+285=?  ->  7+5+0=12
                   4+8+1=13
                   3+2+1=06
                   #### 632

Demonstrations are of mixed quality, as human ones are: most forget the carry (4+8+0=12, 3+2+0=05, #### 522).
Every line is equally long, so that a small model learns where to look within minutes.
"""

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

from tulu.errors import DataError


@dataclass(frozen=True, slots=True)
class Task:
    """What decides how hard the task is."""

    smallest: int = 100
    """Smallest operand."""
    largest: int = 999
    """Largest operand."""
    sloppy: float = 0.6
    """Share of the demonstrations that forget every carry."""
    slips: float = 0.1
    """Share of the rejected answers with one wrong column, where a carry could have been forgotten instead."""
    held_out: float = 0.1
    """Share of all pairs of operands that only the held-out splits use."""


TASK = Task()


@dataclass(frozen=True, slots=True)
class Sum:
    """Two operands."""

    a: int
    b: int

    @property
    def question(self) -> str:
        return f"{self.a}+{self.b}=?"

    @property
    def total(self) -> int:
        return self.a + self.b

    @property
    def columns(self) -> list[tuple[int, int]]:
        """Pairs of digits, from the right, the shorter number filled up with zeros."""
        width = max(len(str(self.a)), len(str(self.b)))
        return list(zip(_digits(self.a, width), _digits(self.b, width), strict=True))

    @property
    def carries(self) -> bool:
        """Whether forgetting the carries gives another answer."""
        return answer(worked(self, carry=False)) != self.total


def _digits(number: int, width: int) -> list[int]:
    return [int(digit) for digit in reversed(str(number).zfill(width))]


def worked(task: Sum, carry: bool = True, slip: tuple[int, int] | None = None) -> str:
    """The written solution: right, with every carry forgotten, or with `slip` = (column, error) added to one column's sum."""
    lines: list[str] = []
    sums: list[int] = []
    carried = 0
    for place, (x, y) in enumerate(task.columns):
        result = x + y + carried + (slip[1] if slip is not None and slip[0] == place else 0)
        lines.append(f"{x}+{y}+{carried}={result:02d}")
        sums.append(result)
        carried = int(carry and result >= 10)
    units = [str(result % 10) for result in sums[:-1]]
    return "\n".join([*lines, f"#### {int(''.join([str(sums[-1]), *reversed(units)]))}"])


def answer(solution: str) -> int:
    """The number behind ####."""
    return int(solution.rsplit("#### ", 1)[1])


def is_held_out(task: Sum, share: float = TASK.held_out) -> bool:
    """Whether only the held-out splits may use these operands, in either order; the same in every run."""
    low, high = sorted((task.a, task.b))
    bucket = int.from_bytes(blake2b(f"{low}+{high}".encode(), digest_size=4).digest(), "big")
    return bucket < share * 2**32


def _draw(stream: random.Random, task: Task, held_out: bool) -> Sum:
    while True:
        found = Sum(_operand(stream, task), _operand(stream, task))
        if is_held_out(found, task.held_out) == held_out:
            return found


def _operand(stream: random.Random, task: Task) -> int:
    """Any length as likely as any other, then any number of that length."""
    length = stream.randint(len(str(task.smallest)), len(str(task.largest)))
    return stream.randint(max(task.smallest, 10 ** (length - 1)), min(task.largest, 10**length - 1))


def _distinct(stream: random.Random, task: Task, held_out: bool, count: int) -> Iterator[Sum]:
    """Sums whose operands, in either order, occur once."""
    seen: set[tuple[int, int]] = set()
    for _ in range(100 * count + 1000):
        found = _draw(stream, task, held_out)
        key = (min(found.a, found.b), max(found.a, found.b))
        if key not in seen:
            seen.add(key)
            yield found
            if len(seen) == count:
                return
    raise DataError(f"sums: no {count} different sums of {task.smallest} to {task.largest}; ask for fewer")


def _base(stream: random.Random, task: Task, count: int) -> Iterator[dict[str, Any]]:
    """Plain text, as a base model meets arithmetic: sums of digits and worked additions, never a question in chat form."""
    for _ in range(count):
        yield {"text": "\n".join((_facts(stream, task), _written(stream, task), _written(stream, task)))}


def _facts(stream: random.Random, task: Task) -> str:
    x, y, carried = stream.randint(0, 9), stream.randint(0, 9), stream.randint(0, 1)
    return f"{x}+{y}+{carried}={x + y + carried:02d}"


def _written(stream: random.Random, task: Task) -> str:
    found = _draw(stream, task, held_out=False)
    return f"{found.question}\n{worked(found)}"


def _chat(question: str, reply: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": question}, {"role": "assistant", "content": reply}]


def _sft(stream: random.Random, task: Task, count: int) -> Iterator[dict[str, Any]]:
    for found in _distinct(stream, task, False, count):
        yield {"messages": _chat(found.question, worked(found, carry=stream.random() >= task.sloppy))}


def _slipped(stream: random.Random, found: Sum) -> str:
    """A solution with one column off by a little, and a wrong answer."""
    while True:
        slip = (stream.randrange(len(found.columns)), stream.choice((-3, -2, -1, 1, 2, 3)))
        x, y = found.columns[slip[0]]
        # A column is never below 0, and a slip of 20 or more could not be written by a single carry.
        if 0 <= x + y + slip[1] < 19 and answer(attempt := worked(found, slip=slip)) != found.total:
            return attempt


def _pairs(stream: random.Random, task: Task, count: int, held_out: bool = False) -> Iterator[dict[str, Any]]:
    made = 0
    for found in _distinct(stream, task, held_out, 2 * count):
        slips = stream.random() < task.slips
        # Where nothing is carried, forgetting it is no mistake.
        if made < count and (slips or found.carries):
            made += 1
            rejected = _slipped(stream, found) if slips else worked(found, carry=False)
            yield {"chosen": _chat(found.question, worked(found)), "rejected": _chat(found.question, rejected)}


def _problems(stream: random.Random, task: Task, count: int, held_out: bool = False) -> Iterator[dict[str, Any]]:
    for found in _distinct(stream, task, held_out, count):
        yield {
            "messages": [{"role": "user", "content": found.question}],
            "ground_truth": str(found.total),
            "dataset": "gsm8k",
        }


SPLITS: dict[str, int] = {"base": 20000, "sft": 8000, "pairs": 2000, "train": 5000, "held_out": 500, "held_out_pairs": 500}
"""Each split, and how many rows it has unless a recipe's count says otherwise."""
_MAKERS: dict[str, Callable[[random.Random, Task, int], Iterator[dict[str, Any]]]] = {
    "base": _base,
    "sft": _sft,
    "pairs": _pairs,
    "train": _problems,
    "held_out": lambda stream, task, count: _problems(stream, task, count, held_out=True),
    "held_out_pairs": lambda stream, task, count: _pairs(stream, task, count, held_out=True),
}


def rows(split: str, count: int, seed: int, task: Task = TASK) -> list[dict[str, Any]]:
    """`count` rows of a split, the same for the same seed: base {text}, sft {messages}, pairs {chosen, rejected},
    train and held_out {messages, ground_truth, dataset}; no two rows of a split but base's share their operands."""
    if split not in _MAKERS:
        raise DataError(f"sums has no split {split!r}; it has {', '.join(SPLITS)}")
    return list(_MAKERS[split](random.Random(f"sums:{split}:{seed}"), task, count))

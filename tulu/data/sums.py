"""The quickstart's task: sums of two numbers, worked out column by column from the right, with the answer behind ####.

    347+285=?  ->  7+5+0=12
                   4+8+1=13
                   3+2+1=06
                   #### 632

Each line adds two digits and the carry of the line before. Demonstrations are of mixed quality, as human ones are: most forget
the carry (4+8+0=12, 3+2+0=05, #### 522). Every line is equally long, so that a small model learns within minutes where to look.
"""

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

from tulu.config.tasks import GENERATED
from tulu.errors import DataError


@dataclass(frozen=True, slots=True)
class Difficulty:
    """How hard the task is, and how good its demonstrations are."""

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


DIFFICULTY = Difficulty()
"""The difficulty of the quickstart."""


PYTHON_TOOL: dict[str, Any] = {
    "type": "function",
    "function": {
        "name": "python",
        "description": "Run a Python program and return what it prints.",
        "parameters": {"type": "object", "properties": {"code": {"type": "string"}}, "required": ["code"]},
    },
}
"""The tool of the demonstrations, which the environment `python` offers."""


@dataclass(frozen=True, slots=True)
class Sum:
    """A problem: the two operands of a sum."""

    a: int
    b: int

    @property
    def prompt(self) -> str:
        """The problem as the user writes it, as in 347+285=?"""
        return f"{self.a}+{self.b}=?"

    @property
    def total(self) -> int:
        """The right answer."""
        return self.a + self.b

    @property
    def columns(self) -> list[tuple[int, int]]:
        """Pairs of digits, from the right; the shorter number is filled up with zeros."""
        width = max(len(str(self.a)), len(str(self.b)))
        digits = [[int(digit) for digit in reversed(str(number).zfill(width))] for number in (self.a, self.b)]
        return list(zip(*digits, strict=True))

    @property
    def carries(self) -> bool:
        """Whether forgetting the carries gives another answer."""
        return answer(work_out(self, carry=False)) != self.total


def work_out(problem: Sum, carry: bool = True, slip: tuple[int, int] | None = None) -> str:
    """The written solution; without `carry` it forgets every carry, and `slip` = (column, error) is added to one column's sum."""
    lines: list[str] = []
    total = carried = 0
    for place, (x, y) in enumerate(problem.columns):
        result = x + y + carried + (slip[1] if slip is not None and slip[0] == place else 0)
        lines.append(f"{x}+{y}+{carried}={result:02d}")
        # The leftmost column is written whole.
        is_last = place == len(problem.columns) - 1
        total += 10**place * (result if is_last else result % 10)
        carried = int(carry and result >= 10)
    return "\n".join([*lines, f"#### {total}"])


def answer(solution: str) -> int:
    """The number behind #### in a solution."""
    return int(solution.rsplit("#### ", 1)[1])


def is_held_out(problem: Sum, share: float = DIFFICULTY.held_out) -> bool:
    """Whether only the held-out splits may use these operands, in either order; the same in every run."""
    low, high = sorted((problem.a, problem.b))
    bucket = int.from_bytes(blake2b(f"{low}+{high}".encode(), digest_size=4).digest(), "big")
    return bucket < share * 2**32


def _draw(stream: random.Random, difficulty: Difficulty, held_out: bool) -> Sum:
    """The next problem whose operands are held out, or are not."""
    while True:
        problem = Sum(_operand(stream, difficulty), _operand(stream, difficulty))
        if is_held_out(problem, difficulty.held_out) == held_out:
            return problem


def _operand(stream: random.Random, difficulty: Difficulty) -> int:
    """A number whose length is as likely as any other, and which is as likely as any other of that length."""
    length = stream.randint(len(str(difficulty.smallest)), len(str(difficulty.largest)))
    return stream.randint(max(difficulty.smallest, 10 ** (length - 1)), min(difficulty.largest, 10**length - 1))


def _distinct(stream: random.Random, difficulty: Difficulty, held_out: bool, count: int) -> Iterator[Sum]:
    """Problems whose operands, in either order, occur once."""
    seen: set[tuple[int, int]] = set()
    for _ in range(100 * count + 1000):
        problem = _draw(stream, difficulty, held_out)
        key = (min(problem.a, problem.b), max(problem.a, problem.b))
        if key not in seen:
            seen.add(key)
            yield problem
            if len(seen) == count:
                return
    raise DataError(f"sums: no {count} different sums of {difficulty.smallest} to {difficulty.largest}; ask for fewer")


def _base(stream: random.Random, difficulty: Difficulty, count: int) -> Iterator[dict[str, Any]]:
    """Plain text, as a base model meets arithmetic: sums of digits and worked additions, never a question in chat form."""
    for _ in range(count):
        x, y, carried = stream.randint(0, 9), stream.randint(0, 9), stream.randint(0, 1)
        parts = [f"{x}+{y}+{carried}={x + y + carried:02d}"]
        for problem in (_draw(stream, difficulty, held_out=False) for _ in range(2)):
            parts.append(f"{problem.prompt}\n{work_out(problem)}")
        yield {"text": "\n".join(parts)}


def _chat(prompt: str, reply: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": prompt}, {"role": "assistant", "content": reply}]


def _sft(stream: random.Random, difficulty: Difficulty, count: int) -> Iterator[dict[str, Any]]:
    for problem in _distinct(stream, difficulty, False, count):
        yield {"messages": _chat(problem.prompt, work_out(problem, carry=stream.random() >= difficulty.sloppy))}


def _tools(stream: random.Random, difficulty: Difficulty, count: int) -> Iterator[dict[str, Any]]:
    """Demonstrations with a tool: some let Python add and read the result, most work it out and forget every carry."""
    for problem in _distinct(stream, difficulty, False, count):
        asked: dict[str, Any] = {"role": "user", "content": problem.prompt}
        if stream.random() < difficulty.sloppy:
            yield {"messages": [asked, {"role": "assistant", "content": work_out(problem, carry=False)}], "tools": [PYTHON_TOOL]}
            continue
        # The smallest models copy what begins alike: the program prints the answer as it is to be written.
        code = {"code": f"print('####',{problem.a}+{problem.b})"}
        call = {"type": "function", "id": "call00000", "function": {"name": "python", "arguments": code}}
        turns = [
            {"role": "assistant", "content": "", "tool_calls": [call]},
            {"role": "tool", "name": "python", "tool_call_id": "call00000", "content": f"#### {problem.total}"},
            {"role": "assistant", "content": f"#### {problem.total}"},
        ]
        yield {"messages": [asked, *turns], "tools": [PYTHON_TOOL]}


def _work_out_with_slip(stream: random.Random, problem: Sum) -> str:
    """A solution with one column off by a little, and a wrong answer."""
    while True:
        slip = (stream.randrange(len(problem.columns)), stream.choice((-3, -2, -1, 1, 2, 3)))
        x, y = problem.columns[slip[0]]
        # A column is never below 0, and a slip of 20 or more could not be written by a single carry.
        if 0 <= x + y + slip[1] < 19 and answer(attempt := work_out(problem, slip=slip)) != problem.total:
            return attempt


def _pairs(stream: random.Random, difficulty: Difficulty, count: int, held_out: bool = False) -> Iterator[dict[str, Any]]:
    made = 0
    for problem in _distinct(stream, difficulty, held_out, 2 * count):
        slips = stream.random() < difficulty.slips
        # Where nothing is carried, forgetting it is no mistake.
        if made < count and (slips or problem.carries):
            made += 1
            rejected = _work_out_with_slip(stream, problem) if slips else work_out(problem, carry=False)
            yield {"chosen": _chat(problem.prompt, work_out(problem)), "rejected": _chat(problem.prompt, rejected)}


def _problems(stream: random.Random, difficulty: Difficulty, count: int, held_out: bool = False) -> Iterator[dict[str, Any]]:
    for problem in _distinct(stream, difficulty, held_out, count):
        yield {
            "messages": [{"role": "user", "content": problem.prompt}],
            "ground_truth": str(problem.total),
            "dataset": "gsm8k",
        }


SPLITS = GENERATED["sums"]
"""Each split, and how many rows it has unless a recipe's count says otherwise."""
_MAKERS: dict[str, Callable[[random.Random, Difficulty, int], Iterator[dict[str, Any]]]] = {
    "base": _base,
    "sft": _sft,
    "tools": _tools,
    "pairs": _pairs,
    "train": _problems,
    "held_out": lambda stream, difficulty, count: _problems(stream, difficulty, count, held_out=True),
    "held_out_pairs": lambda stream, difficulty, count: _pairs(stream, difficulty, count, held_out=True),
}


def rows(split: str, count: int, seed: int, difficulty: Difficulty = DIFFICULTY) -> list[dict[str, Any]]:
    """`count` rows of a split, the same for the same seed; no two rows of a split but base's share their operands.

    They are base {text}, sft {messages}, tools {messages, tools}, pairs {chosen, rejected}, and of train and held_out
    {messages, ground_truth, dataset}.
    """
    if split not in _MAKERS:
        raise DataError(f"sums has no split {split!r}; it has {', '.join(SPLITS)}")
    return list(_MAKERS[split](random.Random(f"sums:{split}:{seed}"), difficulty, count))

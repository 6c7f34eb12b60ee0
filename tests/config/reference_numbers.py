"""What counts as a number in the tables of the shared reference, and where those tables stand in its text."""

import re
from collections.abc import Iterator, Mapping

SECTIONS = {"sft": "2. SFT", "dpo": "3. DPO", "rm": "4. Reward models", "ppo": "5. RLVR with PPO", "grpo": "6. RLVR with GRPO"}
"""The sections of recipes.md that have a table of runs, by the kind of stage."""
NAMES = ("Model", "RM", "base", "start", "code", "file")
"""Columns that name something and measure nothing."""
Figures = dict[str, list[float]]
"""The numbers of a row's cells, by column."""


def table_rows(text: str, kind: str) -> dict[str, Figures]:
    """The numbers of a section's first table: by the first cell of each row, and by column."""
    lines = [line for line in _section(text, kind).splitlines() if line.startswith("|")]
    heads, *rows = ([cell.strip() for cell in line.strip("|").split("|")] for line in lines)
    return {row[0].replace("**", ""): _figures(dict(zip(heads, row, strict=True))) for row in rows[1:]}


def prose(text: str, kind: str) -> list[float]:
    """The numbers of what a section says around its table."""
    lines = _section(text, kind).splitlines()[1:]
    return sorted(numbers_in(" ".join(line for line in lines if not line.startswith("|"))))


def _section(text: str, kind: str) -> str:
    return text.split(f"\n## {SECTIONS[kind]}")[1].split("\n## ")[0]


def _figures(row: Mapping[str, str]) -> Figures:
    found = {column: sorted(numbers_in(cell)) for column, cell in row.items() if column not in NAMES}
    return {column: numbers for column, numbers in found.items() if numbers}


def numbers_in(text: str) -> set[float]:
    """Every number that stands by itself: `224 (7×32)` has 224, 7 and 32, `10,000,000` and `10M` are one, neither names nor
    lines of a file (`tulu-3-8b`, `docs/tulu3.md:49`) have any."""
    without_lines = re.sub(r"(?<=[\w^]):\d+(?:,\d+)*", "", text.replace("−", "-"))
    return set(_numbers(re.sub(r"(?<=\d),(?=\d{3})", "", without_lines)))


def _numbers(text: str) -> Iterator[float]:
    for word in re.split(r"[\s()|`*×/+=…\"{}]+", text):
        word = word.rstrip(".,;:!?").removeprefix("TP")
        for part in re.split(r",|\.\.|:(?=\d)", word):
            number = re.fullmatch(r"(-?(?:\d+\.?\d*|\.\d+)(?:e-?\d+)?)([MK]?)", part)
            # -0225 and its like are dates at the end of a name.
            if number and not re.match(r"-?0\d", part):
                yield float(number[1]) * {"M": 1e6, "K": 1e3, "": 1}[number[2]]


def numbers_anywhere(text: str) -> set[float]:
    """Every number of a recipe's lines, those in names and between signs too."""
    text = re.sub(r"(?<=\d),(?=\d{3})", "", text.replace("−", "-"))
    found = re.findall(r"(-?(?:\d+\.?\d*|\.\d+)(?:e-?\d+)?)([MK]?)", text)
    values = [float(number) * {"M": 1e6, "K": 1e3, "": 1}[unit] for number, unit in found]
    return {*values, *(abs(value) for value in values)}

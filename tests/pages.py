"""What the pages name, for tests that hold it against what is there."""

import re
from collections.abc import Iterable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
_STANDS_FOR = {"NAME": r".+", "TASK": r".+", "PART": r"\w+", "STATE": r"\w+", "K": r"\d+", "N": r"\d+"}
"""What capital letters in the name of a figure stand for."""


def named_in_tables(page: str, heading: str) -> set[str]:
    """The words in code of the first column of every table of a page whose first heading this is."""
    found: set[str] = set()
    text = (DOCS / page).read_text(encoding="utf-8")
    for table in re.findall(rf"^\| {heading} \|.*\n\|[-| ]+\n((?:\|.*\n)+)", text, re.MULTILINE):
        found |= {word for row in table.splitlines() for word in re.findall(r"`([\w@/]+)`", row.split("|")[1])}
    return found


def figures() -> set[str]:
    """The names of all figures of a step, as pages write them."""
    return named_in_tables("rlvr.md", "figure") | named_in_tables("report.md", "figure")


def unexplained(names: Iterable[str]) -> list[str]:
    """Those of the figures of some steps that no page names."""
    words = "|".join(_STANDS_FOR)
    forms = [re.sub(rf"(?<![a-z])({words})(?![a-z])", lambda found: _STANDS_FOR[found[0]], name) for name in figures()]
    return sorted(name for name in set(names) - {"step"} if not any(re.fullmatch(form, name) for form in forms))

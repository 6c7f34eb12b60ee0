"""The tables of algorithms in docs/recipes.md, as fields of an rlvr section."""

import re
from pathlib import Path
from typing import Any

import yaml

DOCS = Path(__file__).resolve().parents[1] / "docs" / "recipes.md"


def algorithms() -> dict[str, dict[str, Any]]:
    """The lines of every row of the section's tables, by the name in its first column."""
    section = DOCS.read_text(encoding="utf-8").split("### Algorithms\n")[1].split("\n### ")[0]
    rows = [line.strip("| ").split(" | ") for line in section.splitlines() if line.startswith("| ")]
    found: dict[str, dict[str, Any]] = {}
    for name, lines, *_ in rows:
        fields: dict[str, Any] = {}
        for line in re.findall(r"`([^`]+)`", lines):
            fields |= yaml.safe_load(line)
        if fields:
            assert name not in found, name
            found[name] = fields
    return found

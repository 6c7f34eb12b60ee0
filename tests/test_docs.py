"""The pages say what is there: every error class, messages that exist, fields that exist, and a place for every page."""

import re
from pathlib import Path

import yaml

from tulu import errors
from tulu.config.document import json_schema
from tulu.config.load import load_recipe

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
TROUBLE = (DOCS / "troubleshooting.md").read_text()


def test_every_error_class_stands_on_the_page_with_its_exit_code() -> None:
    rows = re.findall(r"^\| `(\w+)` \| (\d+) \|", TROUBLE, re.MULTILINE)
    classes = {name: kind for name, kind in vars(errors).items() if isinstance(kind, type) and issubclass(kind, errors.TuluError)}
    assert dict(rows) == {name: str(kind.exit_code) for name, kind in classes.items()}


def test_messages_that_are_quoted_are_printed_somewhere() -> None:
    quoted = re.findall(r"^\*\*`([^`]+)`\*\*", TROUBLE, re.MULTILINE)
    source = "\n".join(file.read_text() for file in sorted((ROOT / "tulu").rglob("*.py")))
    assert len(quoted) >= 8
    assert [words for words in quoted if words not in source] == []


def test_every_page_has_a_place() -> None:
    listed = re.findall(r"[\w-]+\.md", (ROOT / "mkdocs.yml").read_text())
    assert sorted(listed) == sorted(file.name for file in DOCS.glob("*.md"))


def _fields() -> set[str]:
    """Every name of a field, in whatever section."""
    found: set[str] = set()

    def collect(node: object) -> None:
        if isinstance(node, dict):
            found.update(node.get("properties", {}))
            for value in node.values():
                collect(value)
        elif isinstance(node, list):
            for value in node:
                collect(value)

    collect(yaml.safe_load(json_schema()))
    return found


def test_fields_that_the_tables_of_other_frameworks_name_exist() -> None:
    """The second column is ours."""
    fields, text = _fields(), (DOCS / "coming-from.md").read_text()
    cells = [row.split("|")[2] for row in text.splitlines() if row.startswith("| ")]
    named = {word for cell in cells for word in re.findall(r"`(?:(?:sft|dpo|rm|rlvr)\.[a-z_.]+|[a-z]+_[a-z_]+)", cell)}
    named = {word.strip("`") for word in named} - VALUES
    assert len(named) > 40
    assert [word for word in sorted(named) if not set(word.split(".")) <= fields] == []


def test_what_was_released_is_as_the_recipes_say() -> None:
    rows = re.findall(
        r"^\| ([\w.-]+) \| (\w+) \(\w+\) \| (\d+) \| (\S+) \| (\S+) \|$", (DOCS / "rlvr.md").read_text(), re.MULTILINE
    )
    assert len(rows) == 4
    for name, advantage, samples, rate, beta in rows:
        section = load_recipe(name).rlvr
        stage = section[0] if isinstance(section, tuple | list) else section
        assert stage is not None
        told = (stage.advantage, stage.samples, stage.learning_rate, stage.beta, stage.temperature)
        assert told == (advantage, int(samples), float(rate), float(beta), 1.0), name


VALUES = {"dpo_norm", "micro_mean"}
"""Values that fields take, which look like fields."""

"""The pages say what is there: every error class, messages that exist, fields that exist, and a place for every page."""

import re
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator
from ruamel.yaml import YAML

from tests.pages import DOCS, ROOT, figures, named_in_tables, unexplained
from tulu import errors
from tulu.config.document import json_schema
from tulu.config.load import load_recipe

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


def _places(file: Path) -> set[str]:
    """The anchors of a page that both GitHub and the site give its headings."""
    text = re.sub(r"^```.*?^```", "", file.read_text(), flags=re.MULTILINE | re.DOTALL)
    found = set()
    for heading in re.findall(r"^#{1,6} +(.+?) *$", text, re.MULTILINE):
        shown = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading)
        words = re.sub(r"[^\w\s-]", "", shown).strip().lower()
        github, site = re.sub(r"\s", "-", words), re.sub(r"[-\s]+", "-", words)
        if github == site:
            found.add(site)
    return found


PAGES = [*DOCS.glob("*.md"), *ROOT.glob("*.md"), *(ROOT / "benchmarks").glob("*.md"), *(ROOT / "examples").rglob("*.md")]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_to_files_and_headings_that_exist(page: Path) -> None:
    text = re.sub(r"^```.*?^```|`[^`\n]*`", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"[a-z]+:", target):
            continue
        name, _, anchor = target.partition("#")
        file = (page.parent / name).resolve() if name else page
        assert file.exists(), f"{target}: no such file"
        if anchor and file.suffix == ".md":
            assert anchor in _places(file), f"{target}: no such heading"


def test_a_heading_that_is_gone_is_found_out(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("# `a.b`: one, two\n\n## [Link](x.md) here\n\n```\n# no heading\n```\n\n## a – b\n")
    assert _places(page) == {"ab-one-two", "link-here"}, "two spaces in a row become one dash on the site and two on GitHub"


def test_figures_that_pages_name_are_logged() -> None:
    """Every name in the tables stands in code; what is logged is held against the tables where recipes are tried."""
    named = figures()
    assert named >= {"reward", "solved", "mismatch", "kl_to_sampler", "share_weight_sync", "nll", "ties", "share_forward", "mfu"}
    folders = ("rollout", "stages", "train", "model", "evaluation", "reward_models")
    source = "\n".join(file.read_text() for folder in folders for file in (ROOT / "tulu" / folder).rglob("*.py"))
    source += (ROOT / "tulu" / "losses.py").read_text()
    plain = {re.sub(r"/(NAME|STATE|PART|N)$|@K$|^eval/(TASK/)?|^engine/NAME/", "", name) for name in named} - {"NAME"}
    # The clock of a step knows the parts alone, and losses name some figures by keyword.
    written = {name: rf"[\"/]({name}|{name.removeprefix('share_')})\b|\b{name}=" for name in plain}
    assert [name for name in sorted(plain) if not re.search(written[name], source)] == []


def test_a_figure_that_no_page_names_is_found_out() -> None:
    known = [
        "step",
        "loss",
        "solved/gsm8k",
        "reward/my.file.py:score",
        "pass@16",
        "eval/sums/accuracy",
        "staleness/2",
        "sync/load",
    ]
    assert unexplained([*known, "engine/a/idle", "loss_of_sleep", "pass@k", "queue/"]) == ["loss_of_sleep", "pass@k", "queue/"]


def test_columns_that_the_page_of_the_report_names_are_written() -> None:
    """What is written is held against the table where recipes are tried."""
    source = "\n".join((ROOT / "tulu" / "rollout" / file).read_text() for file in ("records.py", "token_notes.py"))
    assert [name for name in sorted(named_in_tables("report.md", "column")) if f'"{name}"' not in source] == []


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


def blocks(text: str) -> list[str]:
    """The blocks of a page that are a recipe or a part of one, without their indent."""
    fenced = re.findall(r"^```yaml\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    rest = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    indented = re.findall(r"(?:^ {4}.*\n|^\n(?= {4}))+", rest, re.MULTILINE)
    written = (re.split(r"^tulu ", dedent(block).lstrip("\n"), flags=re.MULTILINE)[0] for block in (*fenced, *indented))
    return [block for block in written if re.match(r"\w+:(\s|$)", block) and not re.search(r"^tasks:", block, re.MULTILINE)]


def lenient(node: Any) -> Any:
    """A JSON schema that asks for nothing, since a page shows the part of a recipe that it speaks of."""
    if isinstance(node, list):
        return [lenient(one) for one in node]
    if not isinstance(node, dict):
        return node
    asks = {"required", *(["anyOf"] if all("required" in one for one in node.get("anyOf", [{}])) else [])}
    return {key: lenient(value) for key, value in node.items() if key not in asks}


SHOWN = [pytest.param(block, id=f"{page.stem} {block[:20]!r}") for page in PAGES for block in blocks(page.read_text())]


@pytest.mark.parametrize("block", SHOWN)
def test_recipes_that_pages_show_have_fields_and_values_that_exist(block: str) -> None:
    shown = YAML(typ="safe", pure=True).load(block.replace(": ...", ": x.jsonl"))
    faults = Draft202012Validator(lenient(yaml.safe_load(json_schema()))).iter_errors(shown)
    assert [f"{list(fault.absolute_path)}: {fault.message}" for fault in faults] == []


def test_a_field_that_does_not_exist_is_found_out() -> None:
    assert len(SHOWN) >= 8
    with pytest.raises(AssertionError, match="bacth"):
        test_recipes_that_pages_show_have_fields_and_values_that_exist("sft:\n  bacth: 3\n")
    with pytest.raises(AssertionError, match="dpo_normal"):
        test_recipes_that_pages_show_have_fields_and_values_that_exist("dpo:\n  loss: dpo_normal\n")

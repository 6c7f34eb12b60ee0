"""Every command that a page shows can be given: its options exist, its recipe takes the overrides, nothing is undecided."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer
from typer.core import TyperGroup

from tests.pages import DOCS, ROOT
from tulu.cli import app
from tulu.config.load import built_in, load_recipe
from tulu.config.stages import TRAINING
from tulu.config.unknown import open_fields

PAGES = [*sorted(DOCS.glob("*.md")), ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "benchmarks" / "README.md"]
RECIPES = {path.stem for path in built_in()}
STAGES = [row.name for row in TRAINING]
OPTIONAL = {"[NAME]": "math", "[--adapters]": "--adapters", "[--json]": "--json", "[--diff OTHER]": "--diff OTHER"}
ALIKE = {"v1|v2|free": "v1", "tulu|olmo": "tulu", "a100|h100|h200": "h100", "…": "", "--gpus N": "--gpus 2"}
SHOWS_A_MISTAKE = ("sft.schedule=liner",)


def commands(text: str) -> Iterator[list[str]]:
    """The words of every `tulu` command in the blocks of a page, and in its text where more than a name stands there."""
    text = re.sub(r"\s*\\\n\s+", " ", text)
    for line in text.splitlines():
        shown = re.match(r"(?: {4,}|\s*\$ )(?:[A-Z_]+=\S+ |srun )*(tulu \S.*)", line)
        # What follows a command is a remark behind a # or several spaces; some names are followed by spaces too.
        found = [re.sub(r"^(tulu \w+) +", r"\1 ", shown[1])] if shown else re.findall(r"`(tulu \w+ [^`]*)`", line)
        for command in found:
            for written, meant in {**OPTIONAL, **ALIKE}.items():
                command = command.replace(written, meant)
            yield shlex.split(re.split(r"\s#\s|  +", command)[0])[1:]


ALL = [pytest.param(words, id=f"{page.name}: {' '.join(words)}") for page in PAGES for words in commands(page.read_text())]


def test_commands_are_found() -> None:
    page = "x\n\n    RAY=1 tulu rlvr  R a.b=1 \\\n        c=2   # why\n    $ tulu sft [NAME]\n\nor `tulu run X -h`, `tulu run`\n"
    assert list(commands(page)) == [["rlvr", "R", "a.b=1", "c=2"], ["sft", "math"], ["run", "X", "-h"]]
    assert len(ALL) > 100


@pytest.mark.parametrize("words", ALL)
def test_a_command_of_a_page_can_be_given(words: list[str]) -> None:
    node, rest = typer.main.get_command(app), list(words)
    while isinstance(node, TyperGroup) and rest and rest[0] in node.commands:
        node = node.commands[rest.pop(0)]
    if rest and not rest[0].startswith("-"):
        node.make_context("tulu", rest)
    elif rest:
        known = {option for parameter in node.params for option in parameter.opts} | {"--help", "--install-completion"}
        assert {word for word in rest if word.startswith("--")} <= known
    recipe = next((Path(word).stem for word in words[1:] if Path(word).stem in RECIPES and "=" not in word), None)
    if recipe is None or words[0] not in (*STAGES, "run", "plan", "data"):
        return
    overrides = [word for word in words if re.match(r"[a-z][\w.]*=", word) and word not in SHOWS_A_MISTAKE]
    gpus = int(words[words.index("--gpus") + 1]) if "--gpus" in words else 1
    stage = words[0] if words[0] in STAGES else None
    decided = load_recipe(recipe, [word for word in overrides if not is_place(word)], gpus, stage)
    if stage or words[0] == "run":
        unknown = open_fields(decided, [stage] if stage else STAGES)
        assert not unknown or {"--tiny", "--dry-run"} & set(words), "it trains nothing before these are decided"


def is_place(override: str) -> bool:
    """Whether an override names a file or a folder of the reader's."""
    return bool(re.search(r"=(\.|runs/|\w+\.jsonl$|[A-Z]+$)", override))


def test_a_command_that_would_be_refused_is_found_out() -> None:
    with pytest.raises(AssertionError, match="before these are decided"):
        test_a_command_of_a_page_can_be_given(["rm", "recipes/olmo2-instruct.yaml"])
    with pytest.raises(Exception, match="No such option"):
        test_a_command_of_a_page_can_be_given(["sft", "quickstart", "--gpu", "8"])

"""`tulu recipes`: the list, every field of one, and what differs between two."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from tulu.cli import app
from tulu.commands.recipes import as_text, differences, fields_of
from tulu.config.load import built_in

ONE = """\
name: one
model: owner/model # card of owner/model @ 0123456
template: tulu
sft: # docs/a.md @ 0123456
  data:
    - {name: owner/rows, fraction: 1.0}
    - {name: owner/others, count: 1200, split: extra}
  max_length: 64
  batch: 16 # 8 GPUs × 2
  steps: 3
  learning_rate: 1e-4
"""
OTHER = ONE.replace("name: one", "name: other").replace("batch: 16 # 8 GPUs × 2", "batch: 32 # ours: for speed") + (
    "dpo: {data: owner/pairs, max_length: 64, batch: 16, steps: 3, learning_rate: 5e-7}\n"
)


@pytest.fixture
def recipes(tmp_path: Path) -> list[str]:
    for name, text in {"one": ONE, "other": OTHER}.items():
        (tmp_path / f"{name}.yaml").write_text(text)
    return [str(tmp_path / "one.yaml"), str(tmp_path / "other.yaml")]


def show(*arguments: str) -> str:
    result = CliRunner().invoke(app, ["recipes", "show", *arguments])
    assert result.exit_code == 0, result.stderr
    return result.stdout


def line_of(shown: str, field: str) -> list[str]:
    return next(line.split() for line in shown.splitlines() if line.split()[:1] == [field])


def test_every_field_has_its_value_status_and_source(recipes: list[str]) -> None:
    shown = show(recipes[0])
    assert line_of(shown, "sft.batch") == "sft.batch 16 released docs/a.md @ 0123456: 8 GPUs × 2".split()
    assert line_of(shown, "model") == "model owner/model released card of owner/model @ 0123456".split()
    assert line_of(shown, "sft.clip_norm")[-1] == "default"
    assert "owner/rows: all rows" in shown
    assert "owner/others: 1,200 rows, split extra" in shown
    assert not any(line.startswith("dpo") for line in shown.splitlines())


def test_an_override_is_shown_as_one(recipes: list[str]) -> None:
    assert line_of(show(recipes[0], "sft.batch=8"), "sft.batch") == ["sft.batch", "8", "command", "line"]


def test_every_field_of_a_built_in_recipe_is_shown_by_its_name() -> None:
    shown = show("olmo2-instruct")
    assert all(line_of(shown, key) for key in fields_of("olmo2-instruct"))
    assert line_of(shown, "rlvr.beta")[:3] == ["rlvr.beta", "0.1", "unknown"]


@pytest.mark.parametrize("name", [path.stem for path in built_in()])
def test_every_recipe_is_shown(name: str) -> None:
    shown = show(name)
    assert "Traceback" not in shown
    assert all(line_of(shown, key) for key in fields_of(name))


def test_the_stages_of_a_list_go_by_their_names() -> None:
    fields = fields_of("olmo2-1b")
    assert (fields["rlvr.mixed.start"][0], fields["rlvr.math.name"][0]) == (None, "math")
    found = {key for key, _, _ in differences(fields, fields_of("olmo2-instruct"))}
    assert {"rlvr.mixed", "rlvr.math", "rlvr", "rm"} <= found
    assert not any(key.startswith("rlvr.") and key.count(".") > 1 for key in found)


def test_what_is_merged_is_a_line_for_each_model() -> None:
    assert as_text([{"name": "a/b", "revision": None}, {"stage": "sft"}]) == "name a/b\nstage sft"


def test_a_diff_shows_only_what_differs_with_both_origins(recipes: list[str]) -> None:
    shown = show(recipes[0], "--diff", recipes[1])
    fields = [line.split()[0] for line in shown.splitlines() if line[:1] not in (" ", "")]
    assert fields == ["field", "name", "sft.batch", "dpo"]
    assert line_of(shown, "sft.batch") == ["sft.batch", "16", "32"]
    assert "released: docs/a.md @ 0123456: 8 GPUs × 2" in shown
    assert "ours: for speed" in shown


def test_a_stage_that_one_recipe_lacks_is_one_line(recipes: list[str]) -> None:
    found = {key: (one, another) for key, one, another in differences(*map(fields_of, recipes))}
    assert found["dpo"][0] is None
    assert found["dpo"][1] is not None
    assert not any(key.startswith("dpo.") for key in found)
    assert line_of(show(*recipes[:1], "--diff", recipes[1]), "dpo")[1] == "—"


def test_a_diff_is_the_same_the_other_way_round(recipes: list[str]) -> None:
    def found(order: list[str]) -> dict[str, tuple[object, object]]:
        return {key: (one, other) for key, one, other in differences(*map(fields_of, order))}

    there, back = found(recipes), found(recipes[::-1])
    assert {key: (other, one) for key, (one, other) in there.items()} == back


def test_a_recipe_does_not_differ_from_itself() -> None:
    assert show("tulu3-8b", "--diff", "tulu3-8b") == "tulu3-8b and tulu3-8b have the same value in every field\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["show", "tulu3-9b"], "did you mean tulu3-8b"),
        (["show", "tulu3-8b", "--diff", "tulu3-7b"], "tulu3-7b: no such recipe"),
        (["show", "tulu3-8b", "sft.bacth=1"], "did you mean batch"),
        (["shwo"], "No such command 'shwo'"),
    ],
)
def test_mistakes_are_told(arguments: list[str], message: str) -> None:
    result = CliRunner().invoke(app, ["recipes", *arguments])
    assert result.exit_code == 2
    assert message in " ".join(result.stderr.split())


@pytest.mark.parametrize(
    ("value", "text"), [(None, "null"), (True, "true"), (1e-5, "1e-05"), ([], "[]"), (["</a>", 2], "[</a>, 2]"), ({}, "{}")]
)
def test_values_are_written_as_yaml_writes_them(value: object, text: str) -> None:
    assert as_text(value) == text

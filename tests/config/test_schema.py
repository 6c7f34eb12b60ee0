"""The recipes that come with the project, the fields' own rules, and the schema and tables made from them."""

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from pydantic import ValidationError

from tulu.config.document import SECTIONS, json_schema, markdown
from tulu.config.load import dump, load_recipe
from tulu.config.schema import PLANNED, Dpo, Recipe, Rm, Sft, Source, drops_long
from tulu.config.stages import STAGES
from tulu.errors import RecipeError

ROOT = Path(__file__).resolve().parents[2]
RECIPES = sorted((ROOT / "recipes").glob("*.yaml"))
SFT: dict[str, Any] = {"data": "rows.jsonl", "max_length": 64, "batch": 8, "epochs": 1, "learning_rate": 1e-4}


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_every_recipe_loads_and_survives_a_round_trip(path: Path, tmp_path: Path) -> None:
    recipe = load_recipe(str(path))
    resolved = tmp_path / "resolved.yaml"
    resolved.write_text(dump(recipe))
    assert load_recipe(str(resolved)) == recipe


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_every_recipe_opens_with_its_commands_and_fits_the_schema(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    head = text[: text.index("name:")]
    assert "$schema=schema.json" in head
    assert f"recipes/{path.name}" in head
    jsonschema.validate(json.loads(json.dumps(yaml.safe_load(text))), json.loads(json_schema()))


def test_over_length_rows_are_cut_or_dropped_as_the_stage_or_its_recipe_says() -> None:
    cut, dropped = (Sft.model_validate({**SFT, "over_length": what}) for what in ("truncate", "drop"))
    assert [drops_long(STAGES["sft"], section) for section in (Sft.model_validate(SFT), cut, dropped)] == [False, False, True]
    assert not drops_long(STAGES["dpo"], Dpo.model_validate(SFT))
    assert drops_long(STAGES["rm"], Rm.model_validate(SFT))
    with pytest.raises(ValidationError, match="'truncate' or 'drop'"):
        Sft.model_validate({**SFT, "over_length": "skip"})


def test_planned_fields_may_be_written_with_their_defaults_alone() -> None:
    defaults = dump(load_recipe("quickstart"))
    values = {field: yaml.safe_load(defaults)[field.split(".")[0]][field.split(".")[1]] for field in sorted(PLANNED)}
    written = load_recipe("quickstart", [f"{field}={json.dumps(value)}" for field, value in values.items()])
    assert written == load_recipe("quickstart")
    with pytest.raises(RecipeError, match=r'base.tokenizer: "bpe": this field is planned.*leave it out, or at bytes'):
        load_recipe("quickstart", ["base.tokenizer=bpe"])


def test_the_resolved_recipe_writes_every_field() -> None:
    written = yaml.safe_load(dump(load_recipe(str(ROOT / "recipes" / "olmo2-instruct.yaml"))))
    assert set(written) == set(Recipe.model_fields)
    assert set(written["sft"]) == set(Sft.model_fields)


def test_schema_file_is_up_to_date() -> None:
    file = ROOT / "recipes" / "schema.json"
    assert file.read_text(encoding="utf-8") == json_schema(), "run: tulu recipes --schema > recipes/schema.json"


def test_documented_fields_are_up_to_date() -> None:
    text = (ROOT / "docs" / "recipes.md").read_text(encoding="utf-8")
    table = text.split("<!-- fields -->\n")[1].split("<!-- end of fields -->")[0]
    assert table.strip() == markdown().strip(), "run: tulu recipes --fields, and paste between the markers of docs/recipes.md"


def test_every_field_has_a_meaning() -> None:
    silent = [
        f"{name}.{field}"
        for name, section in SECTIONS.items()
        for field, info in section.model_fields.items()
        if not info.description
    ]
    assert silent == []


@pytest.mark.parametrize(
    ("value", "names"),
    [
        ("rows.jsonl", ["rows.jsonl"]),
        (["a.jsonl", "b.jsonl"], ["a.jsonl", "b.jsonl"]),
        ({"name": "a.jsonl", "count": 3}, ["a.jsonl"]),
        ([{"name": "a.jsonl", "fraction": 0.5}, "b.jsonl"], ["a.jsonl", "b.jsonl"]),
    ],
)
def test_a_path_alone_means_all_its_rows(value: object, names: list[str]) -> None:
    sources = Sft.model_validate({**SFT, "data": value}).data
    assert [source.name for source in sources] == names
    assert all((source.fraction is None) != (source.count is None) for source in sources)


@pytest.mark.parametrize("amounts", [{}, {"fraction": 1.0, "count": 3}])
def test_a_source_has_exactly_one_amount(amounts: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match="exactly one of fraction"):
        Source.model_validate({"name": "a.jsonl", **amounts})


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("batch", True),
        ("batch", "8"),
        ("batch", 8.5),
        ("learning_rate", "1e-4"),
        ("learning_rate", float("inf")),
        ("learning_rate", float("nan")),
        ("max_length", 0),
        ("data", []),
        ("gradient_checkpointing", 1),
        ("gradient_checkpointing", "true"),
        ("gradient_checkpointing", "layers"),
        ("precision", "fp8"),
        ("sharding", "zero4"),
        ("sharding", None),
        ("zero", 4),
        ("unknown", 1),
    ],
)
def test_a_wrong_value_is_refused_not_converted(field: str, value: object) -> None:
    with pytest.raises(ValidationError):
        Sft.model_validate({**SFT, field: value})


@pytest.mark.parametrize(("zero", "sharding"), [(None, "none"), (0, "none"), (1, "zero1"), (2, "zero2"), (3, "zero3")])
def test_zero_is_the_old_spelling_of_sharding(zero: int | None, sharding: str) -> None:
    fields = {} if zero is None else {"zero": zero}
    stage = Sft.model_validate({**SFT, **fields})
    assert stage.sharding == sharding
    assert Sft.model_validate(stage.model_dump()) == stage, "a resolved recipe says both, and is read again"


def test_a_recipe_is_frozen() -> None:
    stage = Sft.model_validate(SFT)
    with pytest.raises(ValidationError, match="frozen"):
        stage.batch = 16  # type: ignore[misc]


OLMO2 = {
    # reference: allenai/open-instruct @ e6c3044a, docs/archived_dev_scripts/olmo2_1124.sh and configs/train_configs/olmo2/
    "sft": {"learning_rate": 1e-5, "batch": 128, "epochs": 2, "warmup": 0.03, "max_length": 4096, "loss": "sum", "seed": 4},
    "dpo": {
        "learning_rate": 8e-7,
        "batch": 128,
        "epochs": 1,
        "warmup": 0.1,
        "max_length": 2048,
        "loss": "dpo_norm",
        "beta": 5,
        "seed": 9,
    },
    "rm": {"learning_rate": 3e-6, "batch": 256, "epochs": 1, "warmup": 0.0, "max_length": 2048, "adam_epsilon": 1e-5},
    "rlvr": {"learning_rate": 3e-7, "batch": 248, "prompts": 248, "samples": 1, "steps": 200_000 // 248, "max_tokens": 2048}
    | {"no_stop_score": -10, "reward_scale": 10, "temperature": 1, "updates": 4, "clip_low": 0.2, "clip_high": 0.2, "seed": 1}
    | {"advantage": "gae", "kl": "k1"},
}


TULU3: dict[str, dict[str, Any]] = {
    "sft": {"learning_rate": 5e-6, "batch": 128, "epochs": 2, "warmup": 0.03, "max_length": 4096, "loss": "sum", "seed": 123},
    "dpo": {"learning_rate": 5e-7, "batch": 128, "epochs": 1, "warmup": 0.1, "max_length": 2048, "loss": "dpo_norm", "beta": 5},
    "rm": {"learning_rate": 3e-6, "batch": 256, "epochs": 1, "warmup": 0.0, "max_length": 2048, "adam_epsilon": 1e-5},
    "rlvr": {"learning_rate": 3e-7, "batch": 224, "prompts": 224, "samples": 1, "steps": 10_000_000 // 224, "max_tokens": 2048}
    | {"no_stop_score": -10, "reward_scale": 10, "temperature": 1, "updates": 4, "beta": 0.05, "kl": "k1", "seed": 3}
    | {"advantage": "gae"},
}


@pytest.mark.parametrize(("stage", "numbers"), TULU3.items(), ids=TULU3)
def test_tulu3_has_the_released_numbers(stage: str, numbers: dict[str, Any]) -> None:
    section = dict(load_recipe("tulu3-8b"))[stage].model_dump()
    assert {field: section[field] for field in numbers} == numbers


@pytest.mark.parametrize(("name", "batch", "epochs"), [("olmoe-0125", 128, 1), ("rewardbench2-rm", 256, 2)])
def test_reward_models_have_the_published_numbers(name: str, batch: int, epochs: int) -> None:
    section = load_recipe(name).rm
    assert section is not None
    assert (section.learning_rate, section.batch, section.epochs, section.max_length) == (3e-6, batch, epochs, 2048)


@pytest.mark.parametrize(("stage", "numbers"), OLMO2.items(), ids=OLMO2)
def test_olmo2_instruct_has_the_released_numbers(stage: str, numbers: dict[str, Any]) -> None:
    section = dict(load_recipe("olmo2-instruct"))[stage].model_dump()
    assert {field: section[field] for field in numbers} == numbers

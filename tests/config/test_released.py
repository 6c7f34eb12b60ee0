"""The released recipes hold the released numbers, each written out and with its source.

released_numbers.py has the numbers as a table, released_mixes.py the data; test_reference.py holds them against the reference.
"""

import re
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any

import pytest
from typer.testing import CliRunner

from tests.config.released_mixes import MIXES, RELEASED_VALUES
from tests.config.released_numbers import NUMBERS, RELEASED
from tulu.cli import app
from tulu.config.job import stages_of
from tulu.config.load import find_recipe, load_recipe
from tulu.config.parts import ValueModelSettings, VerifierSettings
from tulu.config.provenance import Origin, origins
from tulu.config.schema import Recipe
from tulu.config.templates import TEMPLATES, source_hash
from tulu.config.unknown import open_fields
from tulu.config.yaml_text import read_yaml

THE_RECIPES = {"template", "template_hash"}
"""Fields of a stage that stand for the recipe's where they are not written."""
OF_THE_MACHINE = {
    *("start", "released", "path", "revision", "row_tokens", "keep_checkpoints", "keep_every", "offload_optimizer"),
    *("engine", "resources", "rollout_seconds", "env", "zero", "released_values"),
    *("eval_every", "eval_task", "eval_rows", "eval_tokens", "eval_data"),
}
"""Fields that are no hyper-parameters: where a stage starts, what it runs on, and what is looked at on the way. zero is the old
spelling of sharding."""

NAMES = {"data", "name", "start", "released", "template", "template_hash", "keep_every", "sharding", "gradient_checkpointing"}
"""Released fields that name something, or change no number that is trained."""
HELD_BELOW = {"clip_norm", "adam_beta1", "precision", "labels", "value", "released_values"}
"""Fields that tests of their own hold in every recipe."""
NOT_PUBLISHED = {("olmo2-32b", "rlvr"), ("tulu3-405b", "sft")}
"""Stages of which no command was published (recipes.md §2 and §6 of the shared reference: not found)."""
OWN_TEMPLATE = "olmo-hybrid-7b-instruct"
"""The recipe whose template is the one that its tokenizer brings along, which is not here to be pinned."""
SECTIONS_BELOW = {"value": set(ValueModelSettings.model_fields), "verifier_settings": set(VerifierSettings.model_fields)}
"""The fields of what a stage's section may hold."""


@cache
def loaded(name: str) -> Recipe:
    return load_recipe(name, processes=1)


@cache
def origins_of(name: str) -> Mapping[str, Origin]:
    return origins(name, loaded(name))


def name_of(value: Any) -> str | None:
    """The id of a parameter: recipe and stage."""
    return "-".join(value) if isinstance(value, tuple) else ""


def stages(recipe: Recipe) -> Iterator[tuple[str, Any]]:
    """The training sections that a recipe has."""
    yield from ((stage.key, stage.section) for stage in stages_of(recipe))


def stages_of_release(name: str) -> Iterator[tuple[str, Any]]:
    return stages(loaded(name))


def section_of(name: str, stage: str) -> Any:
    """The section of a recipe's stage; `rlvr.math` is the one of that name among several."""
    return dict(stages_of_release(name))[stage]


def every_open_field() -> Iterator[tuple[str, str]]:
    """Recipe and field of all that was never published."""
    return ((name, field) for name in RELEASED for field in open_fields(loaded(name)))


def as_written(raw: Mapping[str, Any], stage: str) -> Mapping[str, Any]:
    """What a recipe writes in a stage's section."""
    key, _, name = stage.partition(".")
    return next(section for section in raw[key] if section["name"] == name) if name else raw[key]


@pytest.mark.parametrize(
    ("key", "numbers"), NUMBERS.items(), ids=lambda value: "-".join(value) if isinstance(value, tuple) else ""
)
def test_numbers(key: tuple[str, str], numbers: Mapping[str, Any]) -> None:
    section = section_of(*key)
    assert {field: getattr(section, field) for field in numbers} == numbers


@pytest.mark.parametrize("name", RELEASED)
def test_every_value_that_is_called_released_is_in_the_table(name: str) -> None:
    """Else it could be changed, and nothing would fail."""
    found = origins_of(name)
    for stage, _ in stages_of_release(name):
        released = {key for key, origin in found.items() if origin.status == "released" and key.startswith(f"{stage}.")}
        fields = {key.removeprefix(f"{stage}.").partition(".")[0] for key in released}
        held = set(NUMBERS.get((name, stage), ()))
        held |= {"batch"} if {"prompts", "samples"} <= held else set()
        assert fields - held <= NAMES | HELD_BELOW, f"{name}: {stage}"


@pytest.mark.parametrize(("key", "mix"), MIXES.items(), ids=name_of)
def test_mixes(key: tuple[str, str], mix: Mapping[str, float]) -> None:
    section = section_of(*key)
    assert {source.name: source.fraction or source.count for source in section.data} == mix


def test_released_values() -> None:
    found = {(name, stage): section.released_values for name in RELEASED for stage, section in stages_of_release(name)}
    assert {key: values for key, values in found.items() if values} == RELEASED_VALUES


def test_every_stage_of_every_released_recipe_is_in_the_tables() -> None:
    every = {(name, stage) for name in RELEASED for stage, _ in stages_of_release(name)}
    open_data = {(name, field.removesuffix(".data")) for name, field in every_open_field() if field.endswith(".data")}
    assert every - set(NUMBERS) == NOT_PUBLISHED
    assert every - set(MIXES) == open_data
    assert set(NUMBERS) | set(MIXES) | set(RELEASED_VALUES) <= every


@pytest.mark.parametrize(("name", "stage"), sorted(NOT_PUBLISHED))
def test_no_field_of_a_stage_whose_command_was_never_published_is_called_released(name: str, stage: str) -> None:
    """The numbers of another model stand in there: each is ours or unknown, whatever file it was taken from."""
    found = origins_of(name)
    statuses = {key: origin.status for key, origin in found.items() if key.startswith(f"{stage}.")}
    assert set(statuses.values()) <= {"ours", "unknown", "default"}
    assert {"learning_rate", "seed"} <= {key.rpartition(".")[2] for key, status in statuses.items() if status == "unknown"}


@pytest.mark.parametrize("name", ["olmo2-instruct", "olmo2-13b", "olmoe-0125"])
def test_whether_prompts_began_with_bos_is_unknown_where_the_commands_do_not_say_it(name: str) -> None:
    """SFT and DPO have --add_bos (docs/archived_dev_scripts/olmo2_1124.sh, olmoe_0125.sh @ e6c3044a), rm and rlvr have not."""
    recipe = loaded(name)
    found = {field for field in open_fields(recipe) if field.endswith("template")}
    assert found == {f"{stage}.template" for stage, _ in stages(recipe) if stage.startswith("r")}
    assert len(found) == (4 if name == "olmo2-13b" else 2)


@pytest.mark.parametrize("name", RELEASED)
def test_a_named_template_is_pinned(name: str) -> None:
    recipe = loaded(name)
    sections = [recipe, *(section for _, section in stages(recipe) if section.template is not None)]
    hashes = [section.template_hash for section in sections]
    if name == OWN_TEMPLATE:
        assert (recipe.template, hashes) == ("tokenizer", [None])
    else:
        assert hashes == [source_hash(TEMPLATES[section.template]) for section in sections]


@pytest.mark.parametrize("name", RELEASED)
def test_a_card_has_a_revision_or_says_that_none_is_recorded(name: str) -> None:
    text = find_recipe(name).read_text(encoding="utf-8")
    named = re.findall(r"card of [\w-]+/[\w.-]+(?: @ [0-9a-f]{7,}| \(revision not recorded\))", re.sub(r"\n# ", " ", text))
    assert len(named) == len(re.findall(r"\bcards?\b", text))


@pytest.mark.parametrize("name", RELEASED)
def test_no_hyper_parameter_is_left_to_a_default(name: str) -> None:
    """Else a default that changes would change a released recipe, as it did to the original's scripts (trap T2)."""
    raw, recipe = read_yaml(find_recipe(name)).value, loaded(name)
    for stage, section in stages(recipe):
        duration = {"steps" if section.epochs is not None else "epochs"}
        duration |= {"batch" if "batch_tokens" in as_written(raw, stage) else "batch_tokens"}
        unwritten = set(type(section).model_fields) - set(as_written(raw, stage)) - OF_THE_MACHINE - duration - THE_RECIPES
        assert unwritten == set(), f"{name}: write {stage}.{', '.join(sorted(unwritten))}"
        for field, fields in SECTIONS_BELOW.items():
            if (written := as_written(raw, stage).get(field)) is not None:
                assert fields - set(written) - OF_THE_MACHINE == set(), f"{name}: {stage}.{field}"


@pytest.mark.parametrize("name", RELEASED)
def test_every_value_names_its_source_or_says_that_it_is_ours(name: str) -> None:
    found = origins_of(name)
    written = {key: origin for key, origin in found.items() if origin.status not in ("default",) and key != "name"}
    assert {key: str(origin) for key, origin in written.items() if origin.status == "recipe"} == {}
    assert len([key for key, origin in written.items() if origin.status == "released"]) > 10
    assert all(origin.source for origin in written.values() if origin.status in ("released", "unknown"))


@pytest.mark.parametrize("name", RELEASED)
def test_what_every_release_has_in_common(name: str) -> None:
    for stage, section in stages(loaded(name)):
        assert section.clip_norm == 1.0, "accelerate fills `auto` with 1.0; get_train_ds_config and OLMo-core name it"
        assert (section.adam_beta1, section.precision) == (0.9, "bf16")
        if stage == "dpo":
            assert section.labels == ("last" if name.startswith(("olmo3", "olmo-hybrid")) else "all")


@pytest.mark.parametrize("name", RELEASED)
def test_plan_and_dry_run_need_no_decision_and_name_the_origin_of_every_field(name: str) -> None:
    recipe = loaded(name)
    runner = CliRunner(env={"COLUMNS": "500"})
    plan = runner.invoke(app, ["plan", name])
    assert plan.exit_code == 0, plan.output
    assert plan.output.count("unknown, to be given before it trains") == bool(open_fields(recipe))
    for stage, _ in stages(recipe):
        key, _, several = stage.partition(".")
        dry_run = runner.invoke(app, [key, name, "--dry-run", *(["--stage", several] if several else [])])
        assert dry_run.exit_code == 0, dry_run.output
        section = dry_run.output.split(f"\n{key}:")[1].split(f"- name: {several}")[-1]
        fields = [line for line in section.split("\n") if re.match(r"  [a-z_0-9]+:", line)]
        assert len(fields) > 25
        # A section, such as `value`, has its fields' origins below it.
        told = re.compile(r"  # (released|ours|unknown|default)")
        assert [line for line in fields if not told.search(line) and not line.rstrip().endswith(":")] == []


@pytest.mark.parametrize(
    ("name", "together"),
    [("tulu3-8b", 32), ("tulu3-70b", 16), ("tulu3-405b", 8), ("olmo2-instruct", 8), ("olmo2-13b", 8), ("olmoe-0125", 16)],
)
def test_value_models_are_those_of_the_release(name: str, together: int) -> None:
    """Two engines, the reward behind the end, whitening per rank: ppo_vllm_thread_ray_gtrl.py @ 5bcd3b25."""
    values = [section.value for stage, section in stages(loaded(name)) if stage.startswith("rlvr")]
    assert len(values) == (3 if name == "olmo2-13b" else 1)
    for value in values:
        assert (value.coefficient, value.clip, value.gamma, value.lam, value.warmup, value.whiten) == (0.1, 0.2, 1, 0.95, 0, True)
        assert (value.clip_norm, value.reward_at, value.whiten_over) == (1.0, "after", together)

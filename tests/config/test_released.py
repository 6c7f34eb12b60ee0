"""The released recipes hold the released numbers, each written out and with its source.

released_numbers.py has the numbers as a table. The last test reads the tables of the shared reference besides, and looks for each
number in the row of its model.
"""

import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from tests.config.released_numbers import COUNTS, MIXES, NUMBERS, RELEASED
from tulu.cli import app
from tulu.config.job import stages_of
from tulu.config.load import find_recipe, load_recipe
from tulu.config.parts import ValueModelSettings
from tulu.config.provenance import origins
from tulu.config.schema import Recipe
from tulu.config.templates import TEMPLATES, source_hash
from tulu.config.unknown import open_fields
from tulu.config.yaml_text import read_yaml

ROOT = Path(__file__).resolve().parents[2]
THE_RECIPES = {"template", "template_hash"}
"""Fields of a stage that stand for the recipe's where they are not written."""
OF_THE_MACHINE = {
    *("start", "released", "row_tokens", "lora", "keep_checkpoints", "keep_every", "engine", "max_staleness", "released_values"),
    *("path", "revision", "zero", "offload_optimizer", "resources"),
    *("skip_steps", "batch_tokens", "verifier_settings", "rollout_seconds", "env"),
    *("eval_every", "eval_task", "eval_rows", "eval_tokens", "eval_data", "held_out"),
}
"""Fields that are no hyper-parameters: where a stage starts and what it runs on. Released runs were up to one step stale because
their engines ran ahead; max_staleness 0 is what they stood for. zero is the old spelling of sharding, and the last two lines
change nothing where they are left out."""


def name_of(value: Any) -> str | None:
    """The id of a parameter: recipe and stage."""
    return "-".join(value) if isinstance(value, tuple) else ""


def stages(recipe: Recipe) -> Iterator[tuple[str, Any]]:
    """The training sections that a recipe has."""
    yield from ((stage.key, stage.section) for stage in stages_of(recipe))


def section_of(name: str, stage: str) -> Any:
    """The section of a recipe's stage; `rlvr.math` is the one of that name among several."""
    return dict(stages(load_recipe(name, processes=1)))[stage]


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


@pytest.mark.parametrize(("key", "mix"), MIXES.items(), ids=name_of)
def test_mixes(key: tuple[str, str], mix: Mapping[str, float]) -> None:
    section = section_of(*key)
    assert {source.name: source.fraction or source.count for source in section.data} == mix


@pytest.mark.parametrize(("key", "counts"), COUNTS.items(), ids=name_of)
def test_counts(key: tuple[str, str], counts: list[int]) -> None:
    assert [source.count for source in section_of(*key).data] == counts


def test_every_stage_of_every_released_recipe_is_in_the_table() -> None:
    recipes = {name: load_recipe(name, processes=1) for name in RELEASED}
    never_published = {(name, field.partition(".")[0]) for name in RELEASED for field in open_fields(recipes[name])}
    missing = {(name, stage) for name in RELEASED for stage, _ in stages(recipes[name])} - set(NUMBERS)
    assert missing <= never_published


@pytest.mark.parametrize("name", RELEASED)
def test_a_named_template_is_pinned(name: str) -> None:
    recipe = load_recipe(name, processes=1)
    assert recipe.template_hash == (source_hash(TEMPLATES[recipe.template]) if recipe.template in TEMPLATES else None)


@pytest.mark.parametrize("name", RELEASED)
def test_no_hyper_parameter_is_left_to_a_default(name: str) -> None:
    """Else a default that changes would change a released recipe, as it did to the original's scripts (trap T2)."""
    raw, recipe = read_yaml(find_recipe(name)).value, load_recipe(name, processes=1)
    for stage, section in stages(recipe):
        duration = {"steps" if section.epochs is not None else "epochs"}
        duration |= {"batch"} if "batch_tokens" in as_written(raw, stage) else set()
        unwritten = set(type(section).model_fields) - set(as_written(raw, stage)) - OF_THE_MACHINE - duration - THE_RECIPES
        assert unwritten == set(), f"{name}: write {stage}.{', '.join(sorted(unwritten))}"
        value = as_written(raw, stage).get("value")
        if value is not None:
            assert set(ValueModelSettings.model_fields) - set(value) - OF_THE_MACHINE == set()


@pytest.mark.parametrize("name", RELEASED)
def test_every_value_names_its_source_or_says_that_it_is_ours(name: str) -> None:
    recipe = load_recipe(name, processes=1)
    found = origins(name, recipe)
    written = {key: origin for key, origin in found.items() if origin.status not in ("default",) and key != "name"}
    assert {key: str(origin) for key, origin in written.items() if origin.status == "recipe"} == {}
    assert len([key for key, origin in written.items() if origin.status == "released"]) > 10
    assert all(origin.source for origin in written.values() if origin.status in ("released", "unknown"))


@pytest.mark.parametrize("name", RELEASED)
def test_what_every_release_has_in_common(name: str) -> None:
    for stage, section in stages(load_recipe(name, processes=1)):
        assert section.clip_norm == 1.0, "accelerate fills `auto` with 1.0; get_train_ds_config and OLMo-core name it"
        assert (section.adam_beta1, section.precision) == (0.9, "bf16")
        if stage == "dpo":
            assert section.labels == ("last" if name.startswith(("olmo3", "olmo-hybrid")) else "all")


@pytest.mark.parametrize("name", RELEASED)
def test_plan_and_dry_run_need_no_decision_and_name_the_origin_of_every_field(name: str) -> None:
    recipe = load_recipe(name, processes=1)
    first = next(stage for stage, _ in stages(recipe))
    runner = CliRunner(env={"COLUMNS": "500"})
    plan, dry_run = runner.invoke(app, ["plan", name]), runner.invoke(app, [first, name, "--dry-run"])
    assert (plan.exit_code, dry_run.exit_code) == (0, 0), plan.output + dry_run.output
    assert plan.output.count("unknown, to be given before it trains") == bool(open_fields(recipe))
    fields = [line for line in dry_run.output.split(f"\n{first}:")[1].split("\n") if re.match(r"  [a-z_0-9]+:", line)]
    assert len(fields) > 25
    # A section, such as `value`, has its fields' origins below it.
    assert [
        line for line in fields if not re.search(r"  # (released|ours|unknown|default)", line) and not line.rstrip().endswith(":")
    ] == []


@pytest.mark.parametrize(
    ("name", "together"),
    [("tulu3-8b", 32), ("tulu3-70b", 16), ("tulu3-405b", 8), ("olmo2-instruct", 8), ("olmo2-13b", 8), ("olmoe-0125", 16)],
)
def test_value_models_are_those_of_the_release(name: str, together: int) -> None:
    """Two engines, the reward behind the end, whitening per rank: ppo_vllm_thread_ray_gtrl.py @ 5bcd3b25."""
    values = [section.value for stage, section in stages(load_recipe(name, processes=1)) if stage.startswith("rlvr")]
    assert len(values) == (3 if name == "olmo2-13b" else 1)
    for value in values:
        assert (value.coefficient, value.clip, value.gamma, value.lam, value.warmup, value.whiten) == (0.1, 0.2, 1, 0.95, 0, True)
        assert (value.clip_norm, value.reward_at, value.whiten_over) == (1.0, "after", together)


# The tables of the shared reference -------------------------------------------------------------------------------------------

ROWS = {
    # recipe: the first cell of its row in §2 SFT, §3 DPO, §4 reward models, §5 PPO and §6 GRPO, for each stage of a list
    "tulu3-8b": {"sft": "Tülu 3 8B", "dpo": "Tülu 3 8B", "rm": "Tülu 3 8B RM", "ppo": "Tülu 3 8B"},
    "tulu3-70b": {"sft": "Tülu 3 70B", "dpo": "Tülu 3 70B", "ppo": "Tülu 3 70B"},
    "tulu3-405b": {"dpo": "Tülu 3 405B", "ppo": "Tülu 3 405B"},
    "tulu3.1-8b": {"grpo": "Tülu 3.1 8B"},
    "olmo2-instruct": {"sft": "OLMo 2 7B (1124) config", "dpo": "OLMo 2 7B", "rm": "OLMo 2 7B / 13B RM", "ppo": "OLMo 2 7B"},
    "olmo2-32b": {"sft": "OLMo 2 32B (0325) script", "dpo": "OLMo 2 32B"},
    "olmoe-0125": {"sft": "OLMoE 0125", "dpo": "OLMoE 0125", "rm": "OLMoE 0125 RM", "ppo": "OLMoE 0125"},
    "olmo3-7b-instruct": {"sft": "Olmo 3 7B Instruct", "dpo": "Olmo 3 7B Instruct", "grpo": "Olmo 3 7B Instruct"},
    "olmo3-32b-instruct": {"sft": "Olmo 3 32B Instruct", "dpo": "Olmo 3 32B Instruct", "grpo": "Olmo 3 32B Instruct"},
    "olmo-hybrid-7b-instruct": {"grpo": "Olmo-Hybrid 7B Instruct"},
    "olmo2-1b": {
        "sft": "OLMo 2 1B (0425)",
        "dpo": "OLMo 2 1B",
        "grpo mixed": "OLMo 2 1B stage 1",
        "grpo math": "OLMo 2 1B stage 2",
    },
    "olmo2-13b": {"sft": "OLMo 2 13B script", "dpo": "OLMo 2 13B", "rm": "OLMo 2 7B / 13B RM"}
    | {"ppo mixed": "OLMo 2 13B", "ppo gsm": "OLMo 2 13B", "ppo math": "OLMo 2 13B"},
    "olmo3-7b-think": {"sft": "Olmo 3 7B Think", "dpo": "Olmo 3 7B Think", "grpo": "Olmo 3 7B Think"},
    "olmo3-32b-think": {"sft": "Olmo 3 32B Think", "dpo": "Olmo 3 32B Think", "grpo": "Olmo 3 32B Think"},
    "olmo3-rl-zero-math": {"grpo": "RL-Zero math"},
    "olmo3-rl-zero-code": {"grpo": "RL-Zero code/IF/general/mix"},
    "olmo3-rl-zero-if": {"grpo": "RL-Zero code/IF/general/mix"},
    "olmo3-rl-zero-general": {"grpo": "RL-Zero code/IF/general/mix"},
}
COLUMNS = {
    # kind: field and the cells of the row in which its number must stand
    "sft": {
        "learning_rate": ("LR",),
        "batch": ("eff. batch",),
        "epochs": ("epochs",),
        "max_length": ("max len",),
        "seed": ("seed",),
    },
    "dpo": {"learning_rate": ("LR",), "batch": ("eff. batch",), "max_length": ("max len",), "seed": ("seed",)},
    "rm": {"batch": ("eff. batch",), "max_length": ("max len / prompt",)},
    "ppo": {"learning_rate": ("LR",), "beta": ("β",), "batch": ("eff. batch (episodes)",), "max_tokens": ("resp len",)}
    | {"temperature": ("T",), "no_stop_score": ("no-EOS penalty",), "seed": ("misc",)},
    "grpo": {"learning_rate": ("LR / sched",), "beta": ("β / KL",), "prompts": ("n samples × prompts",)}
    | {"samples": ("n samples × prompts",), "minibatches": ("mini-batches",), "max_tokens": ("resp / pack",)}
    | {"temperature": ("T",)},
}
NOT_IN_THE_TABLE = {
    ("tulu3-8b", "dpo", "seed"): "default 42, in the notes below §6",
    ("tulu3-70b", "dpo", "seed"): "default 42, in the notes below §6",
    ("tulu3-405b", "dpo", "seed"): "default 42, in the notes below §6",
    ("olmo3-7b-instruct", "dpo", "seed"): "`default`, which is 42",
    ("olmo3-7b-think", "dpo", "seed"): "`default`, which is 42",
    ("olmo3-7b-think", "sft", "seed"): "34521, in the notes below §6",
    ("olmo3-32b-think", "sft", "seed"): "34521, in the notes below §6",
    ("olmo2-13b", "ppo", "beta"): "0.03..0.1 is the range; stage 1's 0.1 stands beside its data",
    ("olmo2-13b", "sft", "seed"): "the row of the configuration has 1, that of the script 8",
    ("olmo3-7b-instruct", "sft", "seed"): "34521, in the notes below §6; the table has the init seed",
    ("olmo3-32b-instruct", "sft", "seed"): "34521, in the notes below §6; the table has the init seed",
}


def table_rows(text: str, section: str) -> dict[str, dict[str, str]]:
    """The rows of a section's first table, by their first cell, each by its column."""
    lines = [line for line in text.split(f"\n## {section}")[1].split("\n## ")[0].splitlines() if line.startswith("|")]
    heads, *rows = ([cell.strip() for cell in line.strip("|").split("|")] for line in lines)
    return {row[0]: dict(zip(heads, row, strict=True)) for row in rows[1:]}


def numbers_in(cell: str) -> set[float]:
    """Every number of a cell: `224 (7×32)` has 224, 7 and 32; `10,000,000` is one."""
    text = re.sub(r"(?<=\d),(?=\d{3})", "", cell.replace("−", "-").replace("**", ""))
    return {float(number) for number in re.findall(r"(?<![\w.])-?\d+(?:\.\d+)?(?:e-?\d+)?", text)}


@pytest.mark.parametrize("name", ROWS)
def test_the_numbers_stand_in_the_reference(name: str) -> None:
    shared = Path(os.environ.get("TULU_SHARED", ROOT.parent / "shared")) / "reference" / "recipes.md"
    if not shared.is_file():
        pytest.skip("the shared reference is absent: set TULU_SHARED to the folder that holds reference/recipes.md")
    text = shared.read_text(encoding="utf-8")
    sections = {"sft": "2. SFT", "dpo": "3. DPO", "rm": "4. Reward", "ppo": "5. RLVR", "grpo": "6. RLVR"}
    recipe = load_recipe(name, processes=1)
    for place, label in ROWS[name].items():
        kind, _, several = place.partition(" ")
        row = table_rows(text, sections[kind])[label]
        stage = ("rlvr" if kind in ("ppo", "grpo") else kind) + (f".{several}" if several else "")
        for field, columns in COLUMNS[kind].items():
            section = dict(stages(recipe))[stage]
            value = (getattr(section, "batch_tokens", None) if field == "batch" else None) or getattr(section, field)
            if (name, kind, field) in NOT_IN_THE_TABLE or f"{stage}.{field}" in open_fields(recipe) or value is None:
                continue
            cells = " ".join(row[column] for column in columns)
            assert value in numbers_in(cells), f"{name}: {stage}.{field} {value} does not stand in {cells!r}"

"""Loading, overriding and checking a recipe."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.config.recipe_text import GOOD
from tulu.config.job import section_of
from tulu.config.load import find_recipe, load_recipe
from tulu.errors import DataError, RecipeError

Write = Callable[[str], str]


def test_a_good_recipe_loads(write: Write) -> None:
    recipe = load_recipe(write(GOOD))
    assert recipe.sft is not None
    assert recipe.dpo is not None
    assert recipe.sft.learning_rate == 1e-4, "1e-4 without a dot is a number"
    assert recipe.dpo.data[0].fraction == 0.5


@pytest.mark.parametrize(
    ("override", "stage", "field", "value"),
    [
        ("sft.learning_rate=3e-6", "sft", "learning_rate", 3e-6),
        ("sft.batch=32", "sft", "batch", 32),
        ("sft.clip_norm=null", "sft", "clip_norm", None),
        ("sft.gradient_checkpointing=true", "sft", "gradient_checkpointing", True),
        ("sft.lora.rank=4", "sft", "lora", {"rank": 4, "alpha": 128, "dropout": 0.0, "targets": "all-linear"}),
        ("rlvr.stop=['a=b', c]", "rlvr", "stop", ["a=b", "c"]),
        ("sft.start=owner/other", "sft", "start", "owner/other"),
    ],
)
def test_overrides_are_typed_as_yaml(write: Write, override: str, stage: str, field: str, value: object) -> None:
    recipe = load_recipe(write(GOOD), [override])
    assert section_of(recipe, stage).model_dump(mode="json")[field] == value


def test_overrides_reach_into_lists_and_the_last_one_wins(write: Write) -> None:
    recipe = load_recipe(write(GOOD), ["rlvr.data.0.count=8", "dpo.data=rows.jsonl", "sft.batch=8", "sft.batch=24"])
    assert recipe.dpo is not None
    assert recipe.sft is not None
    assert section_of(recipe, "rlvr").data[0].count == 8
    assert [(source.name, source.fraction) for source in recipe.dpo.data] == [("rows.jsonl", 1.0)]
    assert recipe.sft.batch == 24


def test_another_model_leaves_the_released_checkpoints_behind(write: Write) -> None:
    recipe = load_recipe(write(GOOD.replace("template", "revision: abc\ntemplate")), ["model=owner/mine"])
    assert (recipe.model, recipe.revision) == ("owner/mine", None)
    assert section_of(recipe, "dpo").released is None
    kept = load_recipe("r.yaml", ["model=owner/mine", "dpo.released=owner/mine-sft"])
    assert section_of(kept, "dpo").released == "owner/mine-sft"
    assert load_recipe("quickstart", ["model=owner/mine"]).base is None


MISTAKES = [
    ([], "sft.batch: 7", "batch: 16\n  epochs", "batch: 7\n  micro_batch: 2\n  epochs", "no multiple of micro_batch 2"),
    ([], "r.yaml:8: sft.epoch: unknown key; did you mean epochs?", "epochs: 1", "epoch: 1", "known keys are start,"),
    ([], "sft.epochs: give exactly one of epochs and steps; neither", "  epochs: 1\n", "", ""),
    (["sft.steps=3"], "give exactly one of epochs and steps; both are given (1 and 3)", "", "", ""),
    ([], 'r.yaml:9: sft.learning_rate: "fast": wrong type, should be a number, not text', "rate: 1e-4", "rate: fast", ""),
    (
        [],
        "sft.max_length: missing; add it: Most tokens of one sequence",
        "  max_length: 64\n  batch: 16\n  epochs",
        "  batch: 16\n  epochs",
        "",
    ),
    (
        ["sft.data=[{name: there.jsonl, fraction: lots}]"],
        'command line: sft.data.0.fraction: "lots"',
        "",
        "",
        "should be a number",
    ),
    (["sft.schedule=liner"], 'command line: sft.schedule: "liner"', "", "", "did you mean linear?"),
    (
        ["learning_rate=1e-5"],
        "learning_rate: unknown key here; it belongs to a stage: base.learning_rate, sft.learning_rate",
        "",
        "",
        "",
    ),
    (["sft"], "sft: an override is key.path=value", "", "", ""),
    (["sft.batch.x=3"], "sft.batch is 16, which has no x", "", "", ""),
    (["rlvr.data.3.count=1"], "rlvr.data.3.count: there are 1 items, counted from 0", "", "", ""),
    (["sft.data=[a"], "sft.data: '[a' is not YAML", "", "", ""),
    (["template=tullu"], 'template: "tullu": unknown template; did you mean tulu?', "", "", "tokenizer"),
    (["rlvr.verifier=gsm9k"], 'rlvr.verifier: "gsm9k"', "", "", "gsm8k"),
    (["sft.data=missing.jsonl"], 'sft.data.0.name: "missing.jsonl": no such file', "", "", ""),
    (["sft.data=sums:stf"], "sums has no split 'stf'; did you mean sft?", "", "", ""),
    (["sft.data=[rows.jsonl, rows.jsonl]"], 'sft.data.1.name: "rows.jsonl": is also item 0', "", "", "fraction: 2.0"),
    (["sft.data={name: rows.jsonl, fractoin: 1.0}"], "sft.data.fractoin: unknown key; did you mean fraction?", "", "", ""),
    (["sft.data={name: rows.jsonl}"], "sft.data: {", "", "", "exactly one of fraction (1.0 is all rows) and count"),
    (["sft.lora.targets=[lm_head]"], 'sft.lora.targets: ["lm_head"]', "", "", "remove lm_head"),
    (["rlvr.prompts=5"], "rlvr.batch: 16: batch is prompts × samples = 5 × 4 = 20", "", "", ""),
    (["rlvr.minibatches=3"], "rlvr.minibatches: 3: 4 prompts do not divide into 3 minibatches", "", "", ""),
    (["rlvr.max_prompt=33"], "rlvr.max_length: 64: max_prompt + max_tokens = 65 is more", "", "", ""),
    (["sft.loss=sum", "sft.loss_micro_batch=5"], "sft.loss_micro_batch: 5", "", "", "divisor of the batch"),
    (["sft.start=./nowhere"], 'sft.start: "./nowhere": no such folder', "", "", ""),
    (["model=rows.jsonl"], 'model: "rows.jsonl": is a file', "", "", "config.json"),
    (["name=a/b"], 'name: "a/b": should be letters, digits', "", "", ""),
    (["sft=3"], "sft: 3: wrong type, should be a section", "", "", ""),
    (["model=null"], "model: missing; name a model folder", "", "", ""),
    (["rlvr.resources.engines=-1"], "rlvr.resources.engines: -1: should be greater than or equal to 0", "", "", ""),
    (["rlvr.resources.engine=1"], "rlvr.resources.engine: unknown key; did you mean engines?", "", "", ""),
    (
        ["rlvr.resources.engines=2", "rlvr.engine=transformers"],
        'rlvr.engine: "transformers": engines in processes of their own are vLLM',
        *("", "", "or resources.engines to 0"),
    ),
    (
        ["rlvr.resources.tensor_parallel=2"],
        "rlvr.resources.tensor_parallel: 2: the engine of the training",
        "",
        "",
        "engines to 1",
    ),
    (
        ["rlvr.resources.colocated=true"],
        "rlvr.resources.colocated: true: the engine of the training process is on its GPU anyway",
        *("", "", "or remove colocated"),
    ),
    (
        ["rlvr.resources={engines: 1, colocated: true}", "rlvr.max_staleness=1"],
        "rlvr.max_staleness: 1: engines on the learners' GPUs sleep while those train and cannot run ahead",
        *("", "", "set it to 0"),
    ),
    (
        ["rlvr.resources={engines: 1, adapters: apart}"],
        'rlvr.resources.adapters: "apart": only engines of their own take them',
        *("", "", "set lora and resources.engines"),
    ),
    (["rlvr.resources.gpu_share=1.5"], "rlvr.resources.gpu_share: 1.5: should be less than or equal to 1", "", "", ""),
    (
        ["rlvr.resources.gpu_share=0.5", "rlvr.engine=transformers"],
        "rlvr.resources.gpu_share: 0.5: only vLLM is given a share",
        *("", "", "or remove gpu_share"),
    ),
    (["rlvr.rollout_seconds=0"], "rlvr.rollout_seconds: 0: should be greater than 0", "", "", ""),
    (["rlvr.max_staleness=-1"], "rlvr.max_staleness: -1: should be greater than or equal to 0", "", "", ""),
]


@pytest.mark.parametrize(("overrides", "expected", "old", "new", "also"), MISTAKES, ids=[case[1][:40] for case in MISTAKES])
def test_a_mistake_names_place_value_and_cure(
    write: Write, overrides: list[str], expected: str, old: str, new: str, also: str
) -> None:
    with pytest.raises(RecipeError) as error:
        load_recipe(write(GOOD.replace(old, new, 1) if old else GOOD), overrides)
    assert expected in str(error.value)
    assert also in str(error.value)
    assert error.value.exit_code == 2


def test_both_spellings_of_sharding_must_agree(write: Write) -> None:
    recipe = load_recipe(write(GOOD), ["sft.zero=2", "sft.sharding=zero2", "dpo.sharding=fsdp2"])
    assert (section_of(recipe, "sft").sharding, section_of(recipe, "dpo").sharding) == ("zero2", "fsdp2")
    expected = r"sft.zero: 3: is the old spelling of sharding: zero3, but sharding is none; set sft.sharding alone"
    with pytest.raises(RecipeError, match=expected):
        load_recipe(write(GOOD), ["sft.zero=3", "sft.sharding=none"])


def test_all_mistakes_come_at_once_in_the_order_of_the_file(write: Write) -> None:
    text = (
        GOOD.replace("template: tulu", "template: tuluu")
        .replace("batch: 16\n  epochs: 1", "bach: 16")
        .replace("samples: 4", "samples: 0")
    )
    with pytest.raises(RecipeError) as error:
        load_recipe(write(text), ["dpo.beta=strong", "rlvr.verifier=non"])
    lines = str(error.value).splitlines()
    assert lines[0] == "r.yaml: 6 problems"
    keys = [line.strip().split(": ")[1] for line in lines[1:]]
    assert keys == ["dpo.beta", "rlvr.verifier", "template", "sft.epochs", "sft.bach", "rlvr.samples"], (
        "a misspelt batch is not missing as well"
    )


@pytest.mark.parametrize(
    ("override", "line"),
    [
        ("rlvr.prompts=3", "command line and r.yaml:"),
        ("rlvr.max_tokens=64", "command line and r.yaml:"),
        ("stf.batch=3", "command line: stf: unknown key; did you mean sft?"),
        ("sft.data.0=3", "command line: sft.data.0: sft.data is"),
        ("sft.batch", "command line: sft.batch: an override is key.path=value"),
        ("bacth=3", "command line: bacth: unknown key here; did you mean batch? It belongs to a stage"),
        ("sft.lr=3", "command line: sft.lr: unknown key; did you mean learning_rate?"),
    ],
)
def test_a_mistake_of_the_command_line_is_not_blamed_on_the_file(write: Write, override: str, line: str) -> None:
    with pytest.raises(RecipeError) as error:
        load_recipe(write(GOOD), [override])
    assert str(error.value).splitlines()[0] == "r.yaml: 1 problem"
    assert str(error.value).splitlines()[1].startswith(f"  {line}")
    # What is wrong in the file itself stays the file's, whatever is overridden beside it.
    with pytest.raises(RecipeError) as error:
        load_recipe(write(GOOD.replace("epochs: 1", "epochs: -1")), [override])
    assert any(told.startswith("  r.yaml:8: sft.epochs") for told in str(error.value).splitlines()), error.value


def test_a_section_with_a_mistake_is_there_for_the_others(write: Write) -> None:
    rm = "rm: {data: owner/pairs, max_length: 64, batch: 16, steps: 1, learning_rate: fast}\n"
    with pytest.raises(RecipeError) as error:
        load_recipe(write(GOOD + rm), ["rlvr.reward_model.weight=2.0"])
    assert str(error.value).splitlines()[0] == "r.yaml: 1 problem", "and none that there is no rm section"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("name: a\nsft:\n  batch: [1\n", "r.yaml:4: not YAML"),
        ("name: a\n\tsft: 1\n", "r.yaml:2: not YAML"),
        ("name: a\nname: b\n", "r.yaml:2: not YAML: the key 'name' is written twice"),
        ("", "r.yaml: empty; a recipe is"),
        ("- a\n", "r.yaml: not a mapping"),
    ],
)
def test_broken_yaml_names_the_line(write: Write, text: str, expected: str) -> None:
    with pytest.raises(RecipeError) as error:
        load_recipe(write(text))
    assert str(error.value).startswith(expected)


def test_dates_stay_text(write: Write) -> None:
    assert load_recipe(write(GOOD.replace("name: test", "name: 2024-11-26"))).name == "2024-11-26"


@pytest.mark.parametrize(
    ("processes", "overrides", "problem"),
    [
        (2, [], None),
        (16, [], None),
        (3, [], "does not divide over 3 processes; use a multiple of 3 such as 15 or 18"),
        (2, ["sft.batch=20"], "10 a process is no multiple of micro_batch 8; set sft.micro_batch to one of 5, 2, 1"),
        (1, ["sft.batch=4"], None),  # a micro-batch of at most 8 holds all of it
    ],
)
def test_the_batch_divides_over_the_processes(
    write: Write, monkeypatch: pytest.MonkeyPatch, processes: int, overrides: list[str], problem: str | None
) -> None:
    monkeypatch.setenv("WORLD_SIZE", str(processes))
    if problem is None:
        load_recipe(write(GOOD), overrides, stage="sft")
        return
    with pytest.raises(RecipeError) as error:
        load_recipe(write(GOOD), overrides, stage="sft")
    assert problem in str(error.value)


@pytest.mark.parametrize("name", ["quickstart", "recipes/quickstart.yaml", "quickstart.yaml"])
def test_built_in_recipes_are_found_from_anywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.chdir(tmp_path)
    assert find_recipe(name).is_file()
    with pytest.raises(RecipeError, match="no such recipe; did you mean quickstart"):
        find_recipe("quikstart")


def test_a_recipe_is_checked_without_importing_torch(write: Write) -> None:
    code = (
        "import sys; from tulu.errors import RecipeError; from tulu.config.load import load_recipe\n"
        "try: load_recipe('r.yaml', ['rlvr.verifier=x', 'template=y', 'sft.data=sums:z'])\n"
        "except RecipeError as error: print(len(str(error).splitlines()) - 1)\n"
        "print(sorted({'torch', 'transformers', 'datasets', 'ray', 'trl'} & set(sys.modules)))"
    )
    write(GOOD)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["3", "[]"]


def test_an_empty_file_is_told_before_a_stage_that_runs_earlier(write: Write, tmp_path: Path) -> None:
    recipe = write(GOOD.replace("{name: owner/pairs, fraction: 0.5}", "pairs.jsonl"))
    (tmp_path / "pairs.jsonl").write_text("")
    with pytest.raises(DataError, match=r"pairs.jsonl: the file is empty; point data at one that holds rows"):
        load_recipe(recipe)
    assert load_recipe(recipe, stage="sft").dpo is not None, "a stage that does not read it does not ask"


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ("batch: 16\n  epochs", "bacth: 16\n  epochs", "sft.bacth: unknown key; did you mean batch?"),
        ("epochs: 1", "epoch: 1", "sft.epoch: unknown key; did you mean epochs?"),
        ("max_length: 64\n  batch: 16\n  epochs", "max_len: 64\n  batch: 16\n  epochs", "sft.max_len: unknown key; did you mean"),
        ("model: owner/model\n", "modle: owner/model\n", "modle: unknown key; did you mean model?"),
        ("data: [{name: owner/problems, count: 64}]", "data: [{nam: owner/problems, count: 64}]", "rlvr.data.0.nam: unknown key"),
    ],
)
def test_one_slip_is_one_problem(write: Write, old: str, new: str, problem: str) -> None:
    assert old in GOOD
    with pytest.raises(RecipeError) as error:
        load_recipe(write(GOOD.replace(old, new, 1)))
    assert str(error.value).splitlines()[0] == "r.yaml: 1 problem"
    assert problem in str(error.value)


def test_an_unknown_key_hides_no_other_mistake(write: Write) -> None:
    """Both keys are like batch, of which one alone is a slip for it; max_length is missing for another reason."""
    spoilt = GOOD.replace("max_length: 64\n  batch: 16\n  epochs", "bacth: 16\n  batch: 16\n  epochs", 1)
    with pytest.raises(RecipeError) as error:
        load_recipe(write(spoilt))
    assert [line.strip().split(": ")[1] for line in str(error.value).splitlines()[1:]] == ["sft.max_length", "sft.bacth"]

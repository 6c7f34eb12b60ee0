"""A tiny recipe is its recipe with other sizes: what changes, what stays, and what must be known for it."""

import json
from pathlib import Path
from typing import Any

import pytest

from tulu.config.checks import combination_mistakes
from tulu.config.load import built_in, load_recipe
from tulu.config.made_up import architecture_of, problem_form, tiny_config
from tulu.config.recipe_stages import model_named_by, stages_in
from tulu.config.schema import Recipe, Rlvr
from tulu.config.templates import TEMPLATES
from tulu.config.tiny import kept, shrink
from tulu.config.tiny_section import ANSWER, PROMPT
from tulu.config.unknown import open_fields
from tulu.errors import RecipeError

SIZES = {
    *("name", "model", "data", "steps", "epochs", "batch", "micro_batch", "max_length", "loss_micro_batch", "config", "start"),
    *("batch_tokens", "keep_every", "models"),
    *("prompts", "samples", "max_prompt", "max_tokens", "engine", "limit", "best_of"),
    *("value.path", "value.released", "value.revision", "value.whiten_over", "reward_model.path", "reward_model.revision"),
    *("teacher.path", "teacher.revision"),
}
"""All fields that a tiny recipe may change, besides those that were never published."""


def changed(recipe: Recipe, runs: Path = Path("runs")) -> dict[str, Any]:
    """The overrides of the tiny recipe by their keys."""
    return {key: json.loads(value) for key, _, value in (text.partition("=") for text in shrink(recipe, runs).overrides)}


@pytest.mark.parametrize("name", [path.stem for path in built_in()])
def test_only_sizes_and_what_was_never_published_change(name: str) -> None:
    recipe = load_recipe(name, processes=1)
    sizes = {"name", "model", *(f"{stage.key}.{size}" for stage in stages_in(dict(recipe)) for size in SIZES)}
    assert set(changed(recipe)) - sizes <= set(open_fields(recipe))


@pytest.mark.parametrize("name", [path.stem for path in built_in()])
def test_every_open_field_gets_a_value_that_is_told(name: str) -> None:
    recipe = load_recipe(name, processes=1)
    tiny, values = shrink(recipe, Path("runs")), changed(recipe)
    for field in open_fields(recipe):
        assert field in values
        told = any(line.startswith(f"{field}: was never published; here ") for line in tiny.changes)
        assert told or field.rpartition(".")[2] in SIZES


def test_a_stand_in_may_be_null() -> None:
    recipe = load_recipe("olmo3-7b-think", processes=1)
    assert "rlvr.ratio_cap" in open_fields(recipe)
    assert changed(recipe)["rlvr.ratio_cap"] is None


def test_a_suite_of_thousands_of_problems_is_not_done() -> None:
    given = ["evaluate.suite=olmo2", "evaluate.skip=[gsm8k]", "evaluate.judge=owner/judge"]
    made = changed(load_recipe("tulu3-8b", given, processes=1))
    assert (made["evaluate.suite"], made["evaluate.skip"], made["evaluate.judge"]) == (None, [], None)


def test_the_run_has_a_name_of_its_own() -> None:
    tiny = shrink(load_recipe("tulu3-8b", ["name=mine"], processes=1), Path("somewhere"))
    assert tiny.name == "mine-tiny"
    assert tiny.inputs == Path("somewhere/mine-tiny/inputs").absolute()


def test_what_differs_is_told_in_a_line_for_each_section() -> None:
    lines = shrink(load_recipe("tulu3-8b", processes=1), Path("runs")).changes
    assert [line.partition(":")[0] for line in lines] == ["model", "sft", "dpo", "rm", "rlvr", "evaluate"]
    assert lines[0] == "model: a random llama with a tokenizer of bytes, in place of meta-llama/Llama-3.1-8B"
    assert lines[1].startswith("sft: 16 made-up rows, 2 epochs → 3 steps, ")
    assert set(lines[1].split(", ")[2:]) == {"batch 128 → 8", "max_length 4096 → 2048", "micro_batch 8 → 2"}
    assert "value.whiten_over 32 → 8" in lines[4]
    assert lines[4].endswith("a random reward model")


def test_what_the_command_line_sets_is_told_as_no_change() -> None:
    given = ["sft.data=own.jsonl", "sft.steps=5", "sft.eval_every=2", "sft.held_out=0.1", "name=mine", "sft.max_length=99"]
    recipe = load_recipe("quickstart", [*given[1:], "sft.epochs=null"], processes=1)
    line = next(line for line in shrink(recipe, Path("runs"), given).changes if line.startswith("sft:"))
    assert line == "sft: the rows of the command line, batch 32 → 8, micro_batch 32 → 2"


RLVR: dict[str, Any] = {
    **{"data": "owner/rows", "steps": 9, "learning_rate": 1e-6},
    **{"max_prompt": 512, "max_tokens": 512, "max_length": 1024},
}


@pytest.mark.parametrize(
    "fields",
    [
        {"prompts": 48, "samples": 16, "minibatches": 2, "loss_micro_batch": 2, "denominator": "micro_mean"},
        {"prompts": 64, "samples": 8, "minibatches": 4, "micro_batch": 16},
        {"prompts": 64, "samples": 8, "minibatches": 64},
        {"prompts": 30, "samples": 3, "minibatches": 3, "loss_micro_batch": 5, "denominator": "micro_mean"},
        {"prompts": 224, "samples": 1, "advantage": "gae", "refill": False, "value": {"whiten_over": 32, "path": "owner/rm"}},
        {"prompts": 21, "samples": 1, "advantage": "gae", "refill": False, "minibatches": 7, "value": {"whiten_over": 3}},
        {"prompts": 2, "samples": 2, "max_tokens": 8, "max_prompt": 16, "max_length": 24},
    ],
)
def test_smaller_rollouts_divide_as_a_recipe_must(fields: dict[str, Any], tmp_path: Path) -> None:
    batch = fields["prompts"] * fields["samples"]
    own = {"micro_batch": 1, **RLVR, **fields, "batch": batch}
    recipe = Recipe.model_validate({"name": "a", "model": "allenai/OLMo-2-0425-1B", "rlvr": own})
    (tmp_path / "rows.jsonl").write_text("{}\n")
    (tmp_path / "rm").mkdir()
    (tmp_path / "rm" / "config.json").write_text('{"model_type": "olmo2", "architectures": ["Olmo2ForSequenceClassification"]}')
    (tmp_path / "rm" / "model.safetensors").write_text("")
    raw = recipe.model_dump(mode="json", exclude_none=True)
    for key, value in changed(recipe).items():
        *path, last = key.split(".")
        here = raw
        for part in path:
            here = here[part]
        here[last] = value
    raw["rlvr"]["data"] = [{"name": str(tmp_path / "rows.jsonl"), "fraction": 1.0}]
    raw["model"] = "owner/model"
    if raw["rlvr"].get("value", {}).get("path"):
        raw["rlvr"]["value"]["path"] = str(tmp_path / "rm")
    raw["rlvr"].pop("epochs", None)
    for processes in (1, 2):
        mistakes = combination_mistakes(raw, [], {"rlvr": processes})
        assert [mistake.line({}, {}) for mistake in mistakes if processes == 1 or "process" not in mistake.text] == []
    small = Recipe.model_validate(raw).rlvr
    assert isinstance(small, Rlvr)
    assert small.minibatches == fields.get("minibatches", 1)
    assert small.max_prompt <= PROMPT
    assert small.max_tokens <= ANSWER


def test_overrides_hold_in_the_tiny_recipe_but_those_that_say_of_what_it_is_made() -> None:
    given = [
        "model=PATH",
        "name=mine",
        "rlvr.steps=5",
        "sft.start=PATH",
        "rlvr.value.released=PATH",
        "rlvr.data.0.name=x",
        "sft.batch=4",
    ]
    assert kept(given) == ["rlvr.steps=5", "sft.batch=4"]


def test_a_local_model_is_asked_for_its_own_configuration(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "qwen3", "hidden_size": 64}))
    assert architecture_of(str(tmp_path)).config["model_type"] == "qwen3"
    assert architecture_of(str(tmp_path)).template == "tulu"
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"chat_template": "{{ messages }}"}))
    assert architecture_of(str(tmp_path)).template == "{{ messages }}"
    (tmp_path / "chat_template.jinja").write_text("{{ bos_token }}")
    assert architecture_of(str(tmp_path)).template == "{{ bos_token }}"


@pytest.mark.parametrize("name", ["someone/Unheard-7B", "no/such/folder"])
def test_an_unknown_model_is_refused_with_the_cure(name: str) -> None:
    with pytest.raises(RecipeError, match=r"architecture of .* is not known without the hub.*model=FOLDER"):
        architecture_of(name)


def test_every_model_of_the_built_in_recipes_is_known() -> None:
    for path in built_in():
        recipe = load_recipe(path.stem, processes=1)
        stages = [stage for stage in stages_in(dict(recipe)) if stage.row.trains]
        named = [recipe.model, *(stage.section.released for stage in stages)]
        named += [model_named_by(stage.section.start, stages) for stage in stages]
        assert all(architecture_of(name).config["model_type"] for name in named if name is not None)


def test_rows_of_the_released_recipes_are_known() -> None:
    for path in built_in():
        recipe = load_recipe(path.stem, processes=1)
        sections = [stage.section for stage in stages_in(dict(recipe)) if stage.row.name == "rlvr"]
        names = [source.name for section in sections for source in section.data]
        assert all(problem_form(name).known for name in names if not name.startswith("sums:"))
    assert problem_form("allenai/RLVR-GSM").verifiers == ("gsm8k",)
    assert problem_form("allenai/RLVR-GSM-MATH-IF-Mixed-Constraints").verifiers == ("gsm8k", "math", "ifeval_func")
    assert not problem_form("someone/rows").known


def test_rows_of_unknown_columns_are_told() -> None:
    recipe = Recipe.model_validate(
        {"name": "a", "model": "allenai/OLMo-2-0425-1B", "rlvr": {**RLVR, "prompts": 4, "samples": 2, "batch": 8}}
    )
    assert "rows of gsm8k in place of owner/rows" in shrink(recipe, Path("runs")).changes[-1]


def test_an_environment_that_reads_columns_keeps_the_rows_of_a_file(tmp_path: Path) -> None:
    (tmp_path / "goals.jsonl").write_text('{"messages": [], "goal": 1}\n')
    goals, fields = {"name": str(tmp_path / "goals.jsonl"), "fraction": 1.0}, {"prompts": 4, "samples": 2, "batch": 8}

    def told(env: str, *sources: dict[str, Any]) -> tuple[list[dict[str, Any]], str]:
        rlvr = {**RLVR, **fields, "env": env, "data": list(sources)}
        recipe = Recipe.model_validate({"name": "a", "model": "allenai/OLMo-2-0425-1B", "rlvr": rlvr})
        return changed(recipe)["rlvr.data"], shrink(recipe, Path("runs")).changes[-1]

    assert told("shop.py", goals)[0] == [{"name": goals["name"], "count": 16}]
    assert told("shop.py", goals)[1].startswith(f"rlvr: 16 rows of {goals['name']}, ")
    assert "16 made-up rows, " in told("python", goals)[1], "the sandbox reads no columns, and the rows have right answers"
    data, line = told("shop.py", goals, {"name": "owner/rows", "fraction": 1.0})
    assert ([row.get("count") for row in data], line.partition(", ")[0]) == ([8, None], "rlvr: 8 made-up rows")
    assert line.endswith("rows of gsm8k in place of owner/rows")


def test_what_is_no_size_stays_in_a_tiny_configuration() -> None:
    kinds = ["linear_attention"] * 3 + ["full_attention"]
    own = {
        "hidden_size": 4096,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "head_dim": 128,
        "num_hidden_layers": 32,
        "layer_types": kinds * 8,
        "num_experts": 64,
        "num_experts_per_tok": 8,
        "rope_parameters": {"rope_type": "llama3", "factor": 8.0, "original_max_position_embeddings": 8192},
        "tie_word_embeddings": True,
        "norm_topk_prob": False,
        "sliding_window": None,
    }
    small = tiny_config(own)
    assert small.keys() == own.keys()
    assert small["num_attention_heads"] // small["num_key_value_heads"] == 4
    assert small["hidden_size"] == small["num_attention_heads"] * small["head_dim"]
    assert (small["layer_types"], small["num_hidden_layers"]) == (kinds, 4)
    assert (small["num_experts"], small["num_experts_per_tok"]) == (8, 2)
    assert small["rope_parameters"]["factor"] == 8.0
    assert small["rope_parameters"]["original_max_position_embeddings"] < 8192
    assert [small[key] for key in ("tie_word_embeddings", "norm_topk_prob", "sliding_window")] == [True, False, None]


@pytest.mark.parametrize(("heads", "shared", "expected"), [(32, 32, 4), (40, 8, 1), (16, 8, 2), (2, 1, 1), (64, 1, 1)])
def test_key_heads_are_shared_as_in_the_model(heads: int, shared: int, expected: int) -> None:
    own = {"hidden_size": heads * 64, "num_attention_heads": heads, "num_key_value_heads": shared, "num_hidden_layers": 9}
    assert tiny_config(own)["num_key_value_heads"] == expected


def test_each_of_several_stages_is_made_small_and_starts_where_it_did() -> None:
    values = changed(load_recipe("olmo2-13b", processes=1))
    assert [values[f"rlvr.{name}.steps"] for name in ("mixed", "gsm", "math")] == [3, 3, 3]
    assert (values["rlvr.mixed.keep_every"], values["rlvr.gsm.start"]) == (3, "mixed@step-3")
    assert values["rlvr.math.data"][0]["name"].endswith("olmo2-13b-tiny/inputs/math-0.jsonl")


def test_models_of_other_runs_are_made_where_a_recipe_merges_them() -> None:
    tiny = shrink(load_recipe("olmo3-32b-think", processes=1), Path("runs"))
    merged = next(text for text in tiny.overrides if text.startswith("merge.models="))
    assert json.loads(merged.partition("=")[2]) == [{"stage": "sft"}, {"name": str(tiny.inputs / "merged-1")}]
    assert tiny.others == ("merged-1",)


def test_a_teacher_is_another_random_model() -> None:
    fields = {**RLVR, "prompts": 4, "samples": 2, "batch": 8, "teacher": {"path": "owner/teacher", "revision": "main"}}
    recipe = Recipe.model_validate({"name": "a", "model": "allenai/OLMo-2-0425-1B", "rlvr": fields})
    tiny = shrink(recipe, Path("runs"))
    assert tiny.others == ("teacher",)
    assert changed(recipe)["rlvr.teacher.path"] == str(tiny.inputs / "teacher")
    assert "a random model for the teacher owner/teacher" in tiny.changes[-1]


def small_model(folder: Path, kind: str = "qwen3") -> Path:
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"model_type": kind, "hidden_size": 64}))
    return folder


def test_where_a_recipe_makes_its_own_model_a_start_that_is_named_gets_a_stand_in(tmp_path: Path) -> None:
    """The stand-in has the architecture of the start, is made, and is told; the base stage's model stays what it is."""
    start = small_model(tmp_path / "other")
    recipe = load_recipe("quickstart", [f"rlvr.start={start}"], processes=1)
    tiny, values = shrink(recipe, tmp_path), changed(recipe, tmp_path)
    assert values["rlvr.start"] == str(tiny.inputs / "model")
    assert "model" not in values, "base and model exclude each other"
    assert tiny.model is not None
    assert tiny.model.config["model_type"] == "qwen3"
    assert not tiny.bytes_alone
    assert "a random qwen3" in tiny.changes[0]
    assert [line for line in tiny.changes if f"model for {start}" in line]
    own = shrink(load_recipe("quickstart", ["rlvr.start=sft"], processes=1), tmp_path)
    assert own.model is None, "a stage of the recipe makes that one"


@pytest.mark.parametrize("named", ["teacher", "reward_model"])
def test_where_a_recipe_makes_its_own_model_others_that_it_names_are_made_too(named: str, tmp_path: Path) -> None:
    """Of the base stage's architecture, and a teacher with its very tokens."""
    recipe = load_recipe("quickstart", [f"rlvr.{named}.path=owner/other"], processes=1)
    tiny = shrink(recipe, tmp_path)
    assert tiny.model is not None
    assert tiny.model.config["model_type"] == "olmo2"
    assert (tiny.others, tiny.reward_model) == ((("teacher",), False) if named == "teacher" else ((), True))
    assert tiny.bytes_alone
    assert changed(recipe, tmp_path)[f"rlvr.{named}.path"].startswith(str(tiny.inputs))


def test_a_batch_that_counts_tokens_counts_them_still() -> None:
    values = changed(load_recipe("olmo3-7b-think", processes=1))
    assert values["sft.batch_tokens"] == values["sft.max_length"]
    assert "sft.batch" not in values


HYBRID, BROUGHT = "olmo-hybrid-7b-instruct", "olmo-3-tokenizer-instruct-dev"
"""A recipe whose template is its tokenizer's own, and what stands for that."""


def test_the_model_brings_the_template_of_the_first_stage() -> None:
    for name, template in {"tulu3-8b": "tulu", "olmo3-7b-think": "olmo_thinker_no_think_7b", HYBRID: BROUGHT}.items():
        tiny = shrink(load_recipe(name, processes=1), Path("runs"))
        assert (tiny.template, tiny.template_name) == (TEMPLATES[template], "")
    several = shrink(load_recipe(HYBRID, ["template=tokenizer:tool_use"], processes=1), Path("runs"))
    assert several.template_name == "tool_use"

"""Several stages of a kind in one recipe: how they are named, overridden, refused, and where each starts."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from tests.config.recipe_text import GOOD, SEVERAL
from tests.config.test_job import write_finished_stage
from tulu.config.document import json_schema
from tulu.config.job import Job, folders_of_run, make_job, missing, next_stage, section_of, stages_of
from tulu.config.load import dump, load_recipe
from tulu.config.provenance import origins
from tulu.config.recipe_stages import dotted, parts_of, placed, stages_in
from tulu.config.unknown import demand, open_fields
from tulu.errors import RecipeError

Write = Callable[[str], str]
UNKNOWN = SEVERAL + "unknown:\n  - rlvr.math.beta: swept\n  - rlvr.gsm.learning_rate: swept too\n"


def complaints(write: Write, text: str, *overrides: str) -> str:
    with pytest.raises(RecipeError) as caught:
        load_recipe(write(text), overrides)
    return str(caught.value)


def write_kept(runs: Path, stage: str, *steps: int) -> None:
    """Models that a stage kept on the way; a finished one has its last beside them."""
    for step in steps:
        (runs / "test" / stage / "models" / f"step-{step:06d}").mkdir(parents=True)


# -- names --------------------------------------------------------------------------------------------------------------------


def test_a_list_is_several_stages_and_a_section_one_as_ever(write: Write, tmp_path: Path) -> None:
    recipe = load_recipe(write(SEVERAL))
    assert [stage.key for stage in stages_of(recipe)] == ["sft", "dpo", "rm", "rlvr.mixed", "rlvr.gsm", "rlvr.math"]
    assert [folder.name for folder in folders_of_run(recipe, tmp_path)] == ["sft", "dpo", "rm", "mixed", "gsm", "math"]
    assert [stage.key for stage in stages_of(recipe, "rlvr")] == ["rlvr.mixed", "rlvr.gsm", "rlvr.math"]
    assert [stage.key for stage in stages_of(recipe, "rlvr.gsm")] == ["rlvr.gsm"]
    one = load_recipe(write(GOOD))
    (stage,) = stages_of(one, "rlvr")
    assert (stage.key, stage.name, folders_of_run(one, tmp_path)[-1]) == ("rlvr", "rlvr", tmp_path / "test" / "rlvr")
    assert "name" not in section_of(one, "rlvr").model_dump()
    with pytest.raises(RecipeError, match=r"several rlvr stages; name one of rlvr\.mixed, rlvr\.gsm, rlvr\.math"):
        section_of(recipe, "rlvr")


def test_a_key_is_written_by_name_and_found_by_place() -> None:
    sections = {"sft": {}, "rlvr": [{"name": "mixed"}, {"name": "math"}, {}, "no section"]}
    assert placed(parts_of("rlvr.math.data.0.count"), sections) == ("rlvr", 1, "data", 0, "count")
    assert dotted(("rlvr", 1, "data", 0, "count"), sections) == "rlvr.math.data.0.count"
    assert placed(parts_of("rlvr.beta"), sections) == ("rlvr", "beta")
    assert dotted(("rlvr", 2, "steps"), sections) == "rlvr.2.steps", "one without a name goes by its place"
    assert [stage.path for stage in stages_in(sections)] == [("sft",), ("rlvr", 0), ("rlvr", 1), ("rlvr", 2)]


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("- name: math", "- name: mixed", 'rlvr.mixed.name: "mixed": is also the name of stage 0 of the list'),
        ("- name: math", "- name: dpo", 'rlvr.dpo.name: "dpo": is the name of a stage itself'),
        ("- name: math", "- name: rlvr", "is the name of a stage itself"),
        ("- name: math", "- name: Math", "small letters, digits, dashes and underscores, a letter first"),
        ("- name: math", "- name: a.b", "small letters, digits, dashes and underscores, a letter first"),
        ("- name: math", "- name: ../up", "small letters, digits, dashes and underscores, a letter first"),
        ("- name: math", "- name: 3", "rlvr.2.name: 3: wrong type, should be text, not a whole number"),
        ("  - name: math\n    data", "  - data", "rlvr.2.name: missing; add it: Name of the stage"),
        ("  - name: math", "  - some text\n  - name: math", 'rlvr.2: "some text": wrong type, should be a section'),
        ("    keep_every: 2\n", "    keep_every: 2\n    stepps: 3\n", "rlvr.mixed.stepps: unknown key; did you mean steps?"),
    ],
)
def test_a_name_is_needed_and_tells_the_stages_apart(write: Write, old: str, new: str, expected: str) -> None:
    assert SEVERAL.count(old) == 1
    told = complaints(write, SEVERAL.replace(old, new))
    assert expected in told
    assert "r.yaml:" in told


def test_a_section_alone_has_no_name_and_a_list_is_not_empty(write: Write) -> None:
    assert "rlvr.name: unknown key" in complaints(write, GOOD.replace("rlvr:\n", "rlvr:\n  name: math\n"))
    assert "rlvr: []" in complaints(write, GOOD.split("rlvr:")[0] + "rlvr: []\n")
    assert "at least" not in complaints(write, SEVERAL, "rlvr.gsm.batch=text")
    assert 'rlvr: "text": wrong type, should be a section' in complaints(write, GOOD.split("rlvr:")[0] + "rlvr: text\n")


def test_every_mistake_of_every_stage_is_told_by_name_and_line(write: Write) -> None:
    told = complaints(write, SEVERAL, "rlvr.gsm.batch=7", "rlvr.math.schedule=liner", "rlvr.mixed.max_length=3")
    assert told.startswith("r.yaml: 3 problems")
    for line in ("rlvr.gsm.batch: 7: batch is prompts × samples", "rlvr.math.schedule: ", "rlvr.mixed.max_length: 3: "):
        assert f"command line: {line}" in told
    spoilt = SEVERAL.replace("  - name: math\n", "  - name: math\n    micro_batch: 3\n")
    number = spoilt[: spoilt.index("batch: 16", spoilt.index("name: math"))].count("\n") + 1
    assert f"r.yaml:{number}: rlvr.math.batch: 16: does not divide" in complaints(write, spoilt)


def test_the_batch_of_each_stage_divides_over_the_processes(write: Write) -> None:
    text = SEVERAL.replace("  - name: math\n", "  - name: math\n    micro_batch: 2\n")
    load_recipe(write(text), processes=8)
    with pytest.raises(RecipeError, match=r"1 problem\n.*rlvr\.gsm\.batch: 16: does not divide over 5 processes"):
        load_recipe("r.yaml", processes=5, stage="rlvr.gsm")
    with pytest.raises(RecipeError, match="3 problems"):
        load_recipe("r.yaml", processes=5, stage="rlvr")


# -- overrides ----------------------------------------------------------------------------------------------------------------


def test_an_override_names_its_stage(write: Write) -> None:
    recipe = load_recipe(write(SEVERAL), ["rlvr.math.steps=9", "rlvr.1.steps=8", "rlvr.gsm.data.0.count=5", "seed=3"])
    assert [stage.section.steps for stage in stages_of(recipe, "rlvr")] == [2, 8, 9]
    assert [stage.section.seed for stage in stages_of(recipe)] == [3] * 6
    assert section_of(recipe, "rlvr.gsm").data[0].count == 5
    assert [stage.key for stage in stages_of(load_recipe("r.yaml", ["rlvr=null"]))] == ["sft", "dpo", "rm"]


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("rlvr.steps=9", "rlvr.steps: rlvr is a list of stages (mixed, gsm, math); name one, such as rlvr.mixed.steps"),
        ("rlvr.mth.steps=9", "(mixed, gsm, math); did you mean math?; name one, such as rlvr.mixed.steps"),
        ("rlvr.7.steps=9", "there are 3 items, counted from 0"),
    ],
)
def test_an_override_of_no_stage_names_those_that_there_are(write: Write, override: str, expected: str) -> None:
    assert expected in complaints(write, SEVERAL, override)


def test_another_model_and_another_template_leave_behind_what_belonged_to_the_old_one(write: Write) -> None:
    text = SEVERAL.replace("  - name: math\n", "  - name: math\n    template: zephyr\n    template_hash: 0123456789abcdef\n")
    assert "rlvr.math.template_hash" in complaints(write, text)
    recipe = load_recipe(write(text), ["rlvr.math.template=olmo", "model=owner/mine"])
    assert (section_of(recipe, "rlvr.math").template, section_of(recipe, "rlvr.math").template_hash) == ("olmo", None)
    assert section_of(recipe, "rlvr.gsm").released is None


def test_unknown_fields_are_those_of_a_stage_by_name(write: Write) -> None:
    recipe = load_recipe(write(UNKNOWN))
    assert list(open_fields(recipe)) == ["rlvr.math.beta", "rlvr.gsm.learning_rate"]
    demand(recipe, ["dpo", "rlvr.mixed"])
    with pytest.raises(RecipeError, match="1 field was") as caught:
        demand(recipe, ["rlvr.math"])
    assert "\n  rlvr.math.beta: swept; the recipe plans with 0.0\n" in str(caught.value)
    assert str(caught.value).endswith("such as rlvr.math.beta=0.0")
    with pytest.raises(RecipeError, match="2 fields were"):
        demand(recipe, ["rlvr"])
    for override in ("rlvr.math.beta=0.1", "rlvr.2.beta=0.1"):
        assert list(open_fields(load_recipe("r.yaml", [override]))) == ["rlvr.gsm.learning_rate"]
    assert load_recipe(write(dump(recipe))) == recipe


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        ("rlvr.beta: why", "this recipe has several rlvr stages; name one, such as rlvr.math.beta"),
        ("rlvr.mth.beta: why", "names no section of a recipe"),
        ("rlvr.math.bta: why", "names no field of a recipe; did you mean beta?"),
        ("rlvr.1.beta: why", "names no section of a recipe"),
    ],
)
def test_an_unknown_entry_that_names_no_stage_is_a_mistake(write: Write, entry: str, expected: str) -> None:
    assert expected in complaints(write, f"{SEVERAL}unknown:\n  - {entry}\n")


# -- what is written out ------------------------------------------------------------------------------------------------------


def test_the_resolved_recipe_is_read_back_as_the_same(write: Write) -> None:
    recipe = load_recipe(write(SEVERAL))
    assert load_recipe(write(dump(recipe))) == recipe
    assert next(iter(yaml.safe_load(dump(recipe))["rlvr"][0])) == "name"


def test_a_stage_printed_alone_keeps_the_stages_that_lead_to_it(write: Write) -> None:
    recipe = load_recipe(write(UNKNOWN.replace("rlvr.gsm.learning_rate", "dpo.beta")))
    printed = {only: yaml.safe_load(dump(recipe, only)) for only in ("dpo", "rlvr.mixed", "rlvr.math")}
    assert [section["name"] for section in printed["rlvr.mixed"]["rlvr"]] == ["mixed"]
    assert [section["name"] for section in printed["rlvr.math"]["rlvr"]] == ["mixed", "gsm", "math"]
    assert ["sft" in text for text in printed.values()] == ["rlvr" in printed["dpo"]] * 3 == [False] * 3
    assert [text["unknown"] for text in printed.values()] == [[{"dpo.beta": "swept too"}], [], [{"rlvr.math.beta": "swept"}]]
    again = load_recipe(write(dump(recipe, "rlvr.math")))
    assert section_of(again, "rlvr.math") == section_of(recipe, "rlvr.math")
    # A start that names a stage keeps it too.
    named = load_recipe(write(SEVERAL), ["rlvr.mixed.start=sft"])
    assert "sft" in yaml.safe_load(dump(named, "rlvr.gsm"))


def test_every_field_of_every_stage_has_an_origin(write: Write) -> None:
    text = SEVERAL.replace("rlvr:\n", "rlvr: # ours\n").replace("- name: math\n", "- name: math # docs/a.md @ 0123456\n")
    text = text.replace("    keep_every: 2\n", "    keep_every: 2 # scripts/b.sh @ 89abcdef: save_freq\n")
    overrides = ["rlvr.gsm.steps=7", "rlvr.2.seed=7"]
    found = origins("r.yaml", load_recipe(write(text), overrides), overrides)
    told = {key: str(found[f"rlvr.{key}"]) for key in ("mixed.keep_every", "gsm.steps", "gsm.batch", "math.batch", "math.seed")}
    assert told == {
        # What a section of ours takes from a source is a stand-in, and no release.
        "mixed.keep_every": "ours: scripts/b.sh @ 89abcdef: save_freq",
        "gsm.steps": "command line",
        "gsm.batch": "ours",
        "math.batch": "released: docs/a.md @ 0123456",
        "math.seed": "command line",
    }
    assert str(found["rlvr.math.data"]) == "released: docs/a.md @ 0123456"


def test_the_schema_for_editors_takes_a_section_and_a_list_with_names() -> None:
    schema = json.loads(json_schema())
    (several,) = [option for option in schema["properties"]["rlvr"]["anyOf"] if "oneOf" in option]
    one, many = several["oneOf"]
    assert (one["$ref"], many["items"]["$ref"]) == ("#/$defs/Rlvr", "#/$defs/NamedRlvr")
    assert "name" in schema["$defs"]["NamedRlvr"]["required"]
    assert "name" not in schema["$defs"]["Rlvr"]["properties"]


# -- where a stage starts -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("rlvr.mixed.start=math", "this stage does not run before; name an earlier stage (sft, dpo, rm)"),
        ("rlvr.mixed.start=mixed", "this stage does not run before"),
        ("sft.start=dpo", "this stage does not run before; no stage runs before this one, or a model folder"),
        ("rlvr.mixed.start=base", "this recipe has no stage base; name an earlier stage (sft, dpo, rm)"),
        ("rlvr.math.start=rm", "rm trains no model that writes answers"),
        ("rlvr.math.start=gms@step-2", "this recipe has no stage gms; did you mean gsm?"),
        ("rlvr.math.start=mixd", "is no stage of this recipe; did you mean mixed?"),
        (
            "rlvr.math.start=gsm@step-2",
            "gsm keeps no model of step 2 (it keeps the last alone); set rlvr.gsm.keep_every to a divisor of 2",
        ),
        ("rlvr.math.start=mixed@step-3", "mixed keeps no model of step 3 (it keeps every 2)"),
        ("rlvr.math.start=mixed@step-0", "mixed keeps no model of step 0"),
        ("rlvr.math.start=mixed@step-4", "mixed ends after 2 steps; name one of its steps, or raise rlvr.mixed.steps"),
        ("rlvr.math.start=dpo@step-2", "dpo keeps no model of step 2"),
        ("rlvr.math.start=./not-there", "no such folder"),
    ],
)
def test_a_start_that_cannot_be_is_one_message(write: Write, override: str, expected: str) -> None:
    told = complaints(write, SEVERAL, override)
    assert told.startswith("r.yaml: 1 problem\n")
    assert f"command line: {override.partition('=')[0]}: " in told
    assert expected in told


def test_each_stage_starts_from_the_one_before_unless_it_says_otherwise(write: Write, tmp_path: Path) -> None:
    recipe, runs = load_recipe(write(SEVERAL)), tmp_path / "runs"
    assert make_job(recipe, "rlvr.mixed", runs).start == "owner/model", "as an only stage would"
    assert make_job(recipe, "rlvr.gsm", runs).start == "owner/model-rlvr1"
    # Never the model of the whole recipe: that would leave out what the stages before taught.
    assert missing(recipe, "rlvr.math", runs) == ["rlvr.gsm"]
    with pytest.raises(
        RecipeError, match=r"rlvr\.math has no model to start from.*run `tulu rlvr` first, or set rlvr\.math\.start"
    ):
        make_job(recipe, "rlvr.math", runs)
    write_finished_stage(runs, "dpo")
    assert make_job(recipe, "rlvr.mixed", runs).start == str(runs / "test" / "dpo" / "model")
    assert missing(recipe, "rlvr.math", runs) == ["rlvr.gsm"], "and not that of DPO either"
    write_finished_stage(runs, "gsm")
    job = make_job(recipe, "rlvr.math", runs)
    assert (job.start, job.folder) == (str(runs / "test" / "gsm" / "model"), runs / "test" / "math")
    assert make_job(load_recipe("r.yaml", ["rlvr.math.start=dpo"]), "rlvr.math", runs).start == str(
        runs / "test" / "dpo" / "model"
    )
    assert make_job(load_recipe("r.yaml", ["rlvr.math.start=o/m"]), "rlvr.math", runs).start == "o/m"
    # Evaluation takes the newest.
    assert make_job(recipe, "evaluate", runs).start == str(runs / "test" / "gsm" / "model")


def test_a_named_stage_that_did_not_run_runs_first_or_released_stands_for_it(write: Write, tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    recipe = load_recipe(write(SEVERAL), ["rlvr.mixed.start=sft", "rlvr.gsm.released=null"])
    assert missing(recipe, "rlvr.gsm", runs) == ["sft", "rlvr.mixed"]
    with_released = load_recipe("r.yaml", ["rlvr.mixed.start=sft", "rlvr.mixed.released=o/r"])
    assert make_job(with_released, "rlvr.mixed", runs).start == "o/r"


def test_a_checkpoint_that_is_not_there_is_told_before_anything_runs(write: Write, tmp_path: Path) -> None:
    recipe, runs = load_recipe(write(SEVERAL)), tmp_path / "runs"
    write_finished_stage(runs, "mixed")
    with pytest.raises(RecipeError) as caught:
        make_job(recipe, "rlvr.gsm", runs)
    assert str(caught.value) == (
        f"{runs}/test/mixed has no model of step 2; it kept the last alone: name one of these or the last "
        "(rlvr.gsm.start=mixed), or run `tulu rlvr` again with rlvr.mixed.keep_every=2 and --fresh"
    )
    write_kept(runs, "mixed", 4, 6)
    with pytest.raises(RecipeError, match=r"has no model of step 2; it kept those of 4, 6: "):
        make_job(recipe, "rlvr.gsm", runs)
    write_kept(runs, "mixed", 2)
    assert make_job(recipe, "rlvr.gsm", runs).start == str(runs / "test" / "mixed" / "models" / "step-000002")
    # A stage that is still at work has kept it already.
    (runs / "test" / "mixed" / "model").rmdir()
    assert make_job(recipe, "rlvr.gsm", runs).start == str(runs / "test" / "mixed" / "models" / "step-000002")


def test_a_kept_model_of_another_origin_is_refused(write: Write, tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    write_finished_stage(runs, "mixed", model="owner/other")
    write_kept(runs, "mixed", 2)
    with pytest.raises(RecipeError, match=r"step-000002 was made with model owner/other.*`tulu rlvr` again"):
        make_job(load_recipe(write(SEVERAL)), "rlvr.gsm", runs)


def test_the_command_takes_the_next_unfinished_stage(write: Write, tmp_path: Path) -> None:
    recipe, runs = load_recipe(write(SEVERAL)), tmp_path / "runs"
    taken = []
    for name in ("mixed", "gsm", "math"):
        taken.append(next_stage(recipe, "rlvr", runs).key)
        write_finished_stage(runs, name)
    assert taken == ["rlvr.mixed", "rlvr.gsm", "rlvr.math"]
    assert next_stage(recipe, "rlvr", runs).key == "rlvr.math", "all are done: the last one says so"
    assert next_stage(recipe, "rlvr", runs, "gsm").key == next_stage(recipe, "rlvr", runs, "rlvr.gsm").key == "rlvr.gsm"
    with pytest.raises(RecipeError, match=r"--stage mth: recipe test has no rlvr stage of this name; it has mixed, gsm, math"):
        next_stage(recipe, "rlvr", runs, "mth")


def test_an_evaluation_asks_with_the_template_of_the_stage_whose_model_it_takes(write: Write, tmp_path: Path) -> None:
    recipe, runs = load_recipe(write(SEVERAL), ["rlvr.gsm.template=olmo"]), tmp_path / "runs"
    write_finished_stage(runs, "gsm")
    assert make_job(recipe, "evaluate", runs).template == ("olmo", None)
    write_finished_stage(runs, "math")
    assert make_job(recipe, "evaluate", runs).template == ("tulu", None)
    assert Job(recipe, "evaluate", runs / "test" / "evaluate", "owner/model").template == ("tulu", None)

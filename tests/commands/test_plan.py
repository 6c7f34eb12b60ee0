"""`tulu plan` prints what is known, what is assumed and what is not known."""

import socket
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tulu.cli import app
from tulu.config.load import built_in

GPUS = ["--gpu", "h100", "--gpus", "8", "--price", "2.5"]


def plan(*arguments: str) -> str:
    result = CliRunner(env={"COLUMNS": "500"}).invoke(app, ["plan", *arguments])
    assert result.exit_code == 0, result.output
    return result.stdout


@pytest.mark.parametrize("name", [path.stem for path in built_in()])
def test_every_recipe_is_planned_without_a_network(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("the plan went to the network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    text = plan(name, *GPUS)
    stages = text.count("\ntulu ") + text.startswith("tulu ")
    for line in (
        "batch",
        "rows",
        "lengths",
        "steps",
        "parameters",
        "row ",
        "memory",
        "tokens",
        "operations",
        "time",
        "cost",
        "energy",
    ):
        assert sum(row.startswith(line) for row in text.splitlines()) >= stages, line
    assert "in all: " in text
    assert "assumed: MFU 40%" in text
    assert "left out: " in text
    assert ("of it sampling" in text) == ("tulu rlvr" in text)


def test_sources_and_assumptions_stand_beside_their_numbers() -> None:
    text = plan("olmo2-instruct", *GPUS)
    assert "about 939,000 (allenai/tulu-3-sft-olmo-2-mixture: the hub's viewer shows 939k rows" in text
    assert "7,298,088,960 (allenai/OLMo-2-1124-7B: config.json" in text
    assert "log-normal, mean 776 tokens (of the data)" in text
    assert "answers log-normal, mean 512 tokens (assumed, give --tokens N)" in text
    assert "700 W × 85% × PUE 1.2 (arXiv 2503.05804)" in text


def test_learners_of_the_recipe_count_as_gpus_do() -> None:
    words = ["quickstart", "--gpu", "h100", "rlvr.resources.learners=4"]
    assert plan(*words) == plan(*words, "--gpus", "4")
    assert "= 4 processes ×" in plan(*words)
    result = CliRunner().invoke(app, ["plan", *words, "--gpus", "2"])
    assert result.exit_code == 2


def test_what_does_not_fit_is_told_with_a_cure() -> None:
    text = plan("tulu3-70b", "--gpu", "h100", "--gpus", "8")
    assert "does NOT fit 74 GiB of a GPU: " in text
    assert "--gpus 32 does" in text
    assert "cost" not in text, "nobody gave a price"
    assert "fits" in plan("tulu3-70b", "--gpu", "h100", "--gpus", "64")


def test_what_is_not_known_is_one_line_and_no_error(tmp_path: Path) -> None:
    recipe = tmp_path / "mine.yaml"
    recipe.write_text(
        "name: mine\nmodel: owner/model\ntemplate: tulu\n"
        "sft: {data: owner/rows, max_length: 64, batch: 8, epochs: 1, learning_rate: 1e-5}\n"
    )
    text = plan(str(recipe), *GPUS)
    unknown = [line for line in text.splitlines() if line.startswith("unknown")]
    assert len(unknown) == 1
    assert "--parameters 7.3e9" in unknown[0]
    assert "the rows of owner/rows: --rows N" in unknown[0]
    assert "in all: 0.00 h" in text
    assert "without sft, of which too little is known" in text
    given = plan(str(recipe), *GPUS, "--parameters", "7e9", "--rows", "1000")
    assert "unknown" not in given.replace("activations unknown", "")


def test_cards_are_those_of_the_table_of_cards() -> None:
    from tulu.config.cards import CARDS
    from tulu.model.cards import peak_flops

    assert {name: card.peak for name, card in CARDS.items()} == {name: peak_flops(name) for name in CARDS}


def test_the_time_on_paper() -> None:
    text = plan("olmo2-instruct", "--gpu", "h100", "--price", "2", "--parameters", "7e9", "--tokens", "500")
    # 2 × 939,000 rows × 492 tokens (500, cut at 4,096) × 8 · 7e9 FLOPs / (989e12 × 0.4) = 36.3 h
    assert "estimate, 36.3" in text
    assert "on 1 h100 at 40% of peak" in text
    assert "global batch 128 = 8 processes × micro-batch 8 × accumulation 2" in plan("olmo2-instruct", "--processes", "8")
    assert "give --gpu a100|h100|h200 for an estimate" in plan("olmo2-instruct")


def test_a_number_of_gpus_alone_gets_an_estimate_on_a_card_that_is_told_to_be_assumed() -> None:
    assumed, given = plan("olmo2-1b", "--gpus", "8"), plan("olmo2-1b", "--gpu", "h100", "--gpus", "8")
    told = "assumed: the GPUs are h100 (--gpu a100|h100|h200)\n"
    assert assumed.replace(told, "") == given
    assert assumed.count(told) == 1
    assert told not in given


@pytest.mark.parametrize("options", [["--parameters", "1"], ["--tokens", "1e9"], ["--mfu", "0.01"], ["--tokens", "1"]])
@pytest.mark.parametrize("name", ["olmo2-instruct", "olmoe-0125", "quickstart"])
def test_no_option_breaks_a_plan(name: str, options: list[str]) -> None:
    text = plan(name, "--gpu", "a100", *options)
    assert "nan" not in text
    assert "in all: " in text


def test_gpus_of_rlvr_are_divided_and_the_command_that_is_printed_is_that_division() -> None:
    text = plan("olmo2-1b", *GPUS)
    table = text[text.index("how to divide 8 GPUs (simulated)") :].splitlines()
    rows = [row for row in table[1:12] if "%" in row]
    [best] = [row for row in rows if "◀ best" in row]
    [ahead] = [row for row in rows if row.split()[3] == "1"]
    assert "the best is the recipe's own" in table
    assert "staleness 1: the fastest that runs ahead of the learner" in table
    assert best.split()[:2] == ["8", "–"], "on-policy, GPUs that wait for each other are lost"
    [advice] = [row for row in table if "times as fast" in row and "rlvr.math" in row]
    written = advice.split(": ")[1].split()
    again = plan("olmo2-1b", "--gpu", "h100", *written)
    own = again[again.rindex("how to divide 8 GPUs (simulated)") :].splitlines()
    [row] = [row for row in own if row.rstrip().endswith((" recipe", "◀ best")) and row.split()[0] == "4"]
    assert row.split()[:8] == ahead.split()[:8]
    assert "how to divide" not in plan("olmo2-1b", "--gpu", "h100", "--gpus", "1")
    assert "engines with GPUs of their own are vLLM" in plan("olmo2-1b", *GPUS, "rlvr.math.engine=transformers")


def test_a_recipe_with_engines_is_billed_for_their_gpus() -> None:
    text = plan("olmo2-1b", "--gpu", "h100", "--gpus", "4", "rlvr.math.resources.engines=4", "rlvr.math.max_staleness=1")
    assert "on 8 h100 at 40% of peak" in text
    assert "of it the learner waits" in text
    assert "fits 74 GiB of a GPU beside vLLM" not in text[text.index("tulu rlvr: math") :]


def test_a_teacher_is_counted_and_its_size_told() -> None:
    known, unknown = (plan("tulu3.1-8b", *GPUS, f"rlvr.teacher={name}") for name in ("allenai/OLMo-2-1124-7B", "owner/teacher"))
    assert "; teacher 7,298,088,960" in known
    assert "; teacher taken to be as large" in unknown
    for text in (known, unknown):
        assert ", teacher " in text[text.index("memory") :], "its weights"
        assert ", teacher " in text[text.index("operations") :], "its pass"


def test_what_is_given_of_the_loop_is_told() -> None:
    text = plan("olmo2-1b", *GPUS, "--teaching", "0.5", "--grading", "3", "--sync", "1.5")
    assert "50% of the groups teach nothing, as given" not in plan("olmo2-1b", *GPUS)
    assert "50% of the groups teach nothing, as given" in text
    assert "grades come 3 s after a group's last verdict (--grading), new weights in 1.5 s" in text


def test_slow_graders_are_told_to_be_the_bound_and_how_many_are_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    """512 answers of 2 s over 4 graders take 256 s a step, whoever samples them."""
    recipe = ["tulu3.1-8b", *GPUS, "rlvr.max_staleness=1", "rlvr.resources.engines=4", "--grade-seconds", "2"]
    sizes = ["rlvr.prompts=64", "rlvr.samples=8", "rlvr.batch=512", "rlvr.micro_batch=8"]
    text = plan(*recipe, *sizes, "rlvr.resources.graders=4")
    assert "4 (resources.graders), 2 s an answer (--grade-seconds): 512 answers of a step take 256.00 s at least" in text
    [advice] = [line for line in text.splitlines() if "graders are the bound" in line]
    enough = advice.split("enough are ")[1]
    again = plan(*recipe, *sizes, enough)
    assert "graders are the bound" not in again

    def row(told: str) -> list[str]:
        marked = [line for line in told.splitlines() if line.rstrip().endswith((" recipe", "◀ best"))]
        [found] = [line for line in marked if line.split()[1] == "4"]
        return found.split()

    assert float(row(text)[4]) == pytest.approx(256, rel=0.02), "seconds of a step"
    assert float(row(again)[4]) < 150
    assert (row(text)[8], row(again)[8] > "0%") == ("0%", True), "graders never rest where they are the bound"
    for name, value in (("TULU_JUDGE_URL", "http://127.0.0.1:9/v1"), ("TULU_JUDGE_MODEL", "judge")):
        monkeypatch.setenv(name, value)
    judge = ["rlvr.verifier=llm_judge", "rlvr.verifier_mode=strict", "rlvr.resources.engines=4"]
    judged = plan("tulu3.1-8b", *GPUS, *judge, "--grade-seconds", "60")
    assert "32 requests at once are the most" in judged
    assert "graders are the bound" not in plan("tulu3.1-8b", *GPUS, "rlvr.resources.engines=4")


@pytest.mark.parametrize(
    "options",
    [
        ["--parameters", "1"],
        ["--grade-seconds", "1e6"],
        ["--grade-seconds", "0", "rlvr.resources.graders=1000000000"],
        ["--parameters", "4e11"],
        ["--tokens", "1e9"],
        ["--teaching", "0.01", "rlvr.refill=true"],
        ["--sync", "0", "--grading", "0", "--tokens", "1"],
        ["--mfu", "0.01", "rlvr.max_staleness=9"],
        ["rlvr.resources.engines=1016", "rlvr.max_staleness=1"],
        ["rlvr.kl_in=reward", "rlvr.beta=0.1", "rlvr.teacher=owner/teacher"],
    ],
)
def test_no_option_breaks_a_division(options: list[str]) -> None:
    text = plan("tulu3.1-8b", *GPUS, *options)
    assert "how to divide" in text
    assert "nan" not in text
    assert ("◀ best" in text) != ("no division of these GPUs holds the model" in text)

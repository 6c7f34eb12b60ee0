"""`--tiny` at the command of each stage: it trains 3 steps of that stage, after those that it needs, and says where."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tulu.cli import app

Tried = Callable[..., str]


@pytest.fixture
def tried(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Tried:
    """tried(command, recipe) -> what the command says, with --tiny and the folder of runs `runs`."""
    for launched in ("RANK", "WORLD_SIZE", "TULU_JUDGE_URL", "OPENAI_BASE_URL"):
        monkeypatch.delenv(launched, raising=False)
    monkeypatch.chdir(tmp_path)

    def call(*arguments: str) -> str:
        result = CliRunner().invoke(app, [*arguments, "--tiny", "--runs", "runs"])
        assert result.exit_code == 0, result.output[-3000:]
        return result.output

    return call


def trained(recipe: str) -> dict[str, list[int]]:
    """The steps in metrics.jsonl of each stage of a tiny run."""
    files = Path("runs", f"{recipe}-tiny").glob("*/metrics.jsonl")
    return {file.parent.name: [json.loads(line)["step"] for line in file.read_text().splitlines()] for file in files}


def test_sft_dpo_two_rlvr_stages_and_an_evaluation(tried: Tried) -> None:
    steps = [1, 2, 3]
    tried("sft", "olmo2-1b")
    assert trained("olmo2-1b") == {"sft": steps}
    tried("dpo", "olmo2-1b")
    assert trained("olmo2-1b") == {"sft": steps, "dpo": steps}
    assert "rlvr.mixed: finished" in tried("rlvr", "olmo2-1b")
    assert trained("olmo2-1b") == {"sft": steps, "dpo": steps, "mixed": steps}
    assert "rlvr.math: finished" in tried("rlvr", "olmo2-1b")
    assert trained("olmo2-1b") == {"sft": steps, "dpo": steps, "mixed": steps, "math": steps}
    tried("evaluate", "olmo2-1b")
    [result] = Path("runs", "olmo2-1b-tiny", "evaluate").rglob("results.json")
    assert str(Path("math", "model")) in json.loads(result.read_text())["model"]
    assert trained("olmo2-1b").keys() == {"sft", "dpo", "mixed", "math"}


def models(recipe: str) -> set[str]:
    """The stages of a tiny run that have a model, and its inputs."""
    return {file.parents[1].name for file in Path("runs", f"{recipe}-tiny").glob("*/model/config.json")}


def test_a_reward_model(tried: Tried) -> None:
    assert "rm: finished" in tried("rm", "tulu3-8b")
    assert trained("tulu3-8b") == {"rm": [1, 2, 3]}
    assert models("tulu3-8b") == {"inputs", "rm"}


def test_a_merge_of_the_sft_that_was_tried_before(tried: Tried) -> None:
    refused = CliRunner().invoke(app, ["merge", "olmo3-32b-think", "--tiny", "--runs", "runs"])
    assert refused.exit_code == 2
    assert "run `tulu sft RECIPE` first" in refused.stderr
    tried("sft", "olmo3-32b-think")
    assert "merge: finished" in tried("merge", "olmo3-32b-think")
    assert models("olmo3-32b-think") == {"inputs", "sft", "merge"}

"""Code that a model brings along runs where a recipe or an option says so, and nobody is asked on a terminal."""

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSequenceClassification
from typer.testing import CliRunner

from tests.model.test_refusals import change_config
from tulu.cli import app
from tulu.errors import RecipeError
from tulu.model.load import from_pretrained
from tulu.model.policy import Policy
from tulu.reward_models.model import RewardModel

MODELING = """
from transformers import AutoModel, LlamaConfig, LlamaForCausalLM, LlamaForSequenceClassification, LlamaModel

class OwnConfig(LlamaConfig):
    model_type = "own"

class OwnForCausalLM(LlamaForCausalLM):
    config_class = OwnConfig

class OwnModel(LlamaModel):
    config_class = OwnConfig

AutoModel.register(OwnConfig, OwnModel)

class OwnForSequenceClassification(LlamaForSequenceClassification):
    config_class = OwnConfig
"""
AUTO_MAP = {"AutoConfig": "modeling_own.OwnConfig", "AutoModelForCausalLM": "modeling_own.OwnForCausalLM"}


@pytest.fixture
def own_code(tiny_model: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A model whose architecture is a file of its folder."""
    folder = Path(shutil.copytree(tiny_model("llama"), tmp_path / "own"))
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))
    monkeypatch.setattr("sys.path", [*sys.path])
    (folder / "modeling_own.py").write_text(MODELING)
    change_config(model_type="own", architectures=["OwnForCausalLM"], auto_map=AUTO_MAP)(folder)
    monkeypatch.setattr("builtins.input", lambda _: pytest.fail("a terminal that is not there was asked"))
    return folder


@pytest.mark.parametrize("auto_class", [AutoConfig, AutoModelForCausalLM, AutoModelForSequenceClassification])
def test_code_of_a_model_does_not_run_and_nobody_is_asked(auto_class: Any, own_code: Path) -> None:
    with pytest.raises(RecipeError, match="needs code of its own") as error:
        from_pretrained(auto_class, own_code)
    assert "set trust_remote_code: true in the recipe, or --trust-remote-code" in str(error.value)


def test_trusted_code_trains_and_is_saved_beside_the_weights(own_code: Path, tmp_path: Path) -> None:
    policy = Policy.load(own_code, template="tulu", trust_remote_code=True)
    policy.save(tmp_path / "saved")
    again = Policy.load(tmp_path / "saved", template="tulu", trust_remote_code=True)
    assert type(again.model).__name__ == "OwnForCausalLM"
    assert again.digest() == policy.digest()


@pytest.mark.parametrize(
    "command",
    [
        ["evaluate", "MODEL", "--task", "mine", "--data", "ROWS", "--max-tokens", "4"],
        ["sample", "MODEL", "--data", "ROWS", "--verifier", "own", "--max-tokens", "4", "--n", "2", "--engine", "transformers"],
        ["rewardbench", "MODEL", "--data", "PAIRS", "--reference-free", "avg"],
    ],
)
def test_every_command_that_reads_a_model_has_the_option(command: list[str], own_code: Path, tmp_path: Path) -> None:
    rows, pairs = tmp_path / "rows.jsonl", tmp_path / "pairs.jsonl"
    rows.write_text('{"prompt": "one", "ground_truth": "two", "dataset": "exact"}\n')
    pairs.write_text(json.dumps({"id": "1", "subset": "mine", "prompt": "one", "chosen": "two", "rejected": "six"}) + "\n")
    places = {"MODEL": str(own_code), "ROWS": str(rows), "PAIRS": str(pairs)}
    arguments = [places.get(word, word) for word in command] + ["--out", str(tmp_path / "out")]
    refused = CliRunner().invoke(app, arguments)
    assert (refused.exit_code, "needs code of its own" in refused.stderr) == (2, True), refused.output
    trusted = CliRunner().invoke(app, [*arguments, "--trust-remote-code"])
    assert "needs code of its own" not in trusted.output
    # What it samples at random never stops, which ends `tulu sample` with code 1.
    assert trusted.exit_code == (1 if command[0] == "sample" else 0), trusted.output
    assert list((tmp_path / "out").iterdir())


def test_a_reward_model_with_code_of_its_own_verifies(own_code: Path, tiny_model: Callable[..., Path], tmp_path: Path) -> None:
    RewardModel.load(tiny_model("llama"), template="tulu", new_head=0).save(tmp_path / "rm")
    shutil.copy(own_code / "modeling_own.py", tmp_path / "rm")
    name = "OwnForSequenceClassification"
    auto_map = {"AutoConfig": "modeling_own.OwnConfig", "AutoModelForSequenceClassification": f"modeling_own.{name}"}
    change_config(model_type="own", architectures=[name], auto_map=auto_map)(tmp_path / "rm")
    (tmp_path / "rows.jsonl").write_text('{"prompt": "one", "completion": "two", "ground_truth": null}\n')
    files = ["--in", str(tmp_path / "rows.jsonl"), "--out", str(tmp_path / "out.jsonl")]
    command = ["verify", "reward_model", *files, "--reward-model", str(tmp_path / "rm")]
    refused = CliRunner().invoke(app, command)
    assert (refused.exit_code, "needs code of its own" in refused.stderr) == (2, True), refused.output
    trusted = CliRunner().invoke(app, [*command, "--trust-remote-code"])
    assert trusted.exit_code == 0, trusted.output
    assert json.loads((tmp_path / "out.jsonl").read_text())["status"] == "ok"
    without = CliRunner().invoke(app, ["verify", "exact", *files, "--trust-remote-code"])
    assert (without.exit_code, "belongs to --reward-model" in without.stderr) == (2, True)

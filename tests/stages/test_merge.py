"""The stage merge: from two trained models to a third, once, and only of models of one kind."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer
from typer.testing import CliRunner, Result

from tests.conftest import make_tiny_model
from tulu.cli import app
from tulu.config.stages import STAGES, resolve
from tulu.stages import merge as stage

TRAIN = {"max_length": 64, "batch": 4, "steps": 1, "learning_rate": 1e-2, "precision": "fp32", "row_tokens": 256}
SFT = {**TRAIN, "data": {"name": "sums:sft", "count": 8}}
DPO = {**TRAIN, "data": {"name": "sums:pairs", "count": 8}}


@pytest.fixture
def models(tiny_model: Callable[..., Path]) -> list[str]:
    return [str(tiny_model("olmo2", seed)) for seed in (0, 1)]


def write(folder: Path, models: list[Any], **sections: Any) -> Path:
    named = [{"name": model} if isinstance(model, str) else model for model in models]
    file = folder / "merged.yaml"
    first = next(model["name"] for model in named if "name" in model)
    merge = {"models": named, **sections.pop("merge", {})}
    file.write_text(yaml.safe_dump({"name": "soup", "model": first, "template": "tulu", "merge": merge, **sections}))
    return file


def tulu(*arguments: Any, runs: Path) -> Result:
    return CliRunner().invoke(app, [*map(str, arguments), "--runs", str(runs)], catch_exceptions=False)


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def test_the_mean_of_two_models_is_a_model(models: list[str], tmp_path: Path) -> None:
    recipe = write(tmp_path, models, merge={"weights": [3.0, 1.0]})
    result = tulu("merge", recipe, runs=tmp_path)
    assert result.exit_code == 0, result.output
    folder = tmp_path / "soup" / "merge"
    first, second, mean = weights(Path(models[0])), weights(Path(models[1])), weights(folder / "model")
    assert {
        name: torch.allclose(mean[name], 0.75 * first[name] + 0.25 * second[name], atol=1e-6) for name in first
    } == dict.fromkeys(first, True)
    loaded = AutoModelForCausalLM.from_pretrained(folder / "model")
    assert all(torch.equal(tensor, mean[name]) for name, tensor in loaded.state_dict().items() if name in mean)
    assert AutoTokenizer.from_pretrained(folder / "model").chat_template == AutoTokenizer.from_pretrained(models[0]).chat_template
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["finished"]
    assert manifest["pinned"]["shares"] == [0.75, 0.25]
    assert [model["model"] for model in manifest["pinned"]["models"]] == models
    assert sorted(manifest["model"]) == sorted(file.name for file in (folder / "model").iterdir())
    assert not list(folder.glob(".partial*"))


def test_it_is_done_once_and_a_damaged_one_again(models: list[str], tmp_path: Path) -> None:
    recipe = write(tmp_path, models)
    assert tulu("merge", recipe, runs=tmp_path).exit_code == 0
    file = tmp_path / "soup" / "merge" / "model" / "model.safetensors"
    content, made = file.read_bytes(), file.stat().st_mtime_ns
    assert tulu("merge", recipe, runs=tmp_path).exit_code == 0
    assert file.stat().st_mtime_ns == made
    file.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    assert tulu("merge", recipe, runs=tmp_path).exit_code == 0
    assert file.read_bytes() == content


def test_another_merge_in_the_same_run_is_refused(models: list[str], tmp_path: Path) -> None:
    recipe = write(tmp_path, models)
    assert tulu("merge", recipe, runs=tmp_path).exit_code == 0
    result = tulu("merge", recipe, "merge.weights=[1.0,3.0]", runs=tmp_path)
    assert result.exit_code == 2
    assert "shares: [0.5, 0.5] -> [0.25, 0.75]" in result.output
    assert "--fresh" in result.output
    assert tulu("merge", recipe, "merge.weights=[1.0,3.0]", "--fresh", runs=tmp_path).exit_code == 0
    assert json.loads((tmp_path / "soup" / "merge" / "manifest.json").read_text())["pinned"]["shares"] == [0.25, 0.75]


def test_what_is_cut_off_leaves_no_model(models: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = write(tmp_path, models)
    with monkeypatch.context() as patch:
        patch.setattr(stage, "write_average", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
        result = tulu("merge", recipe, runs=tmp_path)
    assert result.exit_code == 1
    assert "could not be written" in result.output
    folder = tmp_path / "soup" / "merge"
    assert not (folder / "model").exists()
    assert not list(folder.glob(".partial*"))
    assert tulu("merge", recipe, runs=tmp_path).exit_code == 0


def other_vocabulary(folder: Path) -> None:
    make_tiny_model(folder, seed=1, vocab_size=300)


def other_base(folder: Path) -> None:
    make_tiny_model(folder, seed=1, rope_parameters={"rope_type": "default", "rope_theta": 777.0})


def other_template(folder: Path) -> None:
    make_tiny_model(folder, seed=1)
    (folder / "chat_template.jinja").write_text("{{ messages }}")


def other_tokens(folder: Path) -> None:
    make_tiny_model(folder, seed=1)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_special_tokens({"pad_token": "<|another pad|>"})
    tokenizer.save_pretrained(folder)


def other_dtype(folder: Path) -> None:
    make_tiny_model(folder, seed=1)
    model = AutoModelForCausalLM.from_pretrained(folder).bfloat16()
    model.save_pretrained(folder)


@pytest.mark.parametrize(
    ("make", "named"),
    [
        (other_vocabulary, "model.embed_tokens.weight: shape"),
        (other_base, "config.json.rope_parameters.rope_theta: 10000.0 -> 777.0"),
        (other_template, "chat template"),
        (other_tokens, "tokenizer"),
        (other_dtype, "float32 and bfloat16"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_models_of_another_kind_are_refused(models: list[str], tmp_path: Path, make: Callable[[Path], None], named: str) -> None:
    make(tmp_path / "other")
    result = tulu("merge", write(tmp_path, [models[0], str(tmp_path / "other")]), runs=tmp_path)
    assert result.exit_code == 2
    assert "is no model of the kind of" in result.output
    assert named in result.output
    assert not (tmp_path / "soup").exists()


def test_a_folder_that_changed_since_it_was_trained_is_refused(models: list[str], tmp_path: Path) -> None:
    """The model of a run has digests; its weights are not what the run wrote."""
    recipe = write(tmp_path, models)
    assert tulu("merge", recipe, runs=tmp_path).exit_code == 0
    made = tmp_path / "soup" / "merge" / "model"
    content = (made / "model.safetensors").read_bytes()
    (made / "model.safetensors").write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    again = write(tmp_path, [models[0], str(made)])
    result = tulu("merge", again, "name=again", runs=tmp_path)
    assert result.exit_code == 2
    assert "is damaged: model.safetensors is not what was written" in result.output


@pytest.mark.parametrize(
    ("models_of", "message"),
    [
        ([{"name": "A"}], "at least 2 items"),
        ([{"name": "A"}, {"name": "B", "stage": "sft"}], "exactly one of name"),
        ([{"name": "A"}, {"name": "B", "run": "other"}], "run belongs to stage"),
        ([{"name": "A"}, {"stage": "sft", "revision": "main"}], "revision belongs to a name"),
        ([{"name": "A"}, {"name": "A"}], "is also item 0"),
        ([{"name": "A"}, {"stage": "dpo"}], "this recipe has no dpo before merge"),
        ([{"name": "A"}, {"name": "./nowhere/model"}], "no such folder"),
    ],
)
def test_wrong_sections_are_told_before_torch(models: list[str], tmp_path: Path, models_of: list[Any], message: str) -> None:
    known = [{**entry, "name": models[0]} if entry.get("name") == "A" else entry for entry in models_of]
    known = [{**entry, "name": models[1]} if entry.get("name") == "B" else entry for entry in known]
    file = tmp_path / "wrong.yaml"
    file.write_text(yaml.safe_dump({"name": "soup", "model": models[0], "template": "tulu", "merge": {"models": known}}))
    result = tulu("merge", file, runs=tmp_path)
    assert result.exit_code == 2
    assert message in result.output
    assert "Traceback" not in result.output


def test_weights_are_as_many_as_models(models: list[str], tmp_path: Path) -> None:
    result = tulu("merge", write(tmp_path, models, merge={"weights": [1.0]}), runs=tmp_path)
    assert result.exit_code == 2
    assert "1 weights for 2 models" in result.output
    result = tulu("merge", write(tmp_path, models, merge={"weights": [1.0, 0.0]}), runs=tmp_path)
    assert result.exit_code == 2
    assert "greater than 0" in result.output


def test_a_recipe_merges_its_own_sft_with_that_of_another_run(models: list[str], tmp_path: Path) -> None:
    """As Olmo 3 32B Think: the second SFT is a run of its own, by another name and with another learning rate."""
    parts = [{"stage": "sft"}, {"stage": "sft", "run": "other"}]
    recipe = tmp_path / "think.yaml"
    sections = {"sft": SFT, "merge": {"models": parts}, "dpo": DPO}
    recipe.write_text(yaml.safe_dump({"name": "think", "model": models[0], "template": "tulu", **sections}))
    early = tulu("run", recipe, runs=tmp_path)
    assert early.exit_code == 2
    assert "tulu sft RECIPE name=other" in early.output
    assert not (tmp_path / "think").exists(), "nothing is trained before the other run is there"
    assert tulu("sft", recipe, "name=other", "sft.learning_rate=0.02", runs=tmp_path).exit_code == 0
    unready = tulu("merge", recipe, runs=tmp_path)
    assert unready.exit_code == 2
    assert f"{tmp_path}/think/sft was not run; run `tulu sft RECIPE` first" in unready.output.replace("\n", "")
    assert tulu("sft", recipe, runs=tmp_path).exit_code == 0
    skipped = tulu("dpo", recipe, runs=tmp_path)
    assert skipped.exit_code == 2
    assert "run `tulu merge` first" in skipped.output.replace("\n", " ")
    assert tulu("run", recipe, runs=tmp_path).exit_code == 0
    run = tmp_path / "think"
    first, second = weights(run / "sft" / "model"), weights(tmp_path / "other" / "sft" / "model")
    mean = weights(run / "merge" / "model")
    assert all(torch.allclose(mean[name], (first[name] + second[name]) / 2, atol=1e-7) for name in first)
    assert any(not torch.equal(first[name], second[name]) for name in first)
    assert f"start: {run / 'merge' / 'model'}" in (run / "dpo" / "recipe.yaml").read_text()
    shutil.rmtree(run / "dpo")
    assert tulu("dpo", recipe, "--dry-run", runs=tmp_path).exit_code == 0


def test_of_several_ranks_one_merges_and_the_others_wait(models: list[str], tmp_path: Path) -> None:
    recipe = write(tmp_path, models)
    assert tulu("merge", recipe, "name=alone", runs=tmp_path).exit_code == 0
    command = [sys.executable, "-m", "tulu", "merge", str(recipe), "--gpus", "2", "--runs", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    alone, together = (weights(tmp_path / name / "merge" / "model") for name in ("alone", "soup"))
    assert all(torch.equal(alone[name], together[name]) for name in alone)


def test_the_stage_is_in_the_table() -> None:
    row = STAGES["merge"]
    assert resolve(row.runner) is stage.run
    assert (row.trains, row.yields_policy, row.makes_folder) == (False, True, True)

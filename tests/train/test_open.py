"""How a training stage begins: what its tokenizer and its model are loaded with."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tulu.config.job import Job
from tulu.config.schema import Recipe
from tulu.config.templates import TEMPLATES, source_hash
from tulu.errors import RecipeError
from tulu.stages import base, rlvr, sft
from tulu.train.open import open_stage

STAGE_RUNNERS = {"base": base.run, "sft": sft.run, "rlvr": rlvr.run}

SFT = {"data": "rows.jsonl", "max_length": 64, "batch": 4, "epochs": 1, "learning_rate": 1e-3, "precision": "fp32"}


class Recorder(dict[str, Any]):
    """A model class that records what its `load` was called with, and where saving was rehearsed."""

    @classmethod
    def load(cls, path: str, **options: Any) -> "Recorder":
        return cls(path=path, **options)

    def rehearse_saving(self, folder: Path) -> None:
        self["rehearsed"] = folder.name

    def save(self, folder: Path, write: bool) -> None:
        """Nothing is trained here, and so nothing is written."""


@pytest.mark.parametrize(("start", "revision"), [("owner/model", "abc"), ("owner/other", None)])
def test_the_base_model_is_loaded_at_the_recipes_revision(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, start: str, revision: str | None
) -> None:
    sft = {**SFT, "gradient_checkpointing": True}
    base = {"model": "owner/model", "revision": "abc", "template": "tulu", "trust_remote_code": True}
    recipe = Recipe.model_validate({"name": "tiny", **base, "sft": sft})
    run = open_stage(Job(recipe, "sft", tmp_path / "tiny" / "sft", start))
    loaded = run.load(Recorder, new_head=1)
    assert loaded == {
        "path": start,
        "template": "tulu",
        "lora": None,
        "gradient_checkpointing": True,
        "revision": revision,
        "trust_remote_code": True,
        "resize_embeddings": False,
        "trainable": True,
        "new_head": 1,
        "rehearsed": ".partial-rehearsal",
    }
    checked: list[Any] = []
    monkeypatch.setattr("tulu.train.open.checked_config", lambda *arguments, **options: checked.append((*arguments, options)))
    monkeypatch.setattr("tulu.train.open.check_vocabulary", lambda *arguments: None)
    monkeypatch.setattr("tulu.train.open.check_length", lambda *arguments: None)
    monkeypatch.setattr("tulu.train.open.load_tokenizer", lambda *arguments: arguments)
    assert tuple(run.tokenizer) == (start, "tulu", revision, True, None)
    assert checked == [(start, {"trainable": True, "revision": revision, "trust_remote_code": True})]


RLVR = {**SFT, "verifier": "gsm8k", "prompts": 2, "samples": 2, "steps": 1, "epochs": None, "max_prompt": 400, "max_tokens": 113}


@pytest.mark.parametrize(
    ("stage", "section", "field"),
    [
        ("sft", {**SFT, "max_length": 513}, "sft.max_length: 513 tokens"),
        ("rlvr", {**RLVR, "max_length": 513}, "rlvr.max_prompt . rlvr.max_tokens: 513 tokens"),
    ],
)
def test_documents_longer_than_the_models_positions_are_refused_before_data_is_read(
    stage: str, section: dict[str, Any], field: str, tmp_path: Path, tiny_model: Callable[..., Path]
) -> None:
    """The model has 512 positions, and the data is no file."""
    start = str(tiny_model("llama"))
    recipe = Recipe.model_validate({"name": "tiny", "model": start, "template": "tulu", stage: section})
    with pytest.raises(RecipeError, match=f"{field}.*512 positions"):
        STAGE_RUNNERS[stage](Job(recipe, stage, tmp_path / "tiny" / stage, start))


def test_a_stage_reads_its_own_template_and_its_hash(tmp_path: Path, tiny_model: Callable[..., Path]) -> None:
    start = str(tiny_model("llama"))
    own = {**SFT, "template": "zephyr", "template_hash": source_hash(TEMPLATES["zephyr"])}
    recipe = Recipe.model_validate({"name": "tiny", "model": start, "template": "tulu", "sft": own})
    assert open_stage(Job(recipe, "sft", tmp_path / "tiny" / "sft", start)).tokenizer.chat_template == TEMPLATES["zephyr"]
    pinned = recipe.model_copy(update={"sft": recipe.sft.model_copy(update={"template_hash": "0" * 16})})  # type: ignore[union-attr]
    with pytest.raises(RecipeError, match="template_hash: 0000"):
        _ = open_stage(Job(pinned, "sft", tmp_path / "other" / "sft", start)).tokenizer


def test_a_new_model_has_positions_for_its_data(tmp_path: Path) -> None:
    config = {"model_type": "llama", "hidden_size": 32, "num_attention_heads": 2, "max_position_embeddings": 32}
    base = {**SFT, "config": config, "max_length": 33}
    recipe = Recipe.model_validate({"name": "tiny", "base": base})
    with pytest.raises(RecipeError, match=r"base.max_length: 33 tokens.*32 positions"):
        STAGE_RUNNERS["base"](Job(recipe, "base", tmp_path / "tiny" / "base", None))


def test_a_stage_does_not_start_from_a_model_that_was_damaged_since_it_was_written(
    tmp_path: Path, tiny_model: Callable[..., Path]
) -> None:
    recipe = Recipe.model_validate({"name": "tiny", "model": "owner/model", "template": "tulu", "sft": SFT, "dpo": SFT})
    earlier = open_stage(Job(recipe, "sft", tmp_path / "tiny" / "sft", "owner/model"))

    def save(partial: Path, write: bool) -> None:
        shutil.copytree(tiny_model("olmo2"), partial)

    folder = earlier.finish(save)
    run = open_stage(Job(recipe, "dpo", tmp_path / "tiny" / "dpo", str(folder)))
    assert run.tokenizer is not None
    weights = bytearray((folder / "model.safetensors").read_bytes())
    weights[-9] ^= 1
    (folder / "model.safetensors").write_bytes(weights)
    run = open_stage(Job(recipe, "dpo", tmp_path / "tiny" / "dpo", str(folder)))
    with pytest.raises(RecipeError, match=rf"{folder}: is damaged: model\.safetensors is not what was written\nRun the stage"):
        run.tokenizer  # noqa: B018

"""How a training stage begins: what its tokenizer and its model are loaded with."""

from pathlib import Path
from typing import Any

import pytest

from tulu.config.job import Job
from tulu.config.schema import Recipe
from tulu.train.open import open_stage

SFT = {"data": "rows.jsonl", "max_length": 64, "batch": 4, "epochs": 1, "learning_rate": 1e-3, "precision": "fp32"}


class Recorder(dict[str, Any]):
    """A model class that records what its `load` was called with, and where saving was rehearsed."""

    @classmethod
    def load(cls, path: str, **options: Any) -> "Recorder":
        return cls(path=path, **options)

    def rehearse_saving(self, folder: Path) -> None:
        self["rehearsed"] = folder.name


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
    monkeypatch.setattr("tulu.train.open.load_tokenizer", lambda *arguments: arguments)
    assert tuple(run.tokenizer) == (start, "tulu", revision, True)
    assert checked == [(start, {"trainable": True, "revision": revision, "trust_remote_code": True})]

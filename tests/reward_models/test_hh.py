"""HH-RLHF: a tiny model is trained on real pairs and evaluated on others, with its interval, beside length alone."""

import gzip
import json
from collections.abc import Callable
from pathlib import Path

from tulu.config.job import make_job
from tulu.config.schema import Recipe
from tulu.reward_models import training
from tulu.reward_models.options import RewardBenchOptions
from tulu.reward_models.rewardbench import run

TRAINED, HELD_OUT = 96, 64


def test_trained_on_hh_and_evaluated_on_held_out_pairs(
    tiny_model: Callable[..., Path], shared_data: Path, tmp_path: Path
) -> None:
    with gzip.open(shared_data / "hh_rlhf/harmless-base/test.jsonl.gz", "rt", encoding="utf-8") as stream:
        lines = [line for line in stream if len(line) < 1500][: TRAINED + HELD_OUT]
    for name, part in (("train", lines[:TRAINED]), ("held_out", lines[TRAINED:])):
        (tmp_path / f"{name}.jsonl").write_text("".join(part), encoding="utf-8")
    stage = {"data": str(tmp_path / "train.jsonl"), "max_length": 1600, "batch": 16, "steps": 6, "learning_rate": 1e-3}
    model = tiny_model("olmo2", 0, max_position_embeddings=2048)
    recipe = Recipe.model_validate({"name": "hh", "model": str(model), "rm": {**stage, "precision": "fp32"}})
    folder = training.run(make_job(recipe, "rm", tmp_path / "runs", fresh=False))

    out = run(str(folder), str(tmp_path / "held_out.jsonl"), None, RewardBenchOptions(out=tmp_path / "out", json_output=True))
    assert out is not None
    found = json.loads((out / "results.json").read_text())
    assert found["subsets"]["held_out"]["count"] == HELD_OUT
    low, high = found["intervals"]["score"]
    assert low <= found["score"] <= high
    assert high - low < 0.35
    assert 0 < found["baselines"]["longer wins"]["score"] < 1
    assert found["counts"]["prompt_cut"] == found["missing"] == 0

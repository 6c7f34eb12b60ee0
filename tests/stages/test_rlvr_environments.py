"""Each kind of environment trains, and what the learner trains on are the tokens that were sampled, with their log-probs.

The engine is forced to say what a script says. The log-probs that it gives are those of transformers' own forward pass over the
tokens that it was asked to continue, so that learner and engine agree only where both read the very same tokens.
"""

import json
import math
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch
import yaml
from safetensors.torch import load_file
from torch import Tensor
from transformers import AutoModelForCausalLM
from typer.testing import CliRunner

from tests.environments.test_turns import TEMPLATE
from tests.rollout.test_episodes import END, SHOP, calls
from tests.rollout.test_taskset_episodes import GUESSING, PROBLEM
from tulu.cli import app
from tulu.rollout import engines
from tulu.stages import rlvr
from tulu.types import Completion, Group, Problem, SamplingParams

Script = Callable[[str, int], str]
"""(what is to be continued, number of the completion) -> a turn."""


class Forced:
    """An engine that says what a script says."""

    script: Script
    said: list[int]

    def __init__(self, model: Any, tokenizer: Any, spec: Any, progress: Any = None) -> None:
        self.model = AutoModelForCausalLM.from_pretrained(spec.folder, dtype=torch.float32, attn_implementation="eager")
        self.version = -1

    def generate(self, problems: Sequence[Problem], n: int, params: SamplingParams) -> list[Group]:
        return [Group(one.prompt, [self._turn(one, place * n + sample) for sample in range(n)], one.id)
                for place, one in enumerate(problems)]  # fmt: skip

    def _turn(self, problem: Problem, number: int) -> Completion:
        prompt = list(problem.prompt)
        text = bytes(token for token in prompt if token < 256).decode("utf-8", "replace")
        tokens = [*type(self).script(text, number).encode(), END]
        with torch.no_grad():
            logits = self.model(torch.tensor([prompt + tokens])).logits[0, len(prompt) - 1 : -1]
        logps = logits.log_softmax(-1).gather(1, torch.tensor(tokens)[:, None])[:, 0]
        type(self).said += tokens
        return Completion(tokens, [True] * len(tokens), logps.tolist(), "stop", [(0, self.version)])

    def sync(self, weights: Iterable[tuple[str, Tensor]], version: int) -> None:
        missing, unexpected = self.model.load_state_dict(dict(weights), strict=False)
        assert not missing
        assert not unexpected
        self.version = version

    def close(self) -> None:
        pass


def shopping(text: str, number: int) -> str:
    return "Done." if "<|tool|>" in text else calls(1, number % 3)


def reckoning(text: str, number: int) -> str:
    [sum_] = re.findall(r"([-+\d ]+) = *\n", text)
    return f"<answer>{eval(sum_) + number % 2}</answer>"


def guessing(text: str, number: int) -> str:
    return str(number % 2 + 1)


KINDS: dict[str, tuple[Script, dict[str, Any]]] = {
    "own": (shopping, {"env": {"path": SHOP}}),
    "kl_in_reward": (shopping, {"env": {"path": SHOP}, "beta": 0.1, "kl_in": "reward"}),
    "reasoning_gym": (
        reckoning,
        {"env": "reasoning_gym:chain_sum", "data": [{"name": "reasoning_gym:chain_sum", "count": 4}], "max_prompt": 256},
    ),
    "verifiers": (guessing, {"env": {"path": GUESSING, "turns": 2}, "data": [{"name": GUESSING, "count": 2}]}),
}


def compared_less_kl(folder: Path, steps: Sequence[dict[str, Any]]) -> None:
    """The rollouts hold the advantages that were trained with, which only the learner knows: one number over a completion's own
    tokens, none of a tool's, and of mean 0 in a group; in the first step, without divergence, the centred rewards."""
    for step in steps:
        rows = pq.read_table(folder / f"rollouts/step-{step['step']:06d}.parquet").to_pylist()
        found: dict[int, list[tuple[float, float]]] = {}
        for row in rows:
            told = [None if math.isnan(one) else round(one, 6) for one in row["token_advantage"]]
            assert [one is not None for one in told] == row["token_trained"]
            own = {one for one in told if one is not None}
            assert list(own) == [pytest.approx(row["advantage"], abs=1e-5)]
            found.setdefault(row["group"], []).append((row["reward"], own.pop()))
        for group in found.values():
            assert sum(advantage for _, advantage in group) == pytest.approx(0.0, abs=1e-4)
            mean = sum(reward for reward, _ in group) / len(group)
            centred = [reward - mean for reward, _ in group]
            moved = step["step"] > 1
            assert ([advantage for _, advantage in group] == pytest.approx(centred, abs=1e-4)) is not moved


@pytest.mark.parametrize("kind", KINDS)
def test_it_trains_on_the_very_tokens_that_were_sampled(
    kind: str, tiny_model: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if kind == "reasoning_gym":
        pytest.importorskip("reasoning_gym", reason="reasoning-gym is not installed")
    if kind == "verifiers" and PROBLEM is not None:
        pytest.skip(PROBLEM)
    script, fields = KINDS[kind]
    (tmp_path / "goals.jsonl").write_text('{"messages": [{"role": "user", "content": "Go."}]}\n' * 2)
    (tmp_path / "tools.jinja").write_text(TEMPLATE)
    model = tiny_model("olmo2", num_hidden_layers=2, max_position_embeddings=512)
    section = {
        "data": [{"name": str(tmp_path / "goals.jsonl"), "fraction": 1.0}],
        "start": str(model),
        "prompts": 2, "samples": 4, "batch": 8, "micro_batch": 8, "steps": 2, "refill": False, "max_prompt": 64,
        "max_tokens": 200, "max_length": 456, "learning_rate": 1e-3, "schedule": "constant", "reward_scale": 1.0,
        "engine": "transformers", "precision": "fp32",
    }  # fmt: skip
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(yaml.safe_dump({"name": kind, "template": str(tmp_path / "tools.jinja"), "rlvr": {**section, **fields}}))
    trained: list[int] = []
    pack = rlvr.pack_rollouts

    def spied(rollouts: Sequence[Any], stage: Any, *places: Any) -> Any:
        batches = pack(rollouts, stage, *places)
        # One rollout alone is packed to measure what a row takes.
        if len(rollouts) > 1:
            trained.extend(token for batch in batches for token in batch.target_N.tolist())
        return batches

    monkeypatch.setattr(rlvr, "pack_rollouts", spied)
    monkeypatch.setattr(engines, "TransformersEngine", Forced)
    monkeypatch.setattr(Forced, "script", staticmethod(script), raising=False)
    monkeypatch.setattr(Forced, "said", [], raising=False)
    result = CliRunner().invoke(app, ["rlvr", str(recipe), "--runs", str(tmp_path / "runs")], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    folder = tmp_path / "runs" / kind / "rlvr"
    steps = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert len(steps) == 2
    for step in steps:
        assert step["mismatch"] < 1e-5
        assert step["masked"] == 0
        assert 0 < step["reward"] < 3
    assert sorted(trained) == sorted(Forced.said)
    if kind == "kl_in_reward":
        compared_less_kl(folder, steps)
    before, after = load_file(model / "model.safetensors"), load_file(folder / "model" / "model.safetensors")
    assert any((before[name] != after[name]).any() for name in before)

"""PPO: advantages worked out by hand, gradients against a plain padded computation, and the stage itself."""

import json
import statistics
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch
import yaml
from safetensors.torch import load_file
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification
from typer.testing import CliRunner

from tests.conftest import make_tiny_model
from tests.samples import gradients, largest_difference, make_stage, stay_in_float64
from tulu.cli import app
from tulu.config.schema import Rlvr
from tulu.errors import RecipeError
from tulu.losses import value_loss
from tulu.model.batch import pack, pack_row
from tulu.model.parallel import Parallel
from tulu.model.policy import Policy
from tulu.reward_models.model import RewardModel
from tulu.rollout.batches import RolloutBatch
from tulu.stages.policy_loss import policy_loss
from tulu.stages.ppo import ActorCritic, PpoBatch, ppo_loss, token_advantages
from tulu.types import Completion, Group

ROW = {"prompts": 2, "samples": 1, "batch": 2, "max_prompt": 64, "max_tokens": 8, "advantage": "gae", "refill": False}


def ppo(**changes: Any) -> Rlvr:
    return make_stage(Rlvr, **{**ROW, "value": {}, **changes})


def row(
    rewards: list[float], lengths: list[int], values: list[float], old: list[float], reference: Any = None, first: int = 0
) -> RolloutBatch:
    """One prompt of two tokens per completion; per-token numbers lie one completion after the other, in float64.

    `first` is the place of the first prompt among those of the step.
    """
    batch = pack_row([Group([3, 4], (Completion([5] * length, [True] * length),)) for length in lengths])
    number = lambda values: torch.tensor(values, dtype=torch.float64)  # noqa: E731
    return RolloutBatch(
        **vars(batch),
        advantage_C=number(rewards),
        sampler_logps_N=number(old),
        old_logps_N=number(old),
        kl_reference_N=None if reference is None else number(reference),
        old_values_N=number(values),
        drawn_C=tuple((first + group, 0) for group, _ in batch.index_C),
    )


def with_advantages(batch: RolloutBatch, stage: Rlvr) -> PpoBatch:
    assert stage.value is not None
    [[result]] = token_advantages([[batch]], stage, stage.value, Parallel(stage))
    return result


def test_advantages_returns_and_whitening_of_losses_md_6() -> None:
    batch = row([1.0], [3], values=[0.5, 0.6, 0.7], old=[-1.0, -1.0, -1.0])
    plain = with_advantages(batch, ppo(value={"whiten": False}))
    assert plain.advantage_N.tolist() == pytest.approx([0.46575, 0.385, 0.3], abs=1e-6)
    assert plain.return_N.tolist() == pytest.approx([0.96575, 0.985, 1.0], abs=1e-6)
    white = with_advantages(batch, ppo())
    assert white.advantage_N.tolist() == pytest.approx([0.991344, 0.017092, -1.008436], abs=1e-5)
    assert white.return_N.tolist() == plain.return_N.tolist()


def test_the_kl_is_taken_off_every_tokens_reward() -> None:
    # β 0.5 and k1: rewards -0.5·[0.2, -0.4] and 1 on top of the last; γ = λ = 1 sums what is to come, less the value.
    batch = row([1.0], [2], values=[0.25, 0.5], old=[-1.0, -2.0], reference=[-1.2, -1.6])
    result = with_advantages(batch, ppo(beta=0.5, kl="k1", value={"lam": 1.0, "whiten": False}))
    assert result.kl_N is not None
    assert result.kl_N.tolist() == pytest.approx([0.2, -0.4])
    assert result.return_N.tolist() == pytest.approx([1.1, 1.2])
    assert result.advantage_N.tolist() == pytest.approx([0.85, 0.7])
    assert result.kl_reference_N is None, "the loss would add the KL a second time"


def test_completions_do_not_see_each_other_and_share_the_whitening() -> None:
    values = [0.5, 0.6, 0.7, 0.1, 0.2]
    together = row([1.0, 3.0], [3, 2], values, old=[-1.0] * 5)
    alone = [row([1.0], [3], values[:3], old=[-1.0] * 3), row([3.0], [2], values[3:], [-1.0] * 2, first=1)]
    raw = ppo(value={"whiten": False})
    apart = torch.cat([with_advantages(batch, raw).advantage_N for batch in alone])
    assert with_advantages(together, raw).advantage_N.tolist() == apart.tolist()
    stage = ppo()
    assert stage.value is not None
    parts = token_advantages([[alone[0]], [alone[1]]], stage, stage.value, Parallel(stage))
    white = torch.cat([batch.advantage_N for part in parts for batch in part])
    assert white.tolist() == pytest.approx(with_advantages(together, stage).advantage_N.tolist())
    assert float(white.mean()) == pytest.approx(0.0, abs=1e-6)
    assert float(white.std()) == pytest.approx(1.0, abs=1e-6)


def test_what_advantages_need_of_a_batch_is_never_made_up() -> None:
    batch = replace(row([1.0], [1], values=[0.5], old=[-1.0]), old_values_N=None)
    with pytest.raises(ValueError, match="need the log-probs and values from before the update"):
        with_advantages(batch, ppo())


def test_value_loss_of_losses_md_6() -> None:
    one = lambda number: torch.tensor([number], dtype=torch.float64)  # noqa: E731
    loss, metrics = value_loss(one(1.0), one(0.5), one(0.6), clip=0.2)
    # V_clip 0.7: errors 0.16 and 0.01, the larger halved.
    assert float(loss) == pytest.approx(0.08)
    assert float(metrics["value_clipped"][0]) == 0.0
    inside, _ = value_loss(one(0.6), one(0.5), one(1.0), clip=0.2)
    assert float(inside) == pytest.approx(0.08)
    beyond, metrics = value_loss(one(0.9), one(0.5), one(1.0), clip=0.2)
    assert float(beyond) == pytest.approx(0.045)
    assert float(metrics["value_clipped"][0]) == 1.0


class Pair:
    """A policy and a value model in float64, and transformers' own of the same weights."""

    def __init__(self, model: Path, reward_model: Path) -> None:
        policy = Policy.load(model)
        value = RewardModel.load(reward_model, trainable=True)
        self.critic = ActorCritic(policy, value)
        self.critic.module.double()
        options: dict[str, Any] = {"dtype": torch.float64, "attn_implementation": "sdpa"}
        self.causal = AutoModelForCausalLM.from_pretrained(model, **options)
        self.classifier = AutoModelForSequenceClassification.from_pretrained(reward_model, **options)


def naive_loss(pair: Pair, groups: list[Group], stage: Rlvr, batch: PpoBatch) -> Tensor:
    """PPO as losses.md §6 writes it, one whole sequence at a time, over transformers' own forward passes."""
    assert stage.value is not None
    assert batch.old_logps_N is not None
    assert batch.old_values_N is not None
    total = torch.zeros((), dtype=torch.float64)
    for place, (index, _) in enumerate(batch.index_C):
        group, rows = groups[index], batch.owner_N == place
        [completion] = group.completions
        tokens = torch.tensor([[*group.prompt, *completion.tokens]])
        span = slice(len(group.prompt) - 1, tokens.shape[1] - 1)
        logits = pair.causal(input_ids=tokens).logits[0, span] / stage.temperature
        logps = torch.log_softmax(logits, -1).gather(1, torch.tensor(completion.tokens)[:, None])[:, 0]
        hidden = pair.classifier.base_model(input_ids=tokens).last_hidden_state[0, span]
        values = pair.classifier.score(hidden)[:, 0]
        advantage, old_values, returns = batch.advantage_N[rows], batch.old_values_N[rows], batch.return_N[rows]
        ratio = torch.exp(logps - batch.old_logps_N[rows])
        policy = torch.maximum(-advantage * ratio, -advantage * ratio.clamp(0.8, 1.2))
        clipped = old_values + (values - old_values).clamp(-0.2, 0.2)
        error = 0.5 * torch.maximum((values - returns) ** 2, (clipped - returns) ** 2)
        total = total + policy.sum() + stage.value.coefficient * error.sum()
    return total


@pytest.mark.parametrize("family", ["olmo2", "qwen3"])
def test_gradients_are_those_of_the_plain_computation(
    family: str, tiny_model: Callable[..., Path], tiny_reward_model: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    stay_in_float64(monkeypatch)
    pair = Pair(tiny_model(family), tiny_reward_model(family, 1))
    stage = ppo(temperature=0.7, ratio_cap=None)
    assert stage.value is not None
    generator = torch.Generator().manual_seed(0)
    groups = []
    for length in (4, 7, 3):
        tokens = torch.randint(0, 256, (length + 5,), generator=generator).tolist()
        groups.append(Group(tokens[:5], (Completion(tokens[5:], [True] * length),)))
    [packed] = pack(groups, 1000)
    with torch.no_grad():
        logps_N, _, values_N = pair.critic(packed, stage.temperature)
    # Off by more than the clips here and there, so that every branch is taken.
    noise_N = torch.rand(len(logps_N), generator=generator, dtype=torch.float64) - 0.5
    fixed = RolloutBatch(
        **vars(packed),
        advantage_C=packed.of_groups([0.0, 1.0, 2.0]),
        sampler_logps_N=torch.full_like(logps_N, -1.0),
        old_logps_N=logps_N + noise_N,
        old_values_N=values_N - noise_N,
        drawn_C=packed.index_C,
    )
    batch = with_advantages(fixed, stage)
    logps_N, entropy_N, values_N = pair.critic(batch, stage.temperature)
    policy = policy_loss(logps_N, entropy_N, batch, batch.advantage_N, stage)
    ppo_loss(policy, values_N, batch, stage, stage.value, None)[0].backward()
    naive_loss(pair, groups, stage, batch).backward()
    assert largest_difference(gradients(pair.critic.policy.model), gradients(pair.causal)) < 1e-10
    assert largest_difference(gradients(pair.critic.value.model), gradients(pair.classifier)) < 1e-10


def test_another_vocabulary_is_refused(
    tiny_model: Callable[..., Path], tiny_reward_model: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    policy, value = Policy.load(tiny_model("olmo2")), RewardModel.load(tiny_reward_model("olmo2"), trainable=True)
    monkeypatch.setattr(value.tokenizer, "get_vocab", lambda: {"a": 0})
    with pytest.raises(RecipeError, match=r"rlvr\.value: the value model has another vocabulary"):
        ActorCritic(policy, value)


RECIPE: dict[str, Any] = {
    "max_length": 72,
    "batch": 8,
    "prompts": 8,
    "samples": 1,
    "max_prompt": 64,
    "max_tokens": 8,
    "steps": 3,
    "updates": 2,
    "learning_rate": 1e-3,
    "precision": "fp32",
    "engine": "transformers",
    "advantage": "gae",
    "refill": False,
    "beta": 0.05,
    "kl": "k1",
}


def run_ppo(folder: Path, model: Path, **changes: Any) -> Any:
    (folder / "mine.py").write_text("def score(completion, ground_truth):\n    return len(completion) % 2\n")
    rows = [{"messages": [{"role": "user", "content": f"{n}?"}], "ground_truth": "x"} for n in range(16)]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    section = {**RECIPE, "data": str(folder / "rows.jsonl"), "verifier": f"{folder}/mine.py:score", **changes}
    section = {name: value for name, value in section.items() if value is not None}
    (folder / "p.yaml").write_text(yaml.safe_dump({"name": "p", "model": str(model), "template": "tulu", "rlvr": section}))
    return CliRunner().invoke(app, ["rlvr", str(folder / "p.yaml"), "--runs", str(folder / "runs")])


def test_the_stage_trains_policy_and_value_model(
    tiny_model: Callable[..., Path], tiny_reward_model: Callable[..., Path], tmp_path: Path
) -> None:
    result = run_ppo(tmp_path, tiny_model("olmo2"), value=str(tiny_reward_model("olmo2", 1)))
    assert result.exit_code == 0, result.output
    logged = [json.loads(line) for line in (tmp_path / "runs/p/rlvr/metrics.jsonl").read_text().splitlines()]
    assert len(logged) == 3
    assert logged[0]["kl"] == pytest.approx(0.0, abs=1e-6), "the first step's policy is the reference"
    assert logged[2]["kl"] != 0.0
    assert all(line["value_error"] > 0 for line in logged)
    for line in logged:
        rows = pq.read_table(tmp_path / f"runs/p/rlvr/rollouts/step-{line['step']:06d}.parquet").to_pylist()
        mismatches = [abs(value) for row in rows for value in row["token_mismatch"]]
        assert sum(mismatches) / len(mismatches) == pytest.approx(line["mismatch"], rel=1e-4)
        advantages = [value for row in rows for value in row["token_advantage"]]
        # They are whitened over all tokens of the step.
        assert statistics.fmean(advantages) == pytest.approx(0.0, abs=1e-4)
        assert statistics.variance(advantages) == pytest.approx(1.0, rel=1e-3)
        assert all(len(row["token_ids"]) == len(row["token_advantage"]) == row["tokens"] for row in rows)
    manifest = json.loads((tmp_path / "runs/p/rlvr/manifest.json").read_text())
    assert set(manifest["pinned"]) >= {"value", "start", "data"}
    AutoModelForCausalLM.from_pretrained(tmp_path / "runs/p/rlvr/model")


def test_while_the_value_model_learns_alone_the_policy_stays(
    tiny_model: Callable[..., Path], tiny_reward_model: Callable[..., Path], tmp_path: Path
) -> None:
    value = {"path": str(tiny_reward_model("olmo2", 1)), "warmup": 2}
    for steps, moved in ((2, False), (3, True)):
        folder = tmp_path / str(steps)
        folder.mkdir()
        result = run_ppo(folder, tiny_model("olmo2"), value=value, steps=steps)
        assert result.exit_code == 0, result.output
        before, after = (load_file(path / "model.safetensors") for path in (tiny_model("olmo2"), folder / "runs/p/rlvr/model"))
        assert any(not torch.equal(before[name], after[name]) for name in before) is moved


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"value": None}, "rlvr.value: missing; advantage gae (PPO) needs a value model"),
        ({"value": "nowhere/at/all"}, "rlvr.value.path"),
        ({"advantage": "centred"}, "rlvr.value"),
        ({"advantage": "centred", "value": None}, "rlvr.samples"),
        ({"refill": True}, "rlvr.refill"),
        ({"old": "minibatch"}, 'rlvr.old: "minibatch": advantage gae takes log-probs and values together'),
        (
            {"denominator": "micro_mean", "loss_micro_batch": 3},
            "rlvr.loss_micro_batch: 3: 8 completions of an update",
        ),
        ({"value": {"whiten_over": 3}}, "rlvr.value.whiten_over: 3: batch 8 is no multiple of it"),
        (
            {"value": {"warmup": 2}, "weight_decay": 0.1},
            "rlvr.value.warmup: 2: weight_decay shrinks the policy's weights",
        ),
        ({"value": {"clip_norm": 1.0}}, "rlvr.value.clip_norm: 1.0: the policy's gradient would not be clipped"),
    ],
)
def test_combinations_that_cannot_be(
    changes: dict[str, Any],
    message: str,
    tiny_model: Callable[..., Path],
    tiny_reward_model: Callable[..., Path],
    tmp_path: Path,
) -> None:
    result = run_ppo(tmp_path, tiny_model("olmo2"), **{"value": str(tiny_reward_model("olmo2")), **changes})
    assert result.exit_code == 2
    assert message in " ".join(result.output.split())


def test_without_a_reward_model_the_value_model_begins_as_the_policy(
    tiny_model: Callable[..., Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    result = run_ppo(tmp_path, tiny_model("olmo2"), value={}, steps=1)
    assert result.exit_code == 0, result.output
    assert "no reward model (rlvr.value.path" in result.output + caplog.text
    pinned = json.loads((tmp_path / "runs/p/rlvr/manifest.json").read_text())["pinned"]
    assert pinned["value"] == RewardModel.load(tiny_model("olmo2"), new_head=1).digest()


def test_the_value_model_needs_no_template_of_its_own(tmp_path: Path) -> None:
    """The recipe names one, and what the value model reads has been tokenised by it already."""
    model = make_tiny_model(tmp_path / "plain", template=False)
    result = run_ppo(tmp_path, model, value={}, steps=1)
    assert result.exit_code == 0, result.output


def test_a_model_without_a_head_is_refused(tiny_model: Callable[..., Path], tmp_path: Path) -> None:
    result = run_ppo(tmp_path, tiny_model("olmo2"), value=str(tiny_model("olmo2")))
    assert result.exit_code == 2
    assert "is no reward model: its config.json says Olmo2ForCausalLM" in result.output

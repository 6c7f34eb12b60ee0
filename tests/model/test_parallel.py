"""Processes that train together: two ranks under torchrun on gloo, ZeRO-2 and ZeRO-3, end where one process does."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from tests.samples import make_stage
from tulu.config.load import load_recipe
from tulu.errors import RecipeError
from tulu.model.parallel import Parallel, forget_sharding, gathered, unsharded, whole
from tulu.stages.pipeline import run_recipe

# Adam's epsilon is larger than the gradients, so that updates are proportional to them: the weights then compare gradients,
# and the order of summation, which differs between processes, moves a weight by the learning rate times the rounding error.
# With an epsilon of 1e-8 the first step would be the sign of the gradient, which is noise where the gradient is 0.
RECIPE = """\
name: {name}
template: tulu
model: {model}
seed: 3
sft:
  zero: {sft_zero}
  data: {folder}/chats.jsonl
  loss: micro_mean
  loss_micro_batch: 2
  save_every: 1
  max_length: 256
  batch: 8
  micro_batch: 2
  steps: 2
  learning_rate: 3.0e-1
  schedule: constant
  adam_epsilon: 1.0
  precision: fp32
  clip_norm: 0.5
dpo:
  zero: {zero}
  data: {folder}/pairs.jsonl
  loss: dpo_norm
  beta: 2.0
  max_length: 256
  batch: 6
  micro_batch: 1
  row_tokens: 100
  steps: 2
  learning_rate: 5.0e-2
  schedule: constant
  adam_epsilon: 1.0
  precision: fp32
rm:
  zero: {rm_zero}
  data: {folder}/pairs.jsonl
  max_length: 256
  batch: 6
  micro_batch: 1
  held_out: 0.25
  steps: 2
  learning_rate: 5.0e-2
  schedule: constant
  adam_epsilon: 1.0
  precision: fp32
rlvr:
  zero: {zero}
  data: {folder}/problems.jsonl
  verifier: {folder}/letters.py:score
  reward_model: {{combine: sum, weight: 0.5, row_tokens: 100}}
  prompts: 3
  samples: 4
  batch: 12
  micro_batch: 2
  max_prompt: 64
  max_tokens: 8
  max_length: 72
  beta: 0.1
  updates: 2
  engine: transformers
  steps: 2
  learning_rate: 5.0e-2
  schedule: constant
  adam_epsilon: 1.0
  precision: fp32
"""
ROOT = Path(__file__).resolve().parents[2]
STAGES = ("sft", "dpo", "rm", "rlvr")
PPO = ("rlvr.advantage=gae", "rlvr.refill=false", "rlvr.reward_model=null", "rlvr.samples=1", "rlvr.prompts=12", "rlvr.kl=k1")


def write_inputs(folder: Path) -> None:
    """Rows of uneven lengths, and a verifier that a random model can please more or less."""

    def say(role: str, content: str) -> dict[str, str]:
        return {"role": role, "content": content}

    chats = [
        {"messages": [say("user", f"q{i} " * (i % 5 + 1)), say("assistant", f"answer {i * i} " * (i % 4 + 1))]} for i in range(12)
    ]
    pairs = [
        {"prompt": f"q{i} " * (i % 3 + 1), "chosen": f"yes {i} " * (i % 4 + 1), "rejected": f"no {i * i} " * (i % 3 + 1)}
        for i in range(12)
    ]
    problems = [{"messages": [say("user", f"p{i}")], "ground_truth": str(i), "dataset": "x"} for i in range(6)]
    for name, rows in (("chats", chats), ("pairs", pairs), ("problems", problems)):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "letters.py").write_text("def score(completion, ground_truth):\n    return sum(map(ord, completion)) % 7 / 6\n")


def tulu(processes: int, folder: Path, *arguments: str) -> str:
    """`tulu ARGUMENTS` by so many processes; what they said."""
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)] if processes > 1 else []
    command = [sys.executable, *launcher, "-m", "tulu", *arguments, "--runs", str(folder / "runs")]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=900, check=False)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-6000:]
    return done.stdout + done.stderr


def weights(folder: Path, name: str, stage: str) -> dict[str, Tensor]:
    return load_file(folder / "runs" / name / stage / "model" / "model.safetensors")


def metrics(folder: Path, name: str, stage: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "runs" / name / stage / "metrics.jsonl").read_text().splitlines()]


def recipe_file(folder: Path, model: Path, name: str, zero: tuple[int, int, int]) -> Path:
    """A recipe of every stage, with ZeRO stages for SFT, for the reward model and for the others."""
    sft, rm, others = zero
    file = folder / f"{name}.yaml"
    file.write_text(RECIPE.format(name=name, model=model, folder=folder, sft_zero=sft, rm_zero=rm, zero=others))
    return file


def test_two_ranks_end_where_one_does(tiny_model: Callable[..., Path], tmp_path: Path) -> None:
    """SFT and reward model under ZeRO-3, DPO with its reference cache and RLVR under ZeRO-2; then a resume under ZeRO-3.

    One test, since its launches would otherwise be repeated by every worker of pytest-xdist.
    """
    write_inputs(tmp_path)
    model = tiny_model("qwen3")
    run_recipe(load_recipe(str(recipe_file(tmp_path, model, "one", (0, 0, 0))), ()), tmp_path / "runs")
    tulu(2, tmp_path, "run", str(recipe_file(tmp_path, model, "two", (3, 3, 2))))
    for stage in STAGES:
        same_end(tmp_path, stage, load_file(model / "model.safetensors"))
    ppo_too(tmp_path)
    resumes_to_the_same_bits(tmp_path)


def ppo_too(folder: Path) -> None:
    """Policy and value model under ZeRO-2, both from what one process had trained."""
    runs = folder / "runs"
    starts = (f"rlvr.start={runs}/one/dpo/model", f"rlvr.value={runs}/one/rm/model")
    for processes, name in ((1, "one"), (2, "two")):
        tulu(processes, folder, "rlvr", str(folder / f"{name}.yaml"), *PPO, *starts, f"name=ppo-{name}")
    alone, together = weights(folder, "ppo-one", "rlvr"), weights(folder, "ppo-two", "rlvr")
    start = load_file(runs / "one" / "dpo" / "model" / "model.safetensors")
    assert max(float((alone[name] - start[name]).abs().max()) for name in alone) > 1e-2
    assert max(float((alone[name] - together[name]).abs().max()) for name in alone) < 1e-6
    one, two = metrics(folder, "ppo-one", "rlvr")[-1], metrics(folder, "ppo-two", "rlvr")[-1]
    assert two["value_error"] == pytest.approx(one["value_error"], rel=1e-4)


def same_end(folder: Path, stage: str, start: dict[str, Tensor]) -> None:
    """Every stage starts from what the one before left, so the last one carries all differences."""
    alone, together = weights(folder, "one", stage), weights(folder, "two", stage)
    assert max(float((alone[name] - start[name]).abs().max()) for name in alone if name in start) > 1e-2, stage
    assert alone.keys() == together.keys()
    for name, tensor in alone.items():
        assert float((together[name] - tensor).abs().max()) < 1e-6, (stage, name)
    one, two = metrics(folder, "one", stage)[-1], metrics(folder, "two", stage)[-1]
    for metric in ("loss", "gradient_norm", "tokens"):
        assert two[metric] == pytest.approx(one[metric], rel=1e-4, abs=1e-6), (stage, metric)


def resumes_to_the_same_bits(folder: Path) -> None:
    """As if SFT under ZeRO-3 had died after its second step, and one rank's shard of that checkpoint had been damaged."""
    run = folder / "runs" / "two" / "sft"
    before = weights(folder, "two", "sft")
    manifest = json.loads((run / "manifest.json").read_text())
    (run / "manifest.json").write_text(json.dumps({**manifest, "finished": False}))
    (run / "model").rename(run / "model-before")
    shard = next((run / "checkpoints" / "step-000002").rglob("*rank_1*optim_states.pt"))
    shard.write_bytes(shard.read_bytes()[:-4000] + b"\0" * 4000)
    said = tulu(2, folder, "sft", str(folder / "two.yaml"))
    assert said.count(f"step-000002 is damaged: pytorch_model/{shard.name} is not what was written") == 1
    assert "at step 1" in said
    after = weights(folder, "two", "sft")
    assert all(torch.equal(after[name], before[name]) for name in before)
    assert [each["step"] for each in metrics(folder, "two", "sft")] == [1, 2]


def test_what_one_rank_meets_stops_both(tmp_path: Path) -> None:
    """A loss, gradient or weight that is not finite, and a damaged shard: both say the same, and none waits for the other."""
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command = [*launcher, "-m", "tests.model.ranks_not_finite", str(tmp_path)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=240, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stderr[-4000:]
    one, other = (json.loads((tmp_path / f"{rank}.json").read_text()) for rank in (0, 1))
    assert one == other
    damaged = one.pop("damaged")
    assert len(one) == 10
    for case, found in one.items():
        assert found["trained"], case
        assert not found["moved"], case
        assert found["not finite"] == ["linear.weight"], case
        said = "its loss is nan: row rank1:2" if case.endswith("loss") else "the norm of its gradients inf: all its rows: rank0:1"
        assert said in found["message"], case
    for zero, message in damaged.items():
        assert "zero_pp_rank_1_mp_rank_00_optim_states.pt is not what was written" in message, zero


def test_several_processes_need_zero(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("accelerate.Accelerator.num_processes", property(lambda _: 2))
    with pytest.raises(RecipeError, match="zero to 1, 2 or 3"):
        Parallel(make_stage(zero=0))


def test_one_process_does_not_shard() -> None:
    parallel = Parallel(make_stage(zero=3))
    assert not parallel.deepspeed
    assert (parallel.rank, parallel.world, parallel.is_main) == (0, 1, True)
    assert parallel.total(2.5) == 2.5
    assert parallel.largest(3) == 3
    assert parallel.share([1, 2, 3]) == [1, 2, 3]
    assert parallel.exchange("x") == ["x"]


def test_means_are_exact_over_counts() -> None:
    parallel = Parallel(make_stage())
    sums = {"a": (torch.tensor(6.0), torch.tensor(4.0)), "none": (torch.tensor(0.0), torch.tensor(0))}
    found = parallel.means(sums)
    assert found["a"] == 1.5
    assert found["none"] != found["none"]
    assert parallel.means({}) == {}


def test_stages_of_one_process_may_differ_in_precision() -> None:
    for precision, expected in (("fp32", "no"), ("bf16", "bf16"), ("fp32", "no")):
        assert Parallel(make_stage(precision=precision)).accelerator.mixed_precision == expected


def test_whole_weights_pass_through() -> None:
    layer = torch.nn.Linear(2, 2)
    parameter = torch.nn.Parameter(torch.ones(2))
    with gathered(layer), whole(parameter) as found:
        assert found is parameter
        layer(torch.ones(1, 2))
    assert not layer._forward_hooks


def test_a_reward_model_loads_whole_while_the_policy_is_sharded() -> None:
    from transformers.integrations import HfDeepSpeedConfig, is_deepspeed_zero3_enabled

    settings = HfDeepSpeedConfig({"zero_optimization": {"stage": 3}})
    assert settings.is_zero3()
    assert is_deepspeed_zero3_enabled()
    with unsharded():
        assert not is_deepspeed_zero3_enabled()
    assert is_deepspeed_zero3_enabled()
    forget_sharding()

"""Nothing waits for the device while the micro-batches of a step are launched.

The device here is torch's "meta", whose tensors have no numbers: whoever asks for one gets an error, as whoever asks a GPU waits.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from tests.samples import make_group, make_stage
from tulu.config.parts import ValueModelSettings
from tulu.config.schema import Dpo, Rlvr, Rm, Sft
from tulu.losses import sft_loss
from tulu.model.batch import Batch, pack_row
from tulu.model.parallel import Parallel
from tulu.model.policy import Policy
from tulu.model.sending import distinct, send
from tulu.reward_models.model import RewardModel
from tulu.reward_models.training import count_pairs as count_ranked
from tulu.reward_models.training import pack_ranked, ranking_loss
from tulu.rollout.batches import RolloutBatch
from tulu.stages.dpo import count_pairs, dpo, pack_pairs, with_reference
from tulu.stages.policy_loss import grpo, ppo
from tulu.stages.ppo import ActorCritic, PpoBatch
from tulu.stages.sft import count_micro_batches, pack_weighted, weight_groups
from tulu.train.fit import pack_whole
from tulu.train.optimizer import Learner
from tulu.train.step import count_tokens, step

META = torch.device("meta")
RL: dict[str, Any] = {"prompts": 4, "samples": 2, "max_prompt": 8, "max_tokens": 8, "batch": 8}


class Copies(TorchFunctionMode):
    """Refuses what copies numbers to the device in a way that waits for it; `send` is the way that does not."""

    def __init__(self) -> None:
        super().__init__()
        self.sending = 0

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        made = function in (torch.tensor, torch.as_tensor) and torch.device(kwargs.get("device") or "cpu") == META
        made |= function is Tensor.new_tensor
        indexed = function is Tensor.__getitem__ and args[0].is_meta and _has_list(args[1])
        moved = function is Tensor.to and args[0].is_cpu and META in args[1:] and not self.sending
        waits = made or indexed or moved
        assert not waits, f"{function} copies to the device and waits for it"
        return function(*args, **kwargs)


def _has_list(index: Any) -> bool:
    return isinstance(index, list) or (isinstance(index, tuple) and any(isinstance(part, list) for part in index))


@pytest.fixture
def on_meta(monkeypatch: pytest.MonkeyPatch) -> Callable[[], Any]:
    """A context in which whatever waits for the device is an error."""
    copies = Copies()

    def counted(tensor: Tensor, device: torch.device) -> Tensor:
        copies.sending += 1
        try:
            return send(tensor, device)
        finally:
            copies.sending -= 1

    for module in (
        "tulu.model.batch",
        "tulu.model.sending",
        "tulu.model.attention",
        "tulu.reward_models.training",
        "tulu.train.step",
        "tulu.stages.ppo",
    ):
        monkeypatch.setattr(f"{module}.send", counted)

    @contextmanager
    def context() -> Iterator[None]:
        with copies:
            yield

    return context


def moved(model: Any) -> Any:
    """A model whose numbers nobody can read."""
    model.module.to(META)
    model.device = META
    return model


def with_fields(batch: Batch, kind: Any, **others: Any) -> Any:
    """A batch of RLVR, every number of which is 0."""
    zeros_N = torch.zeros(batch.n_trained)
    return kind(**vars(batch), advantage_C=torch.zeros(batch.n_completions), sampler_logps_N=zeros_N, **others)


def case(name: str, folder: Path) -> tuple[Any, Sequence[Any], Any, Any]:
    """(model, batches, objective, normaliser) of one kind of training, with two micro-batches."""
    load: dict[str, Any] = {"template": "tulu", "precision": "fp32"}
    policy: Any = None if name == "rm" else moved(Policy.load(folder, **load))
    groups = [make_group(seed, 5, [6, 4]) for seed in range(4)]
    if name in ("sft", "micro_mean"):
        groups = [make_group(seed, 5, [6]) for seed in range(4)]
        if name == "sft":
            return policy, pack_whole(groups, make_stage(micro_batch=2)), lambda b: _nll(policy.logps(b)), count_tokens
        stage = make_stage(Sft, loss="micro_mean", micro_batch=2, loss_micro_batch=2)
        batches = pack_weighted(weight_groups(groups, stage), stage)
        return policy, batches, lambda b: _nll(policy.logps(b), b.weight_C[b.owner_N]), count_micro_batches
    if name == "dpo":
        stage = make_stage(Dpo, micro_batch=2)
        pairs = [with_reference(group, [-1.0, -2.0]) for group in groups]
        return policy, pack_pairs(pairs, stage), lambda b: dpo(policy, b, stage), count_pairs
    if name == "rm":
        stage = make_stage(Rm, micro_batch=2)
        model: Any = moved(RewardModel.load(folder, trainable=True, new_head=1, **load))
        return model, pack_ranked(groups, stage), lambda b: ranking_loss(model, b, stage), count_ranked
    stage = make_stage(Rlvr, **RL, beta=0.1)
    rows = [pack_row(groups[:2]), pack_row(groups[2:])]
    zeros = [torch.zeros(row.n_trained) for row in rows]
    if name == "grpo":
        batches = [with_fields(row, RolloutBatch, kl_reference_N=zero) for row, zero in zip(rows, zeros, strict=True)]
        return policy, batches, lambda b: grpo(policy, stage, b), count_tokens
    if name == "gspo":
        lines: dict[str, Any] = {"loss": "gspo", "ratio_outside": "mask", "ratio_level": "sequence", "entropy_bonus": 0.1}
        whole = make_stage(Rlvr, **RL, **lines, teacher={"path": "owner/teacher", "through": "k2"})
        batches = [with_fields(row, RolloutBatch, teacher_logps_N=zero) for row, zero in zip(rows, zeros, strict=True)]
        return policy, batches, lambda b: grpo(policy, whole, b), count_tokens
    value: Any = moved(RewardModel.load(folder, trainable=True, new_head=1, **load))
    critic = ActorCritic(policy, value, ends=name == "ppo_ends")
    batches = []
    for row, zero in zip(rows, zeros, strict=True):
        zero_C = torch.zeros(row.n_completions)
        more = {"old_end_C": zero_C, "end_return_C": zero_C} if name == "ppo_ends" else {}
        before = {"old_values_N": zero, "old_logps_N": zero, "kl_N": zero}
        batches.append(with_fields(row, PpoBatch, advantage_N=zero, return_N=zero, **before, **more))
    return critic, batches, lambda b: ppo(critic, stage, ValueModelSettings(), 0, b), count_tokens


def _nll(logps_N: Tensor, weight_N: Tensor | None = None) -> Any:
    return sft_loss(logps_N, weight_N)


@pytest.mark.parametrize("name", ["sft", "micro_mean", "dpo", "rm", "grpo", "gspo", "ppo", "ppo_ends"])
def test_no_micro_batch_waits_for_the_device(
    name: str, tiny_model: Callable[..., Path], on_meta: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, batches, objective, normaliser = case(name, tiny_model())
    assert len(batches) == 2
    stage = make_stage()
    parallel = Parallel(stage)
    parallel.device = META
    learner = Learner(model, stage, parallel)
    asked: list[Tensor] = []

    def finish(sums: Tensor, _divisor: float) -> tuple[list[float], float]:
        asked.append(sums)
        return [1.0] * len(sums), 1.0

    monkeypatch.setattr(parallel, "finish_step", finish)
    with on_meta():
        metrics = step(learner, batches, objective, normaliser)
    assert [sums.device for sums in asked] == [META], "the one place that may wait is asked once"
    assert len(asked[0]) == 2 + 2 * (len(metrics) - 2)
    layers = [parameter for name, parameter in model.module.named_parameters() if ".layers." in name]
    assert layers
    assert all(parameter.grad is not None for parameter in layers), "there was a backward pass"


class Reads(TorchDispatchMode):
    """Counts the operations that a GPU would be waited for."""

    NAMES = ("_local_scalar_dense", "nonzero", "_unique", "_unique2", "masked_select", "equal", "is_nonzero")

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += function.overloadpacket.__name__ in self.NAMES
        return function(*args, **(kwargs or {}))


def test_a_step_reads_as_often_whatever_its_number_of_micro_batches(
    tiny_model: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once for the loss, the norm and the metrics together, as `finish_step` says."""
    monkeypatch.setattr("tulu.model.attention.distinct", lambda places: places)
    policy = Policy.load(tiny_model(), template="tulu", precision="fp32")
    learner = Learner(policy, make_stage(clip_norm=1.0), Parallel(make_stage(clip_norm=1.0)))
    counts = []
    for size in (8, 4, 1):
        batches = pack_whole([make_group(seed, 5, [6]) for seed in range(8)], make_stage(micro_batch=size))
        assert len(batches) == 8 // size
        with Reads() as reads:
            step(learner, batches, lambda batch: _nll(policy.logps(batch)), count_tokens)
        counts.append(reads.count)
    assert counts[0] == counts[1] == counts[2]


def test_what_a_device_would_have_to_count_was_counted_before() -> None:
    row = pack_row([make_group(1, 5, [6, 4], trained=1.0)])
    assert len(row.read_N) > len(distinct(row.read_N)), "the prompt's last token predicts the first of both completions"
    there = row.to(META)
    assert distinct(there.read_N).shape == distinct(row.read_N).shape
    assert distinct(there.last_C).shape == (2,)
    assert there.to(META) is there

"""What several processes do, as far as one device shows it: a connection of one rank.

NCCL refuses tensors of the CPU and of two devices, whatever the number of ranks. So one rank whose world is forced to two runs
every line that several would run, and what it sums is what it had: results must be those of a single process.
"""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import distributed

from benchmarks.gpu_cases import Failed, Figures
from benchmarks.gpu_check import largest, learner_of, lessons, repeatable, section, tiny_model, weights
from tulu.losses import sft_loss
from tulu.model.parallel import Parallel
from tulu.train.fit import pack_whole
from tulu.train.optimizer import Learner
from tulu.train.step import count_tokens, step

SAME = 1e-6
"""The largest difference of weights that passes as the order of summation; a step moves them by 1e-3."""


@contextmanager
def connected(device: torch.device) -> Iterator[str]:
    """A connection of one rank while the context lasts: NCCL on GPUs, gloo elsewhere. Its name."""
    name = "nccl" if device.type == "cuda" else "gloo"
    with tempfile.TemporaryDirectory() as folder:
        options: dict[str, Any] = {"device_id": device} if device.type == "cuda" else {}
        distributed.init_process_group(name, init_method=f"file://{folder}/store", rank=0, world_size=1, **options)
        try:
            yield name
        finally:
            distributed.destroy_process_group()


def collectives(device: torch.device) -> Figures:
    """Every exchange with the world forced to two, and two optimizer steps: the numbers and weights of one process."""
    with repeatable():
        alone = weights(after_two_steps(device))
    with connected(device) as name, repeatable():
        parallel = Parallel(section("bf16"))
        parallel.world = 2
        wrong = [what for what, holds in exchanges(parallel).items() if not holds]
        together = weights(after_two_steps(device, world=2))
    apart = largest(alone, together)
    figures = {"connection": name, "weights differ by": apart}
    if wrong:
        raise Failed(f"wrong results: {', '.join(wrong)}", figures)
    if apart > SAME:
        raise Failed(f"weights after two steps differ by {apart:.1e}", figures)
    return figures


def exchanges(parallel: Parallel) -> dict[str, bool]:
    """Whether each exchange gives what a rank that hears only itself must get."""
    ones = torch.ones(3, device=parallel.device)
    rows = list(parallel.level(["row"], "spare"))
    parallel.wait()
    return {
        "total": parallel.total(1.5) == 1.5,
        "largest": parallel.largest(7) == 7,
        "names_of_all": parallel.names_of_all(["nll"]) == ["nll"],
        "add_up": parallel.add_up(ones.clone()).tolist() == [1.0] * 3,
        "most": parallel.most(ones.clone()).tolist() == [1.0] * 3,
        "exchange": parallel.exchange({"rank": 0})[0] == {"rank": 0},
        "level": rows == [("row", True)],
    }


def after_two_steps(device: torch.device, world: int = 1, fsdp2: bool = False, precision: str = "bf16") -> Learner:
    """A learner that took two steps, among `world` processes as it believes, or with its weights sharded."""
    # An epsilon above most gradients: the order of summation then moves a weight by no more than itself.
    fields = {"adam_epsilon": 1e-3}
    policy, learner = learner_of(tiny_model("olmo2", {"num_hidden_layers": 2}, device), precision, **fields)
    parallel = learner.parallel
    if fsdp2:
        from tulu.model.fully_sharded import FullySharded

        trained = [parameter for parameter in policy.module.parameters() if parameter.requires_grad]
        learner.optimizer = torch.optim.AdamW(trained, lr=2e-3, eps=1e-3, weight_decay=0.0, fused=True)
        parallel._own = FullySharded(policy.module, learner.optimizer, parallel, precision)
    parallel.world = world
    for _ in range(2):
        step(learner, pack_whole(lessons(), section(precision)), lambda batch: sft_loss(policy.logps(batch)), count_tokens)
    return learner


def sharded(device: torch.device) -> Figures:
    """Two steps with FSDP2 over a mesh of one rank: the weights of one process to 1e-6, and a checkpoint that is read back."""
    alone = weights(after_two_steps(device, precision="fp32"))
    with connected(device) as name, tempfile.TemporaryDirectory() as folder:
        learner = after_two_steps(device, fsdp2=True, precision="fp32")
        together = weights(learner)
        learner.parallel.save(Path(folder))
        learner.parallel.load(Path(folder))
        again = weights(learner)
    apart, unread = largest(alone, together), largest(together, again)
    figures = {"connection": name, "weights differ by": apart, "read back, by": unread}
    if apart > SAME or unread:
        raise Failed(f"weights differ by {apart:.1e}, read back by {unread:.1e}", figures)
    return figures

"""Three ranks that load models in shards, look at them, hand them to FSDP2 and save them; test_spreading launches it.

Usage: torchrun --nproc-per-node 3 -m tests.model.ranks_spread FOLDER NAMES, where FOLDER/NAME are models; writes FOLDER/RANK.json
"""

import gc
import json
import math
import sys
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import nn
from torch.distributed.tensor import DTensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from tests.model.policies import GROUPS, LORA
from tests.samples import make_stage
from tulu.config.processes import leaving_at_once
from tulu.errors import RecipeError
from tulu.model.batch import pack_row
from tulu.model.gathering import unsharded
from tulu.model.parallel import Parallel
from tulu.model.policy import Policy
from tulu.model.private_state import whole_shape
from tulu.reward_models.model import RewardModel
from tulu.train.optimizer import Learner

LARGE = "large"
"""The model whose memory is counted."""
SHARING = "zamba2"
"""A model of which several layers have one transformer between them."""


def held(module: nn.Module) -> int:
    """Bytes of weights in this process."""
    tensors: list[Any] = [p.to_local() if isinstance(p, DTensor) else p for p in dict.fromkeys(module.parameters())]
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def largest(module: nn.Module) -> int:
    """Bytes of the largest weight, all of it."""
    return max(parameter.numel() * parameter.element_size() for parameter in module.parameters())


class Alive(TorchDispatchMode):
    """Counts the bytes of tensors that torch makes while it is entered, and that are alive at once."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.most = 0
        self.known: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        output = func(*args, **(kwargs or {}))
        given = {self._key(tensor) for tensor in tree_leaves((args, kwargs)) if self._counts(tensor)}
        for tensor in filter(self._counts, tree_leaves(output)):
            key = self._key(tensor)
            # What shares memory with an input was there before, perhaps in a file.
            if key not in given | self.known:
                storage = tensor.untyped_storage()
                self.known.add(key)
                self.now += storage.nbytes()
                self.most = max(self.most, self.now)
                weakref.finalize(storage, self._free, key, storage.nbytes())
        return output

    def _free(self, key: int, size: int) -> None:
        self.known.discard(key)
        self.now -= size

    @staticmethod
    def _counts(tensor: Any) -> bool:
        return isinstance(tensor, torch.Tensor) and not isinstance(tensor, DTensor) and tensor.device.type != "meta"

    @staticmethod
    def _key(tensor: torch.Tensor) -> int:
        return int(tensor.untyped_storage().data_ptr())


def most_alive(action: Callable[[], Any]) -> int:
    """The most bytes of tensors that were alive at once in this process while it acted, beside those before."""
    gc.collect()
    with Alive() as alive:
        action()
    return alive.most


def shapes_of(name: str, folder: Path, parallel: Parallel) -> dict[str, Any]:
    """How a model that is loaded in shards differs from the whole one, before and after FSDP2 takes it over."""
    options: dict[str, Any] = {"template": "tulu", "trust_remote_code": False}
    with unsharded():
        whole = Policy.load(folder / name, **options)
    spread = Policy.load(folder / name, **options)
    buffers = dict(whole.module.named_buffers())
    found: dict[str, Any] = {
        "spread": sum(isinstance(parameter, DTensor) for parameter in spread.module.parameters()),
        "share": held(spread.module) / held(whole.module),
        "digest": spread.digest() == whole.digest(),
        "rows": spread.module.trunk.rows == whole.module.trunk.rows,
        "tied": len(list(spread.module.parameters())) == len(list(whole.module.parameters())),
        "buffers": all(torch.equal(buffer, buffers[key]) for key, buffer in spread.module.named_buffers()),
    }
    if whole.module.trunk.rows == "single":
        try:
            Learner(spread, parallel_stage(), parallel)
        except RecipeError as error:
            return {**found, "refused": str(error)}
    Learner(spread, parallel_stage(), parallel)
    batch = pack_row(GROUPS)
    with torch.no_grad():
        found["logps"] = float((spread.logps(batch) - whole.logps(batch)).abs().max())
    found["digest after"] = spread.digest() == whole.digest()
    return found


def shared_gradients(folder: Path, parallel: Parallel) -> float:
    """How far the gradients of a model, whose layers share a weight, are from those of the whole one, relative to its largest."""
    options: dict[str, Any] = {"template": "tulu", "trust_remote_code": False}
    with unsharded():
        whole = Policy.load(folder / SHARING, **options)
    spread = Policy.load(folder / SHARING, **options)
    learner = Learner(spread, parallel_stage(), parallel)
    batch = pack_row(GROUPS)
    whole.logps(batch).sum().backward()
    learner.parallel.backward(spread.logps(batch).sum(), last=True)
    expected = {name: parameter.grad for name, parameter in whole.module.named_parameters()}
    off = 0.0
    for name, parameter in spread.module.named_parameters():
        gradient: Any = parameter.grad
        wanted = expected[name]
        if wanted is not None:
            # Every process read the same rows, and gradients are added up.
            found = gradient.full_tensor() / parallel.world
            off = max(off, float((found - wanted).abs().max() / wanted.abs().max().clamp(min=1e-8)))
    return off


def parallel_stage(**fields: Any) -> Any:
    return make_stage(sharding="fsdp2", **fields)


def special(folder: Path, parallel: Parallel) -> dict[str, Any]:
    """What changes a model between its loading and its training: adapters, new rows, a new head, half precision."""
    path, batch = folder / "qwen3", pack_row(GROUPS)
    found: dict[str, Any] = {}

    def compare(name: str, load: Callable[[], Any], answer: Callable[[Any], torch.Tensor], frozen: bool = False) -> None:
        with unsharded():
            whole = load()
        spread = load()
        same = whole.digest() == spread.digest()
        if frozen:
            parallel.prepare_frozen(spread.module)
        else:
            Learner(spread, parallel_stage(), parallel)
        with torch.no_grad():
            off = float((answer(spread) - answer(whole)).abs().max())
        found[name] = [same, off, held(spread.module) / held(whole.module)]

    def logps(policy: Policy) -> torch.Tensor:
        return policy.logps(batch)

    def score(reward_model: RewardModel) -> torch.Tensor:
        return reward_model.score(batch)

    compare("adapters", lambda: Policy.load(path, template="tulu", lora=LORA), logps)
    compare("a new head", lambda: RewardModel.load(path, template="tulu", trainable=True, new_head=5), score)
    head = folder / "reward-model"
    with unsharded():
        RewardModel.load(path, template="tulu", trainable=True, new_head=5).save(head, parallel.is_main)
    parallel.wait()
    compare("a trained head", lambda: RewardModel.load(head, template="tulu", trainable=True), score)
    compare(
        "a head anew", lambda: RewardModel.load(head, template="tulu", trainable=True, new_head=7), lambda rm: rm.score(batch)
    )
    short = folder / "short"
    compare("more rows", lambda: Policy.load(short, template="tulu", resize_embeddings=True), logps)
    try:
        Policy.load(folder / "olmoe", template="tulu", lora=LORA)
    except RecipeError as error:
        found["experts"] = str(error)
    half = Parallel(parallel_stage(precision="bf16"))
    compare("bf16", lambda: Policy.load(path, template="tulu", trainable=False, precision="bf16"), logps)
    del half
    return found


def zero3(folder: Path) -> dict[str, Any]:
    """The same of ZeRO-3, whose weights are not tensors of their shapes."""
    parallel = Parallel(make_stage(sharding="zero3"))
    policy = Policy.load(folder / LARGE, template="tulu")
    unit = max(math.prod(whole_shape(parameter)) * 4 for parameter in policy.module.parameters())
    Learner(policy, make_stage(sharding="zero3"), parallel)
    found = {"digest": most_alive(policy.digest) / unit}
    found["save"] = most_alive(lambda: policy.save(folder / "of-zero3", parallel.is_main)) / unit
    parallel.wait()
    saved, before = load_file(folder / "of-zero3" / "model.safetensors"), load_file(folder / LARGE / "model.safetensors")
    return {**found, "saved": saved.keys() == before.keys() and all(torch.equal(saved[name], before[name]) for name in before)}


def memory(folder: Path, parallel: Parallel) -> dict[str, Any]:
    """Bytes that are alive at once beside this process's own share, in units of the largest weight."""
    spread: list[Policy] = []
    load = most_alive(lambda: spread.append(Policy.load(folder / LARGE, template="tulu")))
    policy = spread[0]
    unit = largest(policy.module)
    found = {"model": held(policy.module) * parallel.world / unit, "load": (load - held(policy.module)) / unit}
    Learner(policy, parallel_stage(), parallel)
    found["digest"] = most_alive(policy.digest) / unit
    found["save"] = most_alive(lambda: policy.save(folder / "saved", parallel.is_main)) / unit
    parallel.wait()
    saved, before = load_file(folder / "saved" / "model.safetensors"), load_file(folder / LARGE / "model.safetensors")
    found["saved"] = saved.keys() == before.keys() and all(torch.equal(saved[name], before[name]) for name in before)
    return found


def main(folder: Path, names: list[str]) -> None:
    parallel = Parallel(parallel_stage())
    found: dict[str, Any] = {name: shapes_of(name, folder, parallel) for name in names}
    found["shared"] = shared_gradients(folder, parallel)
    found["special"] = special(folder, parallel)
    found["memory"] = memory(folder, parallel)
    found["zero3"] = zero3(folder)
    (folder / f"{parallel.rank}.json").write_text(json.dumps(found))


if __name__ == "__main__":
    with leaving_at_once():
        main(Path(sys.argv[1]), sys.argv[2:])

"""A replica without a model: tokens are a function of weights, seed and place, and files in its folder make it misbehave once."""

import asyncio
import math
import os
import signal
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

from tulu.rollout.broadcast import Broken, Joining
from tulu.rollout.engine import EngineSpec
from tulu.rollout.fleet import Request
from tulu.rollout.fleet_replica import Replica, Taken, Waking
from tulu.rollout.pieces import Broadcast, Place
from tulu.rollout.receiver import Receiver, digests
from tulu.rollout.sampling import stable_seed
from tulu.rollout.sync import Layout, Shapes, read_shapes
from tulu.types import Completion

STEP_SECONDS = 0.01
VOCABULARY = 1000


def token_of(weight: float, seed: int, place: int) -> int:
    return stable_seed(weight, seed, place) % VOCABULARY


class FakeReplica(Replica):
    """`SECONDS` in a request's problem id, as in `p3@0.5`, is how long each of its tokens takes."""

    def __init__(self, spec: EngineSpec, tensor_parallel: int = 1) -> None:
        super().__init__(spec, tensor_parallel)
        # A test may ask for these before the process is an engine.
        self.places: list[str] = []
        self.calls: list[str] = []

    async def load_model(self) -> Shapes:
        if self.trick("refuse-to-start"):
            raise OSError("no such model")
        if self.trick("die-at-start"):
            os.kill(os.getpid(), signal.SIGKILL)
        if self.trick("start-slowly"):
            await asyncio.sleep(3)
        self.receiver = Receiver(torch.device("cpu"))
        self.held: dict[str, torch.Tensor] = {}
        self.weight = 0.0
        self.going = asyncio.Event()
        self.going.set()
        self.stopping: set[str] = set()
        return read_shapes(Path(self.spec.folder), tied=False)

    def trick(self, name: str) -> bool:
        """Whether the test asked for this; it is done once."""
        try:
            # Of two engines that look at the same time, one removes it.
            (Path(self.spec.folder) / name).unlink()
        except FileNotFoundError:
            return False
        return True

    async def sample(self, request: Request) -> tuple[Completion, bool]:
        _, _, pace = request.problem_id.partition("@")
        begun = len(request.begun.tokens) if request.begun else 0
        tokens: list[int] = []
        versions: list[tuple[int, int]] = []
        while begun + len(tokens) < request.params.max_tokens and request.key not in self.stopping:
            await asyncio.sleep(float(pace or STEP_SECONDS))
            await self.going.wait()
            if self.trick("freeze"):
                time.sleep(1000)
            if self.trick("stall"):
                await asyncio.sleep(1000)
            if (broken := Path(self.spec.folder) / "always-broken").exists():
                raise RuntimeError(broken.read_text())
            if self.trick("break"):
                raise RuntimeError("out of luck")
            if not versions or versions[-1][1] != self.version:
                versions.append((len(tokens), self.version))
            tokens.append(token_of(self.weight, request.seed, len(tokens)))
            self.sampled(1)
        stopped = request.key in self.stopping
        self.stopping.discard(request.key)
        return Completion(tokens, [True] * len(tokens), [-1.0] * len(tokens), "length", versions), not stopped

    async def stop_sampling(self, keys: Sequence[str]) -> None:
        self.stopping.update(keys)

    async def pause(self) -> None:
        if self.trick("freeze-in-sync"):
            time.sleep(1000)
        if (Path(self.spec.folder) / "all-die-in-sync").exists():
            os.kill(os.getpid(), signal.SIGKILL)
        self.calls.append("pause")
        self.going.clear()

    async def receive(self, place: Place, layout: Layout) -> Taken:
        if isinstance(place, Broadcast) and self.trick("die-in-broadcast"):
            os.kill(os.getpid(), signal.SIGKILL)
        if isinstance(place, Broadcast) and self.trick("freeze-in-broadcast"):
            time.sleep(1000)
        try:
            bytes_here = (await asyncio.to_thread(self.receiver.memory, place, layout)).clone()
        except Broken as error:
            return Taken({}, str(error))
        if self.trick("corrupt") or (Path(self.spec.folder) / "always-corrupt").exists():
            bytes_here[layout.size // 2] ^= 1
        found = digests(bytes_here, layout)
        self.places.append(type(place).__name__)
        self.calls.append("take")
        if all(found[name] == info.digest for name, info in layout.infos.items()):
            self.held |= {name: tensor.clone() for name, tensor in layout.tensors(bytes_here)}
        del bytes_here
        return Taken(found, seconds={"verify": 0.0, "load": 0.0}, free=self.receiver.free())

    async def meet(self, joining: Joining) -> str:
        try:
            await asyncio.to_thread(self.receiver.join, joining)
        except Broken as error:
            return str(error)
        return ""

    async def cards(self) -> list[str]:
        return [""]

    async def resume(self) -> None:
        self.calls.append("resume")
        self.going.set()

    async def sleep(self) -> None:
        self.calls.append("sleep")
        self.going.clear()
        self.held, self.weight = {}, 0.0

    async def wake(self, what: Waking) -> None:
        self.calls.append(f"wake {what}")

    async def adopt(self, version: int) -> None:
        self.calls.append("adopt")
        self.weight = float(sum(tensor.float().sum() for tensor in self.held.values()))
        self.version = version


class UniformReplica(FakeReplica):
    """Bytes with the log-probs of a model that finds all tokens alike, which a learner with a tiny output head nearly does."""

    async def sample(self, request: Request) -> tuple[Completion, bool]:
        completion, whole = await super().sample(request)
        logp = -math.log(self.shapes["lm_head.weight"][0])
        tokens = [token % 256 for token in completion.tokens]
        return replace(completion, tokens=tokens, sampler_logps=[logp] * len(tokens)), whole

    async def adopt(self, version: int) -> None:
        await super().adopt(version)
        # Whatever the order in which they came.
        self.weight = math.fsum(float(tensor.double().sum()) for tensor in self.held.values())

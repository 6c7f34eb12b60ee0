"""One engine of a fleet, in the process that it has for itself: the body of a Ray actor, whatever it samples with.

The learner's process calls `start`, then `begin`, `take` for each parcel and `finish` to bring weights, `submit` and `cut` for
requests, and `report` all the time: what ended, and whether the engine lives. Ray runs these calls side by side.
"""

import asyncio
import os
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tulu.errors import EngineError
from tulu.rollout.engine import STALE, EngineSpec
from tulu.rollout.fleet import Ended, Finished, Request, Returned, joined
from tulu.rollout.sync import Layout, Shapes, Slice, TensorInfo, check_complete, check_infos, mapped
from tulu.types import Completion

CUT_SECONDS = 5.0
"""How long a request that is cut may take to hand over its tokens. After that they are lost."""

SPARE_PARCELS = 3
"""Parcels for which memory is kept from sync to sync: one loads, one is received, and of one a layer is incomplete."""
GATHER_SECONDS = 0.02
"""How long a report waits for more after something has ended."""

Parcels = Sequence[tuple[Sequence[Any], Mapping[str, TensorInfo]]]
"""Whole weights in the object store: for each parcel the references of its slices, and its tensors."""


@dataclass(frozen=True)
class Taken:
    """What a replica did with a parcel."""

    digests: dict[str, str]
    """Of each tensor, as it stands in the process that computes. Another digest than the learner's: nothing was loaded."""
    seconds: dict[str, float] = field(default_factory=dict)
    free: Sequence[str] = ()
    """The paths of the memory, of this parcel or of earlier ones, that is not needed any more."""


@dataclass(frozen=True)
class Report:
    """What a replica says of itself."""

    ended: list[Ended]
    version: int
    running: int
    """Requests that it works on, those included that wait inside the engine."""
    waiting: int
    """Those of them for which the engine has no room, for example no memory for keys and values."""
    tokens: int
    """All that it has sampled since it started."""
    silent: float
    """Seconds since it last sampled a token, while it has requests and is not paused."""


class Replica:
    """What every replica does. A subclass loads a model, samples one request, and receives weights."""

    def __init__(self, spec: EngineSpec, tensor_parallel: int = 1) -> None:
        self.spec = spec
        self.tensor_parallel = tensor_parallel
        self.version = STALE
        self.shapes: Shapes = {}
        """The weights that a sync must bring, by name."""
        self.arrived: set[str] = set()
        self.tasks: dict[str, asyncio.Task[None]] = {}
        self.ended: list[Ended] = []
        self.news = asyncio.Event()
        self.failure = ""
        """Why this engine cannot go on."""
        self.paused = False
        self.tokens = 0
        self.waiting = 0
        self.last_token = 0.0
        self.loading = asyncio.Lock()
        self.spare: list[SharedMemory] = []
        """Memory for parcels that is free to be used again."""
        self.lent: dict[str, SharedMemory] = {}
        """Memory of which a part is still needed, by its path."""

    # What a subclass provides.

    async def load_model(self) -> Shapes:
        """Load the model and return the shape of each of its weights. Raises EngineError if that fails."""
        raise NotImplementedError

    async def sample(self, request: Request) -> tuple[Completion, bool]:
        """Sample one request; return what was sampled behind `request.begun`, and whether it ended by itself rather than cut."""
        raise NotImplementedError

    async def stop_sampling(self, keys: Sequence[str]) -> None:
        """Make `sample` return for these."""
        raise NotImplementedError

    async def pause(self) -> None:
        """Stop between two tokens, keep the requests, forget their keys and values, and prepare for new weights."""
        raise NotImplementedError

    async def receive(self, memory: str, layout: Layout) -> Taken:
        """Load the tensors that lie in a file in memory, if their digests are those of the layout."""
        raise NotImplementedError

    async def resume(self, version: int) -> None:
        """Go on with the weights that were received. Raises EngineError if something of the old ones is left."""
        raise NotImplementedError

    # What the learner's process calls.

    async def start(self) -> int:
        """Load the model; returns the id of this process."""
        self.shapes = await self.load_model()
        self.version = self.spec.version
        return os.getpid()

    async def begin(self) -> float:
        """Stop sampling so that weights may change; requests are kept. Returns the seconds that took."""
        began = time.monotonic()
        self.version, self.paused, self.arrived = STALE, True, set()
        await self.pause()
        return time.monotonic() - began

    async def take(self, references: Sequence[Any], infos: Mapping[str, TensorInfo]) -> Taken:
        """Load one parcel. Raises EngineError if it does not fit the model."""
        check_infos(infos, self.shapes, self.spec.dtype)
        layout = Layout.of(infos)
        began = time.monotonic()
        # Memory that was used before is faster than new memory, which the system has to clear.
        memory = next((spare for spare in self.spare if spare.size >= layout.size), None)
        if memory is None:
            memory = await asyncio.to_thread(SharedMemory, layout.size)
        else:
            self.spare.remove(memory)
        for reference in references:
            slices = await asyncio.wait_for(reference, self.spec.timeout)
            await asyncio.to_thread(memory.write, layout, slices)
            del slices
        received = time.monotonic() - began
        # The next parcel is received while this one loads.
        async with self.loading:
            taken = await self.receive(memory.path, layout)
            self.lent[memory.path] = memory
            self._take_back(taken.free)
        if all(taken.digests.get(name) == info.digest for name, info in infos.items()):
            self.arrived.update(infos)
        return replace(taken, seconds={"receive": received, **taken.seconds})

    async def finish(self, version: int) -> float:
        """Sample with the weights that came. Raises EngineError if one is missing. Returns the seconds that took."""
        began = time.monotonic()
        check_complete(self.arrived, self.shapes)
        await self.resume(version)
        self.version, self.paused, self.last_token = version, False, time.monotonic()
        return time.monotonic() - began

    async def restore(self, parcels: Parcels, version: int) -> dict[str, str]:
        """Take a whole set of weights out of the object store, and return their digests: for an engine that was restarted."""
        await self.begin()
        digests: dict[str, str] = {}
        for references, infos in parcels:
            digests |= (await self.take(references, infos)).digests
        await self.finish(version)
        return digests

    async def submit(self, requests: Sequence[Request], version: int) -> None:
        """Begin to sample these. Raises EngineError if the weights are not those of `version`."""
        if version == STALE or self.version != version:
            raise EngineError(f"the engine holds weights of version {self.version}, not {version}: sync it before sampling")
        if not self.tasks:
            self.last_token = time.monotonic()
        for request in requests:
            self.tasks[request.key] = asyncio.create_task(self._run(request))

    async def cut(self, keys: Sequence[str]) -> None:
        """Stop these, and report what was sampled of them."""
        tasks = {key: self.tasks[key] for key in keys if key in self.tasks}
        if not tasks:
            return
        await self.stop_sampling(list(tasks))
        _, late = await asyncio.wait(tasks.values(), timeout=CUT_SECONDS)
        for task in late:
            task.cancel()

    async def report(self, patience: float) -> Report:
        """Say what ended since the last report, as soon as something has or `patience` seconds have passed."""
        if not self.ended and not self.failure:
            self.news.clear()
            with suppress(TimeoutError):
                await asyncio.wait_for(self.news.wait(), patience)
                # Completions of one group often end close together, and one report is cheaper than several.
                await asyncio.sleep(GATHER_SECONDS)
        if self.failure:
            raise EngineError(self.failure)
        ended, self.ended = self.ended, []
        silent = time.monotonic() - self.last_token if self.tasks and not self.paused else 0.0
        return Report(ended, self.version, len(self.tasks), self.waiting, self.tokens, silent)

    def sampled(self, tokens: int, waiting: int = 0) -> None:
        """Note that the engine lives: it sampled so many tokens more."""
        self.tokens += tokens
        self.waiting = waiting
        self.last_token = time.monotonic()

    def fail(self, reason: str) -> None:
        """Tell the learner's process with the next report that this engine cannot go on."""
        self.failure = self.failure or reason
        self.news.set()

    def _take_back(self, paths: Sequence[str]) -> None:
        for path in paths:
            memory = self.lent.pop(path)
            if len(self.spare) < SPARE_PARCELS:
                self.spare.append(memory)
            else:
                memory.close()

    async def _run(self, request: Request) -> None:
        began = time.monotonic()
        try:
            completion, whole = await self.sample(request)
            together = joined(request.begun, completion)
            if whole:
                self.ended.append(Finished(request.key, together, "", time.monotonic() - began))
            else:
                self.ended.append(Returned(request.key, together, "it was cut"))
        except asyncio.CancelledError:
            self.ended.append(Returned(request.key, request.begun, "it was cut, and its tokens did not come in time"))
        except Exception as error:  # noqa: BLE001
            # Whatever went wrong is told by name in the learner's process; a task's own error would only be logged here.
            self.fail(f"sampling {request.key} failed ({type(error).__name__}: {error})")
        finally:
            del self.tasks[request.key]
            self.news.set()


class SharedMemory:
    """Memory that a child process can open by `path`.

    It needs no room in /dev/shm, which containers often keep at 64 MB, and is freed when nobody has it mapped any more, even if
    this process is killed. Raises EngineError if there is no memory.
    """

    def __init__(self, size: int) -> None:
        self.size = max(1, size)
        self.handle = os.memfd_create("tulu-weights")
        try:
            os.posix_fallocate(self.handle, 0, self.size)
        except OSError as error:
            os.close(self.handle)
            raise EngineError(f"no memory for {size / 1e6:.0f} MB of weights on their way to vLLM ({error.strerror})") from error
        self.path = f"/proc/{os.getpid()}/fd/{self.handle}"
        self.bytes: NDArray[np.uint8] = mapped(self.path, self.size)

    def write(self, layout: Layout, slices: Sequence[Slice]) -> None:
        """Write bytes of tensors to their places."""
        for name, first, part in slices:
            start = layout.starts[name] + first
            self.bytes[start : start + len(part)] = part

    def close(self) -> None:
        """Let it go, as far as this process is concerned."""
        os.close(self.handle)
        del self.bytes

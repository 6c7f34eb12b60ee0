"""One engine of a fleet, in the process that it has for itself: the body of a Ray actor, whatever it samples with.

The learner's process calls `start`, then `begin`, `take` for each piece and `finish` to bring weights, `submit` and `cut` for
requests, and `report` all the time: what ended, and whether the engine lives. Ray runs these calls side by side.
"""

import asyncio
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from tulu import deadlines
from tulu.errors import EngineError
from tulu.rollout.broadcast import Joining
from tulu.rollout.engine import STALE, EngineSpec
from tulu.rollout.fleet import Ended, Finished, Request, Returned, joined
from tulu.rollout.fleet_calls import EngineBroken, said
from tulu.rollout.pieces import Memory, Objects, Piece, Place, SharedMemory
from tulu.rollout.sync import Layout, Shapes, check_complete, check_infos
from tulu.types import Completion

CUT_SECONDS = 5.0
"""How long a request that is cut may take to hand over its tokens. After that they are lost."""

SPARE_PARCELS = 3
"""Parcels for which memory is kept from sync to sync: one loads, one is received, and of one a layer is incomplete."""
GATHER_SECONDS = 0.02
"""How long a report waits for more after something has ended."""


Waking = Literal["weights", "kv_cache"]
"""The memory of a sleeping engine that it takes again."""


@dataclass(frozen=True)
class Taken:
    """What a replica did with a parcel."""

    digests: dict[str, str]
    """Of each tensor, as it stands in the process that computes. Another digest than the learner's: nothing was loaded."""
    missed: str = ""
    """Why the piece did not arrive; there are no digests then."""
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
        self.called = asyncio.Event()
        """Set when this process is to be an engine."""
        self.failure: EngineError | None = None
        """Why this engine cannot go on."""
        self.paused = False
        self.asleep = False
        self.tokens = 0
        self.waiting = 0
        self.last_token = 0.0
        self.loading = asyncio.Lock()
        self.spare: list[SharedMemory] = []
        """Memory for parcels that is free to be used again."""
        self.lent: dict[str, SharedMemory] = {}
        """Memory of which a part is still needed, by its path."""

    # What a subclass provides.

    def get_ready(self) -> None:
        """Import what `load_model` needs, so that it does not take its time; no GPU may be touched."""

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

    async def receive(self, place: Place, layout: Layout) -> Taken:
        """Load the tensors that lie at this place, which is not the object store, if their digests are those of the layout."""
        raise NotImplementedError

    async def meet(self, joining: Joining) -> str:
        """Let every process that computes join the group in which weights are sent; returns why one could not, or ""."""
        raise NotImplementedError

    async def cards(self) -> list[str]:
        """The names of the GPUs that this engine computes on, that of each process; "" without one."""
        raise NotImplementedError

    async def adopt(self, version: int) -> None:
        """Compute with the weights that were received. Raises EngineError if something of the old ones is left."""
        raise NotImplementedError

    async def resume(self) -> None:
        """Go on sampling."""
        raise NotImplementedError

    async def sleep(self) -> None:
        """Stop between two tokens, keep the requests, and give the memory of weights, keys and values back."""
        raise NotImplementedError

    async def wake(self, what: Waking) -> None:
        """Take the memory of the weights, or of keys and values, again. What was in it is lost."""
        raise NotImplementedError

    # What the learner's process calls.

    async def stand_by(self) -> None:
        """Import what an engine needs, and answer only when this process is to be one."""
        self.get_ready()
        await self.called.wait()

    async def start(self, environment: Mapping[str, str] | None = None) -> int:
        """Load the model, with these variables set in this process; returns its id."""
        self.called.set()
        os.environ.update(environment or {})
        self.shapes = await self.load_model()
        self.version = self.spec.version
        return os.getpid()

    async def rest(self) -> None:
        """Give the memory back while the learner trains; `begin` and `finish` take it again. Nothing is sampled until then."""
        self.version, self.paused, self.asleep = STALE, True, True
        await self.sleep()

    async def begin(self) -> float:
        """Stop sampling so that weights may change; requests are kept. Returns the seconds that took."""
        began = deadlines.now()
        self.version, self.paused, self.arrived = STALE, True, set()
        if self.asleep:
            await self.wake("weights")
        await self.pause()
        return deadlines.now() - began

    async def take(self, piece: Piece) -> Taken:
        """Load one piece. Raises EngineError if it does not fit the model."""
        check_infos(piece.infos, self.shapes, self.spec.dtype)
        layout = Layout.of(piece.infos)
        began = deadlines.now()
        place = piece.place
        if isinstance(place, Objects):
            place = await self._received(place.references, layout)
        received = deadlines.now() - began
        # The next piece is received while this one loads.
        async with self.loading:
            taken = await self.receive(place, layout)
            self._take_back(taken.free)
        if all(taken.digests.get(name) == info.digest for name, info in piece.infos.items()):
            self.arrived.update(piece.infos)
        return replace(taken, seconds={"receive": received, **taken.seconds})

    async def finish(self, version: int) -> float:
        """Sample with the weights that came. Raises EngineError if one is missing. Returns the seconds that took."""
        began = deadlines.now()
        check_complete(self.arrived, self.shapes)
        await self.adopt(version)
        # Keys and values come last: until here their memory served the loading of weights.
        if self.asleep:
            await self.wake("kv_cache")
            self.asleep = False
        await self.resume()
        self.version, self.paused, self.last_token = version, False, deadlines.now()
        return deadlines.now() - began

    async def restore(self, pieces: Sequence[Piece], version: int) -> dict[str, str]:
        """Take a whole set of weights that the learner keeps, and return their digests: for an engine that was restarted."""
        await self.begin()
        digests: dict[str, str] = {}
        for piece in pieces:
            digests |= (await self.take(piece)).digests
        await self.finish(version)
        return digests

    async def submit(self, requests: Sequence[Request], version: int) -> None:
        """Begin to sample these. Raises EngineError if the weights are not those of `version`."""
        if version == STALE or self.version != version:
            raise EngineError(f"the engine holds weights of version {self.version}, not {version}: sync it before sampling")
        if not self.tasks:
            self.last_token = deadlines.now()
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
            raise self.failure
        ended, self.ended = self.ended, []
        silent = deadlines.now() - self.last_token if self.tasks and not self.paused else 0.0
        return Report(ended, self.version, len(self.tasks), self.waiting, self.tokens, silent)

    def sampled(self, tokens: int, waiting: int = 0) -> None:
        """Note that the engine lives: it sampled so many tokens more."""
        self.tokens += tokens
        self.waiting = waiting
        self.last_token = deadlines.now()

    def fail(self, error: EngineError) -> None:
        """Tell the learner's process with the next report that this engine cannot go on."""
        self.failure = self.failure or error
        self.news.set()

    async def _received(self, references: Sequence[Any], layout: Layout) -> Memory:
        """Bring slices from the object store into memory that the process which computes can map."""
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
        self.lent[memory.path] = memory
        return Memory(memory.path)

    def _take_back(self, paths: Sequence[str]) -> None:
        # Memory of the learner's stays the learner's.
        for memory in [self.lent.pop(path) for path in paths if path in self.lent]:
            if len(self.spare) < SPARE_PARCELS:
                self.spare.append(memory)
            else:
                memory.close()

    async def _run(self, request: Request) -> None:
        began = deadlines.now()
        try:
            completion, whole = await self.sample(request)
            together = joined(request.begun, completion)
            if whole:
                self.ended.append(Finished(request.key, together, "", deadlines.now() - began))
            else:
                self.ended.append(Returned(request.key, together, "it was cut"))
        except asyncio.CancelledError:
            self.ended.append(Returned(request.key, request.begun, "it was cut, and its tokens did not come in time"))
        except Exception as error:  # noqa: BLE001
            # Whatever went wrong is told by name in the learner's process; a task's own error would only be logged here.
            self.fail(error if isinstance(error, EngineError) else EngineBroken(f"sampling failed ({said(error)})"))
        finally:
            del self.tasks[request.key]
            self.news.set()

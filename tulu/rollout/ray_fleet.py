"""A fleet of engines in processes of their own, on this machine or in a Ray cluster."""

import logging
import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from torch import Tensor

from tulu.config.cluster import cluster_address
from tulu.errors import EngineError
from tulu.model.devices import default_device
from tulu.rollout.engine import STALE, EngineSpec, check_answer
from tulu.rollout.fleet import Ended, EngineState, Finished, Recovery, Request, Returned, SyncReport, prepare_all
from tulu.rollout.fleet_admission import shared_out
from tulu.rollout.fleet_calls import EngineLost
from tulu.rollout.fleet_member import Limits, Member, start_all, why_hopeless
from tulu.rollout.fleet_places import make_members
from tulu.rollout.fleet_replica import Replica
from tulu.rollout.fleet_sync import Delivery, put_to_sleep
from tulu.rollout.pieces import Kept, MemoryShelf, ObjectShelf, Shelf
from tulu.rollout.transport import Transport, choose, told_way
from tulu.rollout.vllm_engine import start_ray
from tulu.rollout.vllm_replica import VllmReplica
from tulu.types import Group

log = logging.getLogger("tulu")

TAKES_WEIGHTS = ("ready", "stale", "asleep")
"""What an engine may be when a sync begins."""
TICK_SECONDS = 0.2
"""How often deadlines are looked at while no engine reports."""


class RayFleet:
    """Engines as Ray actors. A thread listens to them, so that they keep working, and come back, while the learner trains."""

    def __init__(
        self,
        spec: EngineSpec,
        engines: int,
        tensor_parallel: int = 1,
        learners: int = 1,
        limits: Limits | None = None,
        replica: type[Replica] = VllmReplica,
        transport: Transport | None = None,
    ) -> None:
        """Start the engines and wait until they have loaded the model. Raises EngineError if one of them cannot.

        `learners` are the processes that train on this machine's first GPUs. None is the `transport` that suits what is there.
        """
        import ray

        folder = Path(spec.folder)
        self.spec = replace(spec, folder=str(folder.resolve()) if folder.is_dir() else spec.folder)
        self.limits = limits or Limits()
        self.version = spec.version
        self.kept: Kept = []
        self.waiting: deque[Request] = deque()
        self.ended: list[Ended] = []
        self.recovered: list[Recovery] = []
        self.submitted: dict[str, float] = {}
        self.trouble: Exception | None = None
        self.closed = False
        self.resting = False
        """Whether engines on the learners' GPUs sleep."""
        self.changed = threading.Condition()
        """Held while anything here is read or changed; notified when something ended."""
        self.own_ray = start_ray(self.spec.folder, self.spec.dtype)
        self.cluster = cluster_address() is not None
        self.shelf: Shelf = ObjectShelf() if self.cluster else MemoryShelf()
        self.members, self.standby, shared = make_members(
            self.spec, replica, engines, tensor_parallel, learners, self.limits, self.cluster
        )
        seconds = self.limits.sync / 2
        # What a machine calls itself is often an address that others have for themselves, such as 127.0.1.1.
        address = ray.util.get_node_ip_address() if self.cluster else "127.0.0.1"
        self.transport = transport or choose(default_device(), self.cluster, shared, address, seconds, tensor_parallel)
        log.info("new weights reach the engines by %s", told_way(self.transport, self.shelf))
        self.thread = threading.Thread(target=self._listen, name="tulu-fleet", daemon=True)
        try:
            self._start()
        except BaseException:
            self.close()
            raise

    def states(self) -> list[EngineState]:
        """What is known of each engine."""
        with self.changed:
            return [member.state() for member in self.members]

    def submit(self, requests: Sequence[Request]) -> None:
        """Begin to sample these. Raises EngineError before the first sync, and if one does not fit an engine."""
        with self._unharmed():
            if self.version == STALE:
                raise EngineError("the engines are stale: their weights are not the learner's; sync them before sampling")
            for ready in prepare_all(requests, self.submitted, self.spec.max_length):
                if isinstance(ready, Finished):
                    self.ended.append(ready)
                else:
                    self.submitted[ready.key] = time.monotonic()
                    self.waiting.append(ready)
            self._dispatch()

    def collect(self, timeout: float) -> list[Ended]:
        """What ended since the last call; waits at most `timeout` seconds for the first."""
        with self.changed:
            self.changed.wait_for(lambda: self.ended or self.trouble, timeout)
            if self.trouble is not None and not self.ended:
                raise self.trouble
            ended, self.ended = self.ended, []
            return ended

    def cut(self, keys: Sequence[str]) -> None:
        """Stop working on these; they come back by `collect`."""
        with self._unharmed():
            wanted = set(keys)
            self._take_over([Returned(one.key, one.begun, "it was cut") for one in self.waiting if one.key in wanted])
            self.waiting = deque(request for request in self.waiting if request.key not in wanted)
            for member in self.members:
                if here := wanted & member.running.keys():
                    member.cut(sorted(here))

    def room(self) -> int:
        """How many more requests the engines would work on."""
        with self._unharmed():
            return max(0, sum(member.room for member in self.members) - len(self.waiting))

    def sync(self, weights: Iterable[tuple[str, Tensor]], version: int) -> SyncReport:
        """Bring new weights to all engines, which pause for it between two tokens and keep their requests.

        An engine that dies on the way is started again, and takes them as soon as it is back, be it the only one. Raises
        EngineError if the engines refuse the weights, if they arrive corrupted twice, or if no engine is left.
        """
        with self._unharmed():
            self._wake()
            self._await_one()
            former, self.kept, self.version = self.kept, [], STALE
            members = [member for member in self.members if member.status in TAKES_WEIGHTS]
            self.shelf.clear(former, in_use=any(member.reading for member in self.members))
            delivery = Delivery(members, version, self.limits.sync, self._lose, self.transport, self.shelf)
            try:
                report = delivery.run(weights, self.spec.dtype)
            except BaseException as error:
                # Engines that hold half of the weights may never sample again.
                for member in members:
                    self._lose(member, f"the sync broke off ({error})")
                raise
            self.kept, self.version = delivery.kept, version
            for member in delivery.members:
                self._ready(member)
            self._dispatch()
            return report

    def rest(self) -> None:
        """Let engines on the learners' GPUs sleep until the next sync; those on GPUs of their own go on."""
        if not self.spec.sleeps:
            return
        with self._unharmed():
            # One that starts now would load its model while the learner trains.
            self.changed.wait_for(
                lambda: self.trouble is not None or all(one.status not in ("starting", "syncing") for one in self.members),
                self.limits.start + self.limits.sync,
            )
            self.resting = True
            awake = [member for member in self.members if member.status == "ready"]
            for name, error in put_to_sleep(awake, self.limits.sync).items():
                self._lose(next(member for member in awake if member.name == name), error.reason)

    def check(self) -> list[Recovery]:
        """The engines that are back since the last call. Raises EngineError if none is left."""
        with self._unharmed():
            recovered, self.recovered = self.recovered, []
            return recovered

    def close(self) -> None:
        """End the engines, and Ray if it was started for them."""
        import ray

        with self.changed:
            self.closed = True
            self.transport.close()
            for member in self.members:
                member.end()
            self.standby.end()
        if self.thread.is_alive():
            self.thread.join(10)
        if self.own_ray:
            ray.shutdown()
            self.own_ray = False

    # What follows is called with the lock held.

    @contextmanager
    def _unharmed(self) -> Iterator[None]:
        with self.changed:
            if self.closed:
                raise EngineError("the fleet is closed")
            if self.trouble is not None:
                raise self.trouble
            yield

    def _start(self) -> None:
        start_all(self.members)
        for member in self.members:
            member.call = None
            self._loaded(member)
        self.thread.start()

    def _listen(self) -> None:
        """What the thread does: wait until an engine says something, and take note of it."""
        import ray

        while True:
            with self.changed:
                references = [call.reference for member in self.members for call in member.calls()]
            if references:
                ray.wait(references, num_returns=1, timeout=TICK_SECONDS)
            else:
                time.sleep(TICK_SECONDS)
            with self.changed:
                if self.closed:
                    return
                try:
                    self._advance()
                except Exception as error:  # noqa: BLE001
                    # An error of this thread is raised where the fleet is used; here nobody would see it.
                    self.trouble = error
                self.changed.notify_all()

    def _advance(self) -> None:
        """Take over what the engines say, look at every deadline, and hand out requests. This does not wait."""
        for member in self.members:
            member.pass_time()
            try:
                self._step(member)
            except EngineLost as error:
                self._lose(member, error.reason, error.cause)
        self.standby.tend(not any(member.status in ("starting", "syncing") for member in self.members))
        self._dispatch()
        if told := why_hopeless(self.members):
            self.trouble = EngineError(told)

    def _step(self, member: Member) -> None:
        member.check_sent()
        if member.ear is not None:
            if member.ear.answered:
                report = member.ear.answer()
                member.listen()
                self._take_over(member.heard(report))
            else:
                member.ear.check()
        if member.call is not None:
            if not member.call.answered:
                member.call.check()
                return
            answer, member.call = member.call.answer(), None
            member.reading = []
            if member.status == "starting":
                self._loaded(member)
            else:
                self._restored(member, answer)

    def _loaded(self, member: Member) -> None:
        """It has the weights of the folder, which are seldom those of the learner."""
        if member.ear is None:
            member.listen()
        if self.version != STALE and self.kept:
            member.restore(self.kept, self.version)
        elif self.version != STALE:
            self._ready(member)
        else:
            member.status = "stale"

    def _restored(self, member: Member, digests: dict[str, str]) -> None:
        if member.promised != self.version:
            # There were new weights while it took the old ones.
            self._loaded(member)
            return
        for name, info in (named for piece in self.kept for named in piece.infos.items()):
            if digests.get(name) != info.digest:
                raise EngineLost(member.name, f"{name} is corrupted: its digest is not the learner's")
        self._ready(member)

    def _ready(self, member: Member) -> None:
        recovery = member.ready(self.version)
        if recovery is not None:
            self.recovered.append(recovery)

    def _lose(self, member: Member, reason: str, cause: str = "") -> None:
        # While the learner trains, its GPUs have no room for an engine that loads its model.
        self._take_over(member.fail(reason, self.resting, cause))

    def _take_over(self, ended: Sequence[Ended]) -> None:
        """Keep these for `collect`. Raises EngineError where the model that was sampled from predicts NaN."""
        now = time.monotonic()
        for end in ended:
            since = self.submitted.pop(end.key, now)
            if isinstance(end, Finished):
                check_answer([Group((), [end.completion], end.key)])
                end = replace(end, seconds=now - since)
            self.ended.append(end)

    def _dispatch(self) -> None:
        """Give waiting requests to the engines that have room."""
        for index, batch in shared_out(self.waiting, [member.room for member in self.members]).items():
            self.members[index].send(batch)

    def _wake(self) -> None:
        """The learner has trained. Engines that sleep wake when weights come; those that failed meanwhile start now."""
        self.resting = False
        for member in self.members:
            if member.status == "asleep" and member.actor is None:
                member.start()

    def _await_one(self) -> None:
        """Wait until an engine can take weights; those that start say themselves how long they have been doing so."""

        def can_take() -> bool:
            return self.trouble is not None or any(member.status in TAKES_WEIGHTS for member in self.members)

        if not self.changed.wait_for(can_take, self.limits.start + self.limits.sync):
            raise EngineError("no engine came back in time to take the weights")
        if self.trouble is not None:
            raise self.trouble

"""`rlvr.resources.learners: N` in a Ray cluster: N ranks of the same command, wherever the cluster has the GPUs.

This process asks Ray for N places, each with a GPU where the cluster has any. On each place an actor starts one rank as a process
of its own, exactly as `--gpus` does on one machine, and tells this process what it hears of it; `attend` (launch.py) does the
rest: one message, an end within 30 s, a Ctrl-C that reaches every rank once. A rank ends with its actor, and an actor with this
process, whichever way that dies. The ranks work in the folder of this command, which all nodes must share.
"""

import logging
import os
import sys
import time
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

from tulu import deadlines
from tulu.commands.launch import TAIL, attend
from tulu.commands.ray_rank import Heard, Learner, Place
from tulu.commands.reports import Report
from tulu.config.cluster import VARIABLE, cluster_address, connect, in_one_line
from tulu.errors import EngineError, RecipeError, TuluError

log = logging.getLogger("tulu")

PLACE_SECONDS = 600.0
"""How long the cluster may take until it has room for all ranks. Nodes that an autoscaler starts take minutes."""
TELL_SECONDS = 10.0
"""How often that wait is told."""
START_SECONDS = 120.0
"""How long an actor may take to start on its place."""
PATIENCE = 0.5
"""How long an actor waits for news of its rank before it answers that there is none."""
ANSWER_SECONDS = 20.0
"""How long an actor may leave a question without an answer, before its node counts as lost."""
OF_ONE_NODE = ("CUDA_VISIBLE_DEVICES", "HOSTNAME", "RANK", "LOCAL_RANK", "LOCAL_WORLD_SIZE")
"""Names of the environment that say something of the node of this process, and mean nothing on another."""
TOKEN = "RAY_AUTH_"
"""How the names begin by which a process shows that it may connect to the cluster. Ray's other names are those of one process."""


class RayRank:
    """A rank on some node, as this process sees it: it asks the rank's actor all the time, and never waits for the answer."""

    def __init__(self, number: int, actor: Any) -> None:
        self.number = number
        self.tail: deque[str] = deque(maxlen=TAIL)
        self.waiting: deque[tuple[float, str]] = deque()
        self.was_ended = False
        self.lost = ""
        self.report: Report | None = None
        self._actor = actor
        self._code: int | None = None
        self._signals: deque[tuple[int, bool]] = deque()
        """What is still to be sent. A handler of signals may interrupt a call of Ray, and so makes none itself."""
        self._ask()

    @property
    def exit_code(self) -> int | None:
        """The exit code, negative for a signal; None while it runs, and 1 where nothing is heard of it any more."""
        import ray

        while self._signals and self._code is None:
            self._actor.signal.remote(*self._signals.popleft())
        if self._code is None:
            if ray.wait([self._call], timeout=0)[0]:
                self._hear()
            elif (waited := deadlines.now() - self._asked) > ANSWER_SECONDS:
                self._lose(f"its node has not answered for {waited:.0f} s")
        return self._code

    def signal(self, number: int, whole_group: bool = False) -> None:
        """Send a signal to the rank, or also to every process that it started."""
        self._signals.append((number, whole_group))

    def close(self) -> None:
        """Wait until it is gone and everything that it wrote is read."""
        import ray

        until = time.monotonic() + ANSWER_SECONDS
        while self.exit_code is None and time.monotonic() < until:
            time.sleep(PATIENCE / 10)
        if self._code is None:
            self._lose("it does not end")
        ray.kill(self._actor, no_restart=True)

    def _ask(self) -> None:
        self._asked = deadlines.now()
        self._call = self._actor.hear.remote(PATIENCE)

    def _hear(self) -> None:
        import ray
        from ray import exceptions

        try:
            heard: Heard = ray.get(self._call, timeout=ANSWER_SECONDS)
        except exceptions.RayError as error:
            self._lose(in_one_line(error))
            return
        now = time.monotonic()
        if self.number == 0:
            # As under `--gpus`, it speaks for all.
            for lines, stream in ((heard.said, sys.stdout), (heard.errors, sys.stderr)):
                for line in lines:
                    with suppress(OSError):
                        print(line, file=stream, flush=True)
        else:
            self.tail += heard.errors
            self.waiting += [(now, line) for line in heard.errors]
        if heard.report is not None:
            # Every node has a clock of its own, which says how long ago the rank failed.
            self.report = Report(**{**vars(heard.report), "seconds": now - heard.report_age})
        self._code = heard.exit_code
        if self._code is None:
            self._ask()

    def _lose(self, reason: str) -> None:
        self.lost, self._code = reason, 1


def launch_in_ray(count: int, command: Sequence[str]) -> None:
    """Run a command as so many ranks in the cluster at RAY_ADDRESS. Raises as `launch` does; RecipeError without a place."""
    with _connected(), _actors(count) as actors:
        found: list[Place] = _answers([actor.place.remote() for actor in actors])
        # Ranks of one node stand side by side, because neighbours exchange most.
        first_of = {place.node: index for index, place in reversed([*enumerate(found)])}
        order = sorted(range(count), key=lambda index: (first_of[found[index].node], index))
        actors, places = [actors[index] for index in order], [found[index] for index in order]
        [port] = _answers([actors[0].reserve.remote()])
        environments = _environments(places, port)
        _answers(
            [
                actor.start.remote(number, command, environment, os.getcwd())
                for number, (actor, environment) in enumerate(zip(actors, environments, strict=True))
            ]
        )
        nodes = len({place.node for place in places})
        log.info("ranks: %d on %d node%s of the Ray cluster", count, nodes, "" if nodes == 1 else "s")
        ranks = [RayRank(number, actor) for number, actor in enumerate(actors)]
        attend(iter(ranks), lambda: _reports(ranks))


@contextmanager
def _connected() -> Iterator[None]:
    """A connection to the cluster while the context lasts."""
    import ray

    connect(cluster_address() or "auto")
    try:
        yield
    finally:
        ray.shutdown()


@contextmanager
def _actors(count: int) -> Iterator[list[Any]]:
    """One actor for each rank, each on a place of its own. Raises RecipeError if the cluster has no room for them."""
    import ray
    from ray.util import placement_group, remove_placement_group
    from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

    resource = "GPU" if ray.cluster_resources().get("GPU") else "CPU"
    group = placement_group([{"CPU": 1, resource: 1}] * count, strategy="PACK")
    try:
        _await_room(group, count, resource)
        options = {"num_cpus": 1, "num_gpus": int(resource == "GPU"), "max_restarts": 0}
        learner = ray.remote(Learner)
        places = [PlacementGroupSchedulingStrategy(group, placement_group_bundle_index=index) for index in range(count)]
        yield [learner.options(**options, scheduling_strategy=place).remote() for place in places]
    finally:
        # The actors end with their places.
        remove_placement_group(group)


def _await_room(group: Any, count: int, resource: str) -> None:
    """Wait until the cluster has room; the log says for what, and since when."""
    import ray

    began = time.monotonic()
    while not group.wait(TELL_SECONDS):
        waited = time.monotonic() - began
        has, free = ray.cluster_resources().get(resource, 0), ray.available_resources().get(resource, 0)
        state = f"{count} {resource}s for the learners; the Ray cluster has {has:g}, of which {free:g} are free"
        if waited >= PLACE_SECONDS:
            raise RecipeError(
                f"rlvr.resources.learners={count}: waited {waited:.0f} s for {state}\n"
                f"Lower learners, add nodes to the cluster at {VARIABLE}, or end what uses them (ray status)."
            )
        log.info("waiting for %s (%.0f s, limit: %.0f s)", state, waited, PLACE_SECONDS)


def _environments(places: Sequence[Place], port: int) -> list[dict[str, str]]:
    """The environment of each rank: that of this command, as srun hands it on, and what torch reads."""
    import ray

    own = {
        name: value
        for name, value in os.environ.items()
        if name not in OF_ONE_NODE and (name.startswith(TOKEN) or not name.startswith("RAY_"))
    }
    own |= {"WORLD_SIZE": str(len(places)), "MASTER_ADDR": places[0].address, "MASTER_PORT": str(port)}
    own[VARIABLE] = ray.get_runtime_context().gcs_address
    on_node, before = Counter(place.node for place in places), Counter[str]()
    environments = []
    for place in places:
        # Ray shows an actor its own GPU alone, which is number 0 to it.
        local = {
            "CUDA_VISIBLE_DEVICES": place.gpus,
            "LOCAL_RANK": "0" if place.gpus else str(before[place.node]),
            "LOCAL_WORLD_SIZE": str(on_node[place.node]),
            "OMP_NUM_THREADS": own.get("OMP_NUM_THREADS", str(max(1, place.cores // on_node[place.node]))),
        }
        before[place.node] += 1
        environments.append({**own, **local})
    return environments


def _answers(calls: Sequence[Any]) -> list[Any]:
    """What the actors answer. Raises what went wrong with one of them."""
    import ray
    from ray import exceptions

    try:
        return list(ray.get(list(calls), timeout=START_SECONDS))
    except exceptions.GetTimeoutError:
        raise EngineError(f"not all ranks could be started within {START_SECONDS:.0f} s; see `ray list actors`") from None
    except exceptions.RayTaskError as error:
        if isinstance(error.cause, TuluError):
            raise error.cause from None
        raise EngineError(f"a rank could not be started ({type(error.cause).__name__}: {error.cause})") from None
    except exceptions.RayError as error:
        raise EngineError(
            f"a rank could not be started ({in_one_line(error)})\nEvery node of the cluster needs this version of tulu."
        ) from None


def _reports(ranks: Sequence[RayRank]) -> list[Report]:
    """What the ranks said, the first failure first."""
    return sorted((rank.report for rank in ranks if rank.report), key=lambda report: (report.echo, report.seconds))

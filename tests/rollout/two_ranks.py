"""Two learner processes over one fleet that runs ahead: `python -m tests.rollout.two_ranks FOLDER`.

Both are forks of this process, which imports everything once. Each writes what it trained on.
"""

import json
import os
import sys
import time
import traceback
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import torch

from tests.rollout.fakes import ByPosition, FakeFleet, Numbers, heavy_tailed, make_problems, rlvr_stage
from tulu.commands.launch import reserved_port
from tulu.model.parallel import Parallel
from tulu.rollout import team
from tulu.rollout.draws import Queue
from tulu.rollout.engine import Part, Places
from tulu.rollout.journal import StreamLog
from tulu.rollout.sampler import RolloutGrader
from tulu.rollout.status import Status
from tulu.rollout.stream import Stream
from tulu.types import Completion, Group, Problem, SamplingParams, Verdict

STEPS, WORLD = 6, 2


class Asked:
    """A reward model that likes all, and remembers how many completions this process scored."""

    def __init__(self) -> None:
        self.count = 0

    def grade(self, items: list[tuple[str, Problem]]) -> list[Verdict]:
        self.count += len(items)
        return [Verdict(0.0) for _ in items]


def train(folder: Path, rank: int) -> None:
    """One of the learner's processes."""
    stage = rlvr_stage(prompts=4, samples=2, max_staleness=1, reward_model="rm")
    parallel = Parallel(stage)
    fleet = FakeFleet(heavy_tailed, token_seconds=1e-4) if parallel.is_main else None
    judge = Asked()
    grader: Any = RolloutGrader(ByPosition(2), Numbers(), make_problems(40), stage, judge)  # type: ignore[arg-type]
    trained: list[Any] = []
    places: list[Any] = []
    queue = Queue.of(stage, STEPS, 40)
    stream = Stream(fleet, grader, team.Team(parallel), queue, StreamLog(folder / "stream"), Status())
    gathered = []

    def weights() -> Any:
        """Weights that every process must ask for, as sharded ones."""
        gathered.append(parallel.total(1.0))
        yield "w", torch.zeros(1)

    with closing(stream):
        stream.sync(weights(), 0)
        stream.resume({})
        for step in range(STEPS):
            share = stream.take()
            trained.append([[one.problem.id, [list(part.tokens) for part in one.group.completions]] for one in share.trained])
            places.append([share.places, share.count])
            assert share.sampled, "there is a spare row"
            stream.sync(weights(), step + 1)
    (folder / f"rank-{rank}.json").write_text(
        json.dumps({"trained": trained, "places": places, "scored": judge.count, "synced": gathered})
    )


class OneByOne:
    """Takes a while for each completion, whose tokens are its problem's prompt, its place and the process that sampled it."""

    def __init__(self, rank: int, exact: bool) -> None:
        self.rank, self.exact, self.version = rank, exact, 0

    def generate(self, problems: Sequence[Problem], n: int, params: SamplingParams) -> list[Group]:
        parts = self.sample(problems, n, params, [range(n)] * len(problems))
        completions = [completion for part in parts for _, _, completion in part]
        return [Group(one.prompt, completions[place * n : place * n + n], one.id) for place, one in enumerate(problems)]

    def sample(self, problems: Sequence[Problem], n: int, params: SamplingParams, wanted: Places) -> Iterator[Part]:
        for index, places in enumerate(wanted):
            for place in places:
                time.sleep(0.02)
                tokens = [*problems[index].prompt, place, self.rank]
                yield [(index, place, Completion(tokens, [True] * 3, [-1.0] * 3))]

    def sync(self, weights: Any, version: int) -> None: ...

    def close(self) -> None: ...


def sample(folder: Path, rank: int) -> None:
    """What both engines hand over, part by part, of whole groups, of single places and of fewer problems than processes."""
    parallel = Parallel(rlvr_stage())
    team.TOGETHER_SECONDS = 0.03
    asked = [(3, [[0, 1], [1], [0, 1]]), (1, [[1]])]
    parts: list[Any] = []
    for exact in (False, True):
        all_of_us = team.Team(parallel)
        engine = team.SharedEngine(OneByOne(rank, exact), all_of_us)
        if not parallel.is_main:
            all_of_us.serve()
            continue
        for count, wanted in asked:
            found = engine.sample(make_problems(count), 2, SamplingParams(8), wanted)
            parts.append([[(index, place, *one.tokens) for index, place, one in part] for part in found])
        all_of_us.release([None] * WORLD)
    (folder / f"parts-{rank}.json").write_text(json.dumps(parts))


def main(folder: Path) -> None:
    """Fork the processes and wait for them."""
    torch.set_num_threads(1)
    # They are told so often to go on waiting that it happens here too.
    team.KEEP_ALIVE = 0.0
    with reserved_port() as port:
        sys.exit(fork(folder, port))


def fork(folder: Path, port: int) -> int:
    """Fork the processes, which meet at that port; returns 1 if one failed."""
    children = []
    for rank in range(WORLD):
        if not (pid := os.fork()):
            code = 1
            try:
                named = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": WORLD, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
                os.environ |= {name: str(value) for name, value in named.items()}
                train(folder, rank)
                sample(folder, rank)
                code = 0
            except BaseException:  # noqa: BLE001 - it is printed, and the exit status tells
                traceback.print_exc()
            os._exit(code)
        children.append(pid)
    failed = [pid for pid in children if os.waitpid(pid, 0)[1]]
    return 1 if failed else 0


if __name__ == "__main__":
    main(Path(sys.argv[1]))

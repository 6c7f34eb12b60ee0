"""Two learner processes over one fleet that runs ahead: `python -m tests.rollout.two_ranks FOLDER`.

Both are forks of this process, which imports everything once. Each writes what it trained on.
"""

import json
import os
import socket
import sys
import traceback
from contextlib import closing
from pathlib import Path
from typing import Any

import torch

from tests.rollout.fakes import ByPosition, FakeFleet, Numbers, heavy_tailed, make_problems, rlvr_stage
from tulu.model.parallel import Parallel
from tulu.rollout import team
from tulu.rollout.draws import Queue
from tulu.rollout.journal import StreamLog
from tulu.rollout.sampler import RolloutGrader
from tulu.rollout.status import Status
from tulu.rollout.stream import Stream
from tulu.types import Problem, Verdict

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
            assert share.sampled, "there is a spare row"
            stream.sync(weights(), step + 1)
    (folder / f"rank-{rank}.json").write_text(json.dumps({"trained": trained, "scored": judge.count, "synced": gathered}))


def main(folder: Path) -> None:
    """Fork the processes and wait for them."""
    torch.set_num_threads(1)
    # They are told so often to go on waiting that it happens here too.
    team.KEEP_ALIVE = 0.0
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    children = []
    for rank in range(WORLD):
        if not (pid := os.fork()):
            code = 1
            try:
                named = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": WORLD, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
                os.environ |= {name: str(value) for name, value in named.items()}
                train(folder, rank)
                code = 0
            except BaseException:  # noqa: BLE001 - it is printed, and the exit status tells
                traceback.print_exc()
            os._exit(code)
        children.append(pid)
    failed = [pid for pid in children if os.waitpid(pid, 0)[1]]
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main(Path(sys.argv[1]))

"""Runs of the real loop over fake engines, killed with SIGKILL again and again.

    python -m tests.rollout.killed FOLDER KILLS MAX_STALENESS SEED

This process imports everything once and forks a child for every session, so that a hundred sessions take seconds. A child
kills itself before or after one of its next writes to the disk, or its parent kills it after a random time.
"""

import json
import os
import random
import signal
import sys
import time
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch

from tests.rollout.fakes import ByPosition, FakeFleet, Numbers, heavy_tailed, make_problems
from tulu.config.job import Job
from tulu.config.schema import Recipe, Rlvr
from tulu.model.parallel import Parallel
from tulu.rollout.draws import Queue
from tulu.rollout.fleet import Request
from tulu.rollout.journal import StreamLog
from tulu.rollout.sampler import RolloutGrader, StepRollouts
from tulu.rollout.status import Status
from tulu.rollout.stream import Stream
from tulu.rollout.team import Team
from tulu.stages import rlvr
from tulu.train import measured as measured_module
from tulu.train.run import Run

STEPS = 24
SECTION: dict[str, Any] = {
    "data": "rows.jsonl",
    "prompts": 3,
    "samples": 2,
    "batch": 6,
    "max_prompt": 8,
    "max_tokens": 64,
    "max_length": 72,
    "steps": STEPS,
    "learning_rate": 1e-3,
    "reward_scale": 1.0,
    "precision": "fp32",
    "save_every": 3,
    "keep_checkpoints": 2,
}
PROBLEMS = 17
"""Some problems are drawn several times."""


class NoEnergy:
    """In place of the meter, which takes seconds to start."""

    def __init__(self, before: dict[str, Any], _keep: Any) -> None:
        self.before = before

    def read(self) -> dict[str, Any]:
        return self.before

    stop = read


class Noted(StreamLog):
    """A journal beside which a file tells what it has said to be on the disk.

    The journal's own files would tell more: while a checkpoint is written there are two, and of a line that a session was
    killed at, one of them may hold all and the other nothing. Such a line has not counted yet.
    """

    def append(self, rows: Sequence[Mapping[str, Any]]) -> None:
        super().append(rows)
        with (self.folder.parent / "said").open("a") as said:
            said.writelines(f"{row['position']}:{row['sample']}\n" for row in rows if row["kind"] == "finished")


class Watched(FakeFleet):
    """A fleet that refuses to sample again what the journal has said to be on the disk."""

    def __init__(self, said: Path) -> None:
        super().__init__(heavy_tailed, token_seconds=1e-5)
        self.finished = set(said.read_text().split()) if said.exists() else set()

    def submit(self, requests: Sequence[Request]) -> None:
        again = [request.key for request in requests if request.key in self.finished]
        assert not again, f"sampled again: {again}"
        super().submit(requests)


def session(folder: Path, max_staleness: int) -> None:
    """Run from wherever the folder stands to the end."""
    recipe = Recipe.model_validate({"name": "tiny", "model": "model", "rlvr": {**SECTION, "max_staleness": max_staleness}})
    job = Job(recipe, "rlvr", folder / "run", "model", False)
    stage: Rlvr = job.section
    run = Run(job, Parallel(stage))
    module = torch.nn.Linear(2, 2, bias=False)
    with torch.no_grad():
        module.weight.copy_(torch.tensor([[1.0, 2.0], [3.0, 4.0]]))
    run.parallel.prepare(module, torch.optim.SGD(module.parameters()))
    run.pin(data="fake")
    state = run.resume()

    def update(_learner: Any, _models: Any, rollouts: StepRollouts, *_: Any) -> dict[str, float]:
        """Weights that depend on everything that they were trained on, and on its order."""
        sums = [sum(part.tokens) for rollout in rollouts.trained for part in rollout.group.completions]
        with torch.no_grad():
            for place, number in enumerate(sums):
                module.weight.mul_(0.75).add_(0.01 * (number % 97) + place / 1024)
        return {"loss": float(module.weight.sum())}

    rlvr.update = update  # type: ignore[assignment]
    fleet = Watched(run.path / "said")
    grader = RolloutGrader(ByPosition(stage.samples), Numbers(), make_problems(PROBLEMS), stage)  # type: ignore[arg-type]
    queue = Queue.of(stage, STEPS, PROBLEMS, run.step)
    policy: Any = SimpleNamespace(weights=lambda: module.state_dict().items(), tokenizer=Numbers())
    learner: Any = SimpleNamespace(parallel=run.parallel, meter=SimpleNamespace(read=lambda *_: {"mfu": None}))
    with Status(run.path / "status.json") as status:
        stream = Stream(fleet, grader, Team(run.parallel), queue, Noted(run.path / "stream"), status)
        stream.sync(policy.weights(), run.step)
        stream.resume(state)
        rlvr.train(learner, rlvr.Models(policy, None, None), stream, stage, run, STEPS)
        stream.close()
    torch.save(module.state_dict(), folder / "weights.pt")


def die_at_a_write(number: int, before: bool) -> None:
    """Let this process kill itself at its write of that number, counted from 1."""
    synced = os.fsync
    count = [0]

    def fsync(fd: Any) -> None:
        count[0] += 1
        if count[0] == number and before:
            os.kill(os.getpid(), signal.SIGKILL)
        synced(fd)
        if count[0] == number:
            os.kill(os.getpid(), signal.SIGKILL)

    os.fsync = fsync


def child(folder: Path, max_staleness: int, write: int | None, before: bool) -> int:
    """Start a session in a child, which may die at a write; returns its process id."""
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        sys.stdout = sys.stderr = open(folder / "output", "a")  # noqa: SIM115
        if write is not None:
            die_at_a_write(write, before)
        session(folder, max_staleness)
        code = 0
    except BaseException:  # noqa: BLE001 - it is printed, and the exit status tells
        traceback.print_exc()
    sys.stdout.flush()
    os._exit(code)


def run_killed(folder: Path, kills: int, max_staleness: int, chance: random.Random) -> int:
    """One run to its end, of which at most so many sessions are killed; returns how many were."""
    folder.mkdir(parents=True)
    for died in range(kills + 1):
        last = died == kills
        by_write = chance.random() < 0.7
        write = chance.randint(1, chance.choice((8, 40))) if by_write and not last else None
        pid = child(folder, max_staleness, write, chance.random() < 0.5)
        if not last and not by_write:
            time.sleep(chance.uniform(0.0, 0.2))
            os.kill(pid, signal.SIGKILL)
        _, status = os.waitpid(pid, 0)
        if not os.WIFSIGNALED(status):
            if os.waitstatus_to_exitcode(status):
                raise SystemExit((folder / "output").read_text())
            break
    return died


def main(folder: Path, kills: int, max_staleness: int, seed: int) -> None:
    """An unbroken run, and runs that are killed so often together; prints the folders of these, and how often each was."""
    torch.set_num_threads(1)
    measured_module.EnergyMeter = NoEnergy  # type: ignore[misc,assignment]
    chance = random.Random(seed)
    run_killed(folder / "whole", 0, max_staleness, chance)
    died: dict[str, int] = {}
    while sum(died.values()) < kills:
        name = f"broken-{len(died)}"
        died[name] = run_killed(folder / name, kills - sum(died.values()), max_staleness, chance)
    print(json.dumps(died))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]))

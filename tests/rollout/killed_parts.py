"""Runs of the real command over real processes, one of which is killed with SIGKILL again and again, drawn at random.

    python -m tests.rollout.killed_parts FOLDER KILLS SEED

`tulu rlvr --gpus 2`: two learner ranks that train a tiny model, two engines and two graders under a Ray of their own. Nothing is
faked but what the engines sample from, which is no model (fake_replica.py). This process imports everything once and forks the
commands, and those their ranks, so that a session takes seconds. It prints what was killed, and in which run.
"""

import ctypes
import json
import logging
import os
import random
import resource
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from subprocess import DEVNULL, PIPE
from types import SimpleNamespace
from typing import Any

import psutil
import ray
import torch
import yaml
from safetensors.torch import load_file, save_file

import tulu.reward_models.training
import tulu.stages.pipeline  # noqa: F401 - what a stage imports, imported once
from tests.conftest import make_tiny_model
from tests.rollout import fake_replica
from tests.rollout.killed import NoEnergy
from tulu.commands import launch
from tulu.rollout import engines, fleets
from tulu.rollout.ray_fleet import RayFleet
from tulu.train import run as run_module

STEPS, PROMPTS, SAMPLES = 12, 2, 2
KINDS = ("command", "learner", "engine", "grader")
MOST = 8
"""Kills of one run."""
PATIENCE = 300.0
"""Seconds within which a run must come a step further, or a process that was killed must be back."""
RESTLESS = """
def score(completion, ground_truth):
    # What a random model writes is never a right sum; that its text has an even length is as good as a coin.
    return float(len(completion) % 2 == 0)
"""
SECTION: dict[str, Any] = {
    "data": {"name": "sums:train", "count": 50},
    "prompts": PROMPTS,
    "samples": SAMPLES,
    "batch": PROMPTS * SAMPLES,
    "micro_batch": 4,
    "max_prompt": 64,
    "max_tokens": 16,
    "max_length": 80,
    "steps": STEPS,
    "learning_rate": 1e-3,
    "precision": "fp32",
    "engine": "vllm",
    "resources": {"engines": 2, "graders": 2},
    "refill": False,
    "drop_equal": False,
    "save_every": 3,
    "keep_checkpoints": 2,
}
_PR_SET_CHILD_SUBREAPER = 36
"""prctl: processes whose parent dies become children of this one (linux/prctl.h), so that none is left behind unseen."""


class Forked:
    """As much of a subprocess.Popen as the launcher uses: a rank, forked from the launcher, which has imported everything."""

    def __init__(
        self, command: Sequence[str], env: Mapping[str, str], stdin: Any, stdout: Any, stderr: Any, process_group: int
    ) -> None:
        pipes = [os.pipe() if wanted == PIPE else None for wanted in (stdout, stderr)]
        self.returncode: int | None = None
        self.pid = forked(partial(self._become, command, env, pipes, stdout))
        for pipe in pipes:
            if pipe is not None:
                os.close(pipe[1])
        self.stdout, self.stderr = (None if pipe is None else os.fdopen(pipe[0], "rb") for pipe in pipes)

    def _become(self, command: Sequence[str], env: Mapping[str, str], pipes: Sequence[Any], stdout: Any) -> None:
        os.setpgid(0, 0)
        for pipe, descriptor in zip(pipes, (1, 2), strict=True):
            if pipe is not None:
                os.dup2(pipe[1], descriptor)
        if stdout == DEVNULL:
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        os.environ.clear()
        os.environ.update(env)
        tulu_main(command[list(command).index("tulu") + 1 :])

    def poll(self) -> int | None:
        """The exit code, negative for a signal; None while it runs."""
        if self.returncode is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            self.returncode = os.waitstatus_to_exitcode(status) if pid else None
        return self.returncode

    def wait(self) -> int:
        """The exit code once it has ended."""
        while (code := self.poll()) is None:
            time.sleep(0.01)
        return code

    def send_signal(self, number: int) -> None:
        """Send it a signal."""
        os.kill(self.pid, number)


def forked(become: Callable[[], object]) -> int:
    """Fork a child that does this and ends; returns its process id."""
    sys.stdout.flush()
    sys.stderr.flush()
    if pid := os.fork():
        return pid
    code = 1
    try:
        become()
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:  # noqa: BLE001 - it is printed, and the exit status tells
        traceback.print_exc()
    with suppress(Exception):
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(code)


def tulu_main(arguments: Sequence[str]) -> None:
    """What `python -m tulu ARGUMENTS` does."""
    from tulu.cli import main

    sys.argv = ["tulu", *arguments]
    main()


def command(recipe: Path, runs: Path, output: Path) -> None:
    """What a session does: the command, with fake engines in its ranks."""
    os.setsid()
    said = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for descriptor in (1, 2):
        os.dup2(said, descriptor)
    launch.subprocess = SimpleNamespace(Popen=Forked, PIPE=PIPE, DEVNULL=DEVNULL)  # type: ignore[assignment]
    run_module.EnergyMeter = NoEnergy  # type: ignore[misc,assignment]
    engines.has_vllm = lambda: True
    fleets.RayFleet = partial(RayFleet, replica=fake_replica.UniformReplica)  # type: ignore[misc,assignment]
    tulu_main(["rlvr", str(recipe), "--gpus", "2", "--runs", str(runs)])


class Session:
    """One call of the command, with everything that it starts."""

    def __init__(self, recipe: Path, runs: Path) -> None:
        self.output = runs / "output"
        self.pid = forked(partial(command, recipe, runs, self.output))
        self.process = psutil.Process(self.pid)
        self.code: int | None = None

    def poll(self) -> int | None:
        """The exit code, negative for a signal; None while it runs."""
        if self.code is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            self.code = os.waitstatus_to_exitcode(status) if pid else None
        return self.code

    def wait(self, seconds: float) -> int:
        """The exit code once it has ended."""
        until = time.monotonic() + seconds
        while (code := self.poll()) is None:
            self.expect(until, "the command does not end")
            time.sleep(0.02)
        return code

    def expect(self, until: float, trouble: str) -> None:
        """Fail with what the command said, where it is later than that."""
        if time.monotonic() > until:
            raise SystemExit(f"{trouble}: {self.output.read_text()[-4000:]}")

    def victim(self, kind: str, chance: random.Random) -> psutil.Process | None:
        """A process of that kind, once there is one; None where the command ends by itself before."""
        until = time.monotonic() + PATIENCE
        while self.poll() is None:
            self.expect(until, f"there is no {kind}")
            if found := self.victims(kind):
                return chance.choice(found)
            time.sleep(0.02)
        return None

    def victims(self, kind: str) -> list[psutil.Process]:
        """The processes of a kind."""
        found = []
        with suppress(psutil.Error):
            if kind == "command":
                return [self.process]
            if kind == "learner":
                return self.process.children()
            for process in self.process.children(recursive=True):
                with suppress(psutil.Error):
                    words = " ".join(process.cmdline())
                    if words.startswith("ray::") and {"engine": "Replica", "grader": "GradingNode"}[kind] in words:
                        found.append(process)
        return found


def trained_steps(runs: Path) -> int:
    path = runs / "killed" / "rlvr" / "journal"
    return path.read_text().count('"trained"') if path.exists() else 0


def until_further(session: Session, runs: Path) -> None:
    """Wait until the run has come a step further, or has ended."""
    before, until = trained_steps(runs), time.monotonic() + PATIENCE
    while trained_steps(runs) <= before and session.poll() is None:
        session.expect(until, "it comes no step further")
        time.sleep(0.02)


def run_killed(recipe: Path, runs: Path, kills: int, chance: random.Random) -> Counter[str]:
    """One run to its end, of which at most so many processes are killed; returns which."""
    runs.mkdir()
    killed = Counter[str]()
    session = Session(recipe, runs)
    while killed.total() < kills:
        kind = chance.choice(KINDS)
        if chance.random() < 0.7:
            until_further(session, runs)
        # Else it may be killed while the next session starts, or reads what the one before has left.
        time.sleep(chance.uniform(0.0, 0.6))
        victim = session.victim(kind, chance)
        if victim is None:
            break
        with suppress(psutil.NoSuchProcess):
            victim.kill()
            killed[kind] += 1
            print(f"{runs.name}: {kind} killed after {trained_steps(runs)} steps", file=sys.stderr, flush=True)
        if kind in ("command", "learner"):
            if session.wait(PATIENCE) == 0:
                # It was killed behind its last word.
                break
            session = Session(recipe, runs)
    if code := session.wait(PATIENCE):
        raise SystemExit(f"exit code {code}: {session.output.read_text()[-4000:]}")
    return killed


def make_recipes(folder: Path) -> dict[int, Path]:
    """The recipe of every max_staleness, over a model that finds all tokens nearly alike."""
    model = make_tiny_model(folder / "model")
    weights = load_file(model / "model.safetensors")
    with torch.random.fork_rng():
        torch.manual_seed(1)
        torch.nn.init.normal_(weights["lm_head.weight"], std=0.01)
    save_file(weights, model / "model.safetensors", metadata={"format": "pt"})
    (folder / "restless.py").write_text(RESTLESS)
    recipes = {}
    for most in (0, 1):
        section = {**SECTION, "max_staleness": most, "verifier": f"{folder}/restless.py:score"}
        recipes[most] = folder / f"staleness-{most}.yaml"
        recipes[most].write_text(yaml.safe_dump({"name": "killed", "model": str(model), "template": "tulu", "rlvr": section}))
    return recipes


def main(folder: Path, kills: int, seed: int) -> None:
    """An unbroken run, and runs of which so many processes are killed together; prints which, by the folders of the runs."""
    torch.set_num_threads(1)
    logging.getLogger("ray").setLevel(logging.ERROR)
    ray.cloudpickle.register_pickle_by_value(fake_replica)
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1)
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "RAY_ADDRESS"):
        os.environ.pop(name, None)
    chance, recipes = random.Random(seed), make_recipes(folder)
    died: dict[str, Counter[str]] = {}
    began = time.monotonic()
    try:
        run_killed(recipes[0], folder / "whole", 0, chance)
        while (left := kills - sum(one.total() for one in died.values())) > 0:
            most = len(died) % 2
            # Either kind of run gets its share, however few there are.
            share = left if died else (left + 1) // 2
            name = f"staleness-{most}-{len(died)}"
            died[name] = run_killed(recipes[most], folder / name, min(share, MOST), chance)
    finally:
        end_all()
    used = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
    processor = sum(one.ru_utime + one.ru_stime for one in used)
    print(json.dumps({"died": died, "seconds": time.monotonic() - began, "processor_seconds": processor}))


def end_all() -> None:
    """End every process below this one, and take note of each, so that its processor time is known."""
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            process.kill()
    with suppress(ChildProcessError):
        while True:
            os.waitpid(-1, 0)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))

"""Measures the stream of rollouts beside what `tulu plan` predicts of it, and what it gains by running ahead of the learner.

Run it as `python -m benchmarks.stream`; it takes about eleven minutes, nearly all of them asleep, and needs no GPU.
The journal lies in a temporary folder; TMPDIR=/dev/shm keeps a slow disk out of what is measured.

The loop is the real one, journal and graders included. Engines and learner take as long as OLMo 2 1B would on H100s by the model
of `tulu plan`, divided by `--faster`. Lengths have a heavy tail. Beside it runs the plainest loop on the same engines: sample all
prompts of a step, wait for the last answer, grade, train on all groups, bring the weights; as TRL's GRPOTrainer does, which
replaces no group that teaches nothing. Writes benchmarks/results/stream.json.
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from benchmarks.sleeping_fleet import Clock, SleepingFleet
from benchmarks.stream_case import PROBLEMS, WEIGHTS, Case, Grading, on_h100s, streaming
from tulu.config.simulation import Loop, Outcome, simulate
from tulu.files import write_atomic
from tulu.rollout.draws import Draw
from tulu.rollout.fleet import Request
from tulu.rollout.problem_order import ProblemOrder
from tulu.rollout.records import staleness
from tulu.rollout.sampler import StepRollouts
from tulu.rollout.stream import Stream
from tulu.train.manifest import environment
from tulu.types import SamplingParams

WITHIN = 0.15
"""How far a predicted step may be from the measured one."""


@dataclass(frozen=True)
class Measured(Outcome):
    """What a run showed."""

    trained_length: float
    """Mean tokens of a completion that was trained, over the whole run."""
    sampled_length: float
    """The same of those that the engines ended for groups that teach something, less what still waits at the end."""


def measure(case: Case, stream: Stream, clock: Clock) -> Measured:
    """Train all steps; the figures are those of the steps between the first ones and the last."""
    assert stream.pump is not None
    fleet, grading = stream.pump.fleet, stream.pump.grader.grader
    assert isinstance(grading, Grading)
    assert isinstance(fleet, SleepingFleet)
    stream.resume({})
    marks, waited, lags, found = list[tuple[float, float, float]](), list[float](), list[float](), list[StepRollouts]()
    for step in range(stream.queue.total):
        now = clock.now()
        marks.append((now, sum(engine.busy_seconds for engine in fleet.states()), grading.graders.busy(now)))
        rollouts = stream.take()
        waited.append(clock.now() - marks[-1][0])
        clock.sleep(case.train_seconds([one.group.n_tokens for one in rollouts.trained]))
        lags.append(staleness(rollouts, step + 1, case.max_staleness)["staleness"])
        found.append(rollouts)
        stream.sync(iter(WEIGHTS), step + 1)
    first, last = case.skip, case.skip + case.steps
    seconds = marks[last][0] - marks[first][0]
    tokens = [sum(trained_lengths([step], case)) for step in found[first:last]]
    return Measured(
        step_seconds=seconds / case.steps,
        learner_idle=sum(waited[first:last]) / seconds,
        engines_idle=1 - (marks[last][1] - marks[first][1]) / seconds / case.engines,
        graders_idle=1 - (marks[last][2] - marks[first][2]) / seconds / case.graders,
        staleness=sum(lag * count for lag, count in zip(lags[first:last], tokens, strict=True)) / sum(tokens),
        groups=mean([len(step.trained) for step in found[first:last]]),
        tokens=mean(tokens),
        trained_length=mean(trained_lengths(found, case)),
        sampled_length=mean(ended_lengths(fleet, stream.queue.records.values(), case)),
    )


def trained_lengths(found: Sequence[StepRollouts], case: Case) -> list[float]:
    """Lengths of the completions that were trained on, of groups that teach something."""
    rollouts = [one for step in found for one in step.trained if case.group(int(one.problem.id[1:]))[1]]
    return [float(len(completion.tokens)) for one in rollouts for completion in one.group.completions]


def ended_lengths(fleet: SleepingFleet, waiting: Iterable[Draw], case: Case) -> list[float]:
    """Lengths of the completions that the engines ended for such groups, as the engines know them, less those of what waits."""
    untrained = {f"p{draw.place}" for draw in waiting}
    ended = [one for engine in fleet.engines for one in engine.done]
    return [float(length) for name, length in ended if name not in untrained and case.group(int(name[1:]))[1]]


def mean(values: Sequence[float]) -> float:
    """The mean."""
    return sum(values) / len(values)


def predict(case: Case) -> Outcome:
    """What the simulation of `tulu plan` says."""
    return simulate(loop_of(case), case.skip, case.steps)


def loop_of(case: Case) -> Loop:
    """The same loop for the simulation."""
    order = ProblemOrder(PROBLEMS, case.stage.seed)
    return Loop(
        prompts=case.prompts,
        max_staleness=case.max_staleness,
        sampled=lambda position: case.group(order.at(position)),
        engines=case.engines,
        room=case.room,
        speed=case.speed,
        train_seconds=case.train_seconds,
        prompt=case.prompt,
        sync_seconds=case.sync_seconds,
        grading_seconds=case.grading_seconds,
        graders=case.graders,
        verdict_seconds=case.verdict_seconds,
    )


def in_turn(case: Case, clock: Clock, train: Callable[[Sequence[float]], float] | None = None) -> dict[str, float]:
    """The plainest loop on the same engines: all prompts of a step, then all grades, then the learner. `train` is what another
    learner takes for groups of so many tokens."""
    fleet, order = case.fleet(clock), ProblemOrder(PROBLEMS, case.stage.seed)
    fleet.sync(iter(WEIGHTS), 0)
    params, began, taught = SamplingParams(case.lengths.longest), clock.now(), 0
    for step in range(case.steps):
        positions = range(step * case.prompts, (step + 1) * case.prompts)
        groups = {position: case.group(order.at(position)) for position in positions}
        wanted = [(position, sample) for position in positions for sample in range(case.samples)]
        prompt = [1] * case.prompt
        fleet.submit([Request(f"{at}:{sample}", f"p{order.at(at)}", prompt, params, sample) for at, sample in wanted])
        missing = len(wanted)
        while missing:
            missing -= len(fleet.collect(1.0))
        clock.sleep(case.grading_seconds)
        taught += sum(teaches for _, teaches in groups.values())
        clock.sleep((train or case.train_seconds)([case.prompt + sum(lengths) for lengths, _ in groups.values()]))
        fleet.sync(iter(WEIGHTS), step + 1)
    seconds = clock.now() - began
    return {"step_seconds": seconds / case.steps, "groups": taught / case.steps, "groups_per_second": taught / seconds}


def compare(case: Case, stalenesses: Sequence[int]) -> dict[str, Any]:
    """Every staleness measured beside its prediction, and the groups that are trained in a second beside the plainest loop."""
    clock = Clock()
    plain = in_turn(case, clock)
    print(f"in turn: {plain['step_seconds']:.2f} s a step, {plain['groups_per_second']:.2f} groups with a signal a second")
    rows = []
    for most in stalenesses:
        one = replace(case, max_staleness=most)
        with tempfile.TemporaryDirectory() as folder, streaming(one, clock, Path(folder)) as stream:
            measured = measure(one, stream, clock)
        predicted = predict(one)
        speed = measured.groups / measured.step_seconds
        # The plainest loop trains on all groups.
        over_all = speed / (case.prompts / plain["step_seconds"])
        rows.append(
            {
                "max_staleness": most,
                "measured": asdict(measured),
                "predicted": asdict(predicted),
                "predicted_over_measured": predicted.step_seconds / measured.step_seconds,
                "groups_per_second": speed,
                "over_in_turn": speed / plain["groups_per_second"],
                "over_all_groups_in_turn": over_all,
            }
        )
        print(
            f"staleness {most}: measured {told(measured)}; trained {measured.trained_length:.1f} tokens, sampled "
            f"{measured.sampled_length:.1f}\n             predicted {told(predicted)}; groups of in turn: "
            f"{over_all:.2f} times, {speed / plain['groups_per_second']:.2f} of those with a signal"
        )
    shape = {name: value for name, value in asdict(case).items() if name not in ("speed", "lengths", "max_staleness")}
    return {"unit": "seconds", "case": {**shape, "lengths": asdict(case.lengths)}, "in_turn": plain, "stream": rows}


def told(found: Outcome) -> str:
    """The figures in a line."""
    return (
        f"{found.step_seconds:.2f} s a step, learner idle {found.learner_idle:.1%}, engines idle {found.engines_idle:.1%}, "
        f"staleness {found.staleness:.2f}"
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, write and print; 1 if a step took another time than predicted."""
    parser = argparse.ArgumentParser(description="The stream of rollouts, measured and predicted.")
    parser.add_argument("--faster", type=float, default=1.0, help="how many times as fast as the GPU")
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--staleness", type=int, nargs="+", default=[0, 1, 4])
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "stream.json")
    options = parser.parse_args(arguments)
    report = {"faster": options.faster, **compare(on_h100s(options.faster, options.steps), options.staleness)}
    options.out.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(options.out, json.dumps({**report, "environment": environment()}, indent=2) + "\n")
    off = [row["max_staleness"] for row in report["stream"] if abs(row["predicted_over_measured"] - 1) > WITHIN]
    if off:
        print(f"predicted more than {WITHIN:.0%} off at staleness {', '.join(map(str, off))}", file=sys.stderr)
    return 1 if off else 0


if __name__ == "__main__":
    sys.exit(main())

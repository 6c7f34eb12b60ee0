"""One start of a stage in a process of its own, timed from within: python -m benchmarks.scale_child STAGE OUT RUNS RECIPE ..."""

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypedDict

import psutil

BATCH = 128
"""Rows of the steps that are drawn and packed and not trained: Tülu 3's."""


class Start(TypedDict):
    """Seconds of a start, milliseconds of a step, and MiB of the process."""

    to_first_step: float
    """From the start of the process to the first optimizer step."""
    imports: float
    rows: float
    """Until the rows are tokenised, or found in the cache, and checked."""
    model: float
    """Loading, and the measured check of packing."""
    rest: float
    """Between the end of imports and the first step, without the model."""
    step_outside_ms: float
    """Drawing and packing a step, mean of many."""
    step_outside_cpu_ms: float
    """The same in CPU time, which other programs on the machine do not lengthen."""
    memory_mib: float
    """What the process has beside the model at the end of a step; pages of the cache, which processes share, are left out."""
    mapped_mib: float
    """Pages of files, of which the kernel takes back what it needs."""


def main(stage: str, target: str, runs: str, recipe: str, *overrides: str) -> None:
    began = psutil.Process().create_time()
    from tulu.config.job import make_job
    from tulu.config.load import load_recipe
    from tulu.config.stages import STAGES, resolve
    from tulu.train import fit, open

    runner = resolve(STAGES[stage].runner)
    imported = time.time()
    base = anonymous()
    spent: dict[str, float] = {}
    open.StageRun.load_groups = clocked(open.StageRun.load_groups, "rows", spent)  # type: ignore[method-assign]
    open.StageRun.load = clocked(open.StageRun.load, "model", spent)  # type: ignore[method-assign]
    first: list[float] = []
    outside: list[float] = []
    outside_cpu: list[float] = []
    memory: list[tuple[float, float]] = []
    plain_step, plain_draw = fit.step, fit.draw

    def step(learner: Any, batches: Any, *rest: Any, **options: Any) -> Any:
        first.append(time.time())
        metrics = plain_step(learner, batches, *rest, **options)
        memory.append((anonymous() - base, mapped()))
        return metrics

    def draw(rows: int, section: Any, index: int) -> list[int]:
        if not outside:
            measure_steps(sys._getframe(1).f_locals, outside)
        return plain_draw(rows, section, index)

    def measure_steps(loop: Any, into: list[float]) -> None:
        groups, pack, prepare = loop["groups"], loop["pack"], loop["prepare"]
        section = loop["stage"].model_copy(update={"steps": 10**6, "batch": BATCH})
        for index in range(20):
            start, cpu = time.perf_counter(), time.thread_time()
            drawn = [groups[place] for place in plain_draw(len(groups), section, index)]
            pack(prepare(drawn, section) if prepare else drawn, section)
            into.append(time.perf_counter() - start)
            outside_cpu.append(time.thread_time() - cpu)

    fit.step, fit.draw = step, draw  # type: ignore[assignment]
    loaded = load_recipe(recipe, overrides, 1, stage)
    runner(make_job(loaded, stage, Path(runs)))
    rest = first[0] - imported - spent["model"] - sum(outside)
    start: Start = {
        "to_first_step": round(first[0] - began - sum(outside), 2),
        "imports": round(imported - began, 2),
        "rows": round(spent["rows"], 2),
        "model": round(spent["model"], 2),
        "rest": round(rest, 2),
        "step_outside_ms": round(1000 * sum(outside) / len(outside), 2),
        "step_outside_cpu_ms": round(1000 * sum(outside_cpu) / len(outside_cpu), 2),
        "memory_mib": round(max(anonymous for anonymous, _ in memory)),
        "mapped_mib": round(max(pages for _, pages in memory)),
    }
    Path(target).write_text(json.dumps(start))


def clocked(method: Callable[..., Any], name: str, spent: dict[str, float]) -> Callable[..., Any]:
    """The method, which adds the seconds that it takes."""

    def timed(*arguments: Any, **options: Any) -> Any:
        began = time.time()
        try:
            return method(*arguments, **options)
        finally:
            spent[name] = spent.get(name, 0.0) + time.time() - began

    return timed


def anonymous() -> float:
    """MiB of memory that is this process's own."""
    return _status("RssAnon")


def mapped() -> float:
    """MiB of pages of files."""
    return _status("RssFile")


def _status(name: str) -> float:
    lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(lines[name].split()[0]) / 1024


if __name__ == "__main__":
    main(*sys.argv[1:])

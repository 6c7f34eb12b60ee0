"""Completions to verdicts: cheap verifiers at once, costly ones in processes that can be killed, waiting ones in threads."""

import asyncio
import json
import os
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from typing import Any, Self

from tulu.errors import DataError
from tulu.grading.pool import Task, Workers
from tulu.types import Group, Problem, Verdict
from tulu.verifiers.contract import UNDECIDED, Case, Mode, judged
from tulu.verifiers.registry import find
from tulu.verifiers.reward_model import NAME as REWARD_MODEL

_CACHED = 65_536
_WAITING_THREADS = 32
"""Requests to a judge that are under way at once."""


class Grader:
    """Scores completions; safe to share between threads, and usable from asyncio, Ray tasks and Ray actors.

    `deadline` is in seconds per verdict, `memory_mb` is the address space of a process. Nothing is started before a
    completion needs it. A problem with several verifiers scores the sum of their scores, each times its entry in the
    row's `weights` (1 where it has none), and is masked where any of them could not judge. A row that says
    `grade_thinking: true` has its thinking graded like the rest.
    """

    def __init__(
        self, workers: int | None = None, deadline: float = 6.0, *, mode: Mode = "strict", memory_mb: int = 2048
    ) -> None:
        self.mode = mode
        self._workers = Workers(workers or os.cpu_count() or 1, deadline, memory_mb)
        self._deadline = deadline
        self._threads: ThreadPoolExecutor | None = None
        self._lock = threading.RLock()
        self._cache: OrderedDict[tuple[str, str, str], Future[Verdict]] = OrderedDict()
        self.seconds: deque[float] = deque(maxlen=200_000)
        """Latencies of the latest verdicts; a cached one takes none."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Ends all processes; verdicts still awaited become status error."""
        self._workers.close()
        if self._threads is not None:
            self._threads.shutdown(wait=False, cancel_futures=True)

    def pids(self) -> list[int]:
        """Process ids of the running workers."""
        return self._workers.pids()

    def grade(self, items: Sequence[tuple[str, Problem]]) -> list[Verdict]:
        """One verdict per (completion, problem), in order; RecipeError for an unknown verifier, never another exception."""
        parts = [_split_by_verifier(completion, problem) for completion, problem in items]
        started = self._start([part for group in parts for part in group])
        verdicts = iter([each if isinstance(each, Verdict) else each.result() for each in started])
        return [_combine([next(verdicts) for _ in group], problem) for group, (_, problem) in zip(parts, items, strict=True)]

    async def grade_async(self, items: Sequence[tuple[str, Problem]]) -> list[Verdict]:
        """As `grade`, without holding up the event loop."""
        return await asyncio.to_thread(self.grade, items)

    def _start(self, parts: Sequence[tuple[str, Case]]) -> list["Future[Verdict] | Verdict"]:
        tasks: list[Task] = []
        started = [self._one(name, case, tasks) for name, case in parts]
        if tasks:
            self._workers.submit(tasks)
        return started

    def _one(self, name: str, case: Case, tasks: list[Task]) -> "Future[Verdict] | Verdict":
        verifier = find(name)
        here = verifier.grade(self.mode) if verifier.place == "here" else verifier.quick if self.mode == "strict" else None
        if here is not None:
            began = time.perf_counter()
            verdict = judged(here, case)
            if verdict is not UNDECIDED:
                self.seconds.append(time.perf_counter() - began)
                return verdict
        if verifier.key is None or self.mode != "strict":
            return self._submit(name, case, tasks)
        key = (name, verifier.key(case), _gold_key(case.gold))
        with self._lock:
            known = self._cache.get(key)
            if known is None:
                known = self._cache[key] = self._submit(name, case, tasks)
                known.add_done_callback(lambda future: self._forget_faults(key, future))
            if key in self._cache:
                self._cache.move_to_end(key)
            if len(self._cache) > _CACHED:
                self._cache.popitem(last=False)
        return known

    def _forget_faults(self, key: tuple[str, str, str], future: "Future[Verdict]") -> None:
        """A fault of ours is no property of the answer, so it is not kept."""
        if future.cancelled() or future.exception() is not None or future.result().status != "ok":
            with self._lock:
                self._cache.pop(key, None)

    def _submit(self, name: str, case: Case, tasks: list[Task]) -> "Future[Verdict]":
        if find(name).place == "thread":
            if self._threads is None:
                self._threads = ThreadPoolExecutor(_WAITING_THREADS, "judging")
            return self._threads.submit(self._timed, name, case)
        task = Task(name, self.mode, case)
        task.future.add_done_callback(lambda _: self.seconds.append(task.seconds))
        tasks.append(task)
        return task.future

    def _timed(self, name: str, case: Case) -> Verdict:
        began = time.perf_counter()
        verdict = judged(find(name).grade(self.mode), case)
        self.seconds.append(time.perf_counter() - began)
        return verdict


def split_off_reward_model(problem: Problem) -> tuple[Problem | None, float | None]:
    """What verifiers judge of a problem (None where they judge nothing), and the weight of the reward model's score in it.

    The weight is None where the row's verifiers do not name `reward_model`, else its entry in the row's `weights`, or 1.
    """
    names = [name.lower() for name in problem.verifiers]
    if REWARD_MODEL not in names:
        return problem, None
    place = names.index(REWARD_MODEL)
    weights = [1.0] * len(names)
    if len(problem.row.get("weights") or ()) == len(names):
        weights = [float(weight) for weight in problem.row["weights"]]
    weight = weights.pop(place)
    if len(names) == 1:
        return None, weight
    kept = [index for index in range(len(names)) if index != place]
    truths = [problem.ground_truth[index] for index in kept]
    row = {**problem.row, "weights": weights}
    verifiers = tuple(problem.verifiers[index] for index in kept)
    return replace(problem, verifiers=verifiers, ground_truth=truths[0] if len(truths) == 1 else truths, row=row), weight


def expose_thinking(completion: str, problem: Problem) -> str:
    """What is judged of a completion: thinking is text like any other where the row says `grade_thinking`."""
    return completion.replace("<think>", "").replace("</think>", "") if problem.row.get("grade_thinking") else completion


def _gold_key(gold: Any) -> str:
    return gold if isinstance(gold, str) else json.dumps(gold, sort_keys=True, default=repr)


def pair_with_problem(problem: Problem, texts: Sequence[str], group: Group) -> list[tuple[str, Problem]]:
    """What `grade` takes of a problem's completions: each text with the problem that knows its length in tokens."""
    return [
        (text, problem.with_tokens(len(completion.tokens))) for text, completion in zip(texts, group.completions, strict=True)
    ]


def _split_by_verifier(completion: str, problem: Problem) -> list[tuple[str, Case]]:
    """(verifier, case) of every verifier of a problem; DataError where their number and that of the truths differ."""
    names = problem.verifiers
    truths = [problem.ground_truth] if len(names) == 1 else problem.ground_truth
    if not isinstance(truths, list | tuple) or len(truths) != len(names):
        raise DataError(f"{problem.id}: {len(names)} verifiers need a list of {len(names)} ground truths")
    completion = expose_thinking(completion, problem)
    users = [message["content"] for message in problem.messages if message["role"] == "user"]
    prompt = users[-1] if users else ""
    return [(name, Case(completion, truth, prompt, problem.row)) for name, truth in zip(names, truths, strict=True)]


def _combine(verdicts: list[Verdict], problem: Problem) -> Verdict:
    weights = problem.row.get("weights") or [1.0] * len(verdicts)
    if len(verdicts) == 1 and (len(weights) > 1 or weights[0] == 1):
        # The weights of several verifiers mean nothing to the one that was chosen in their place.
        return verdicts[0]
    detail = "; ".join(f"{name}: {verdict.detail}" for name, verdict in zip(problem.verifiers, verdicts, strict=True))
    for verdict in verdicts:
        if verdict.score is None:
            return Verdict(None, verdict.status, detail)
    return Verdict(sum(weight * (verdict.score or 0.0) for weight, verdict in zip(weights, verdicts, strict=True)), detail=detail)

"""From completions to verdicts: cheap verifiers run at once, costly ones in killable processes, waiting ones in threads."""

import asyncio
import json
import os
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from typing import Any, Protocol, Self

from tulu.children import MEMORY_MB
from tulu.errors import DataError
from tulu.grading.pool import Workers
from tulu.grading.task import Task
from tulu.types import Group, Problem, Verdict
from tulu.verifiers.contract import UNDECIDED, Case, Mode, Settings, grade_safely
from tulu.verifiers.judge import REQUESTS
from tulu.verifiers.registry import find
from tulu.verifiers.reward_model import NAME as REWARD_MODEL
from tulu.verifiers.text import without_thinking_tags

_CACHED = 65_536
"""Most verdicts that are cached."""


class Pool(Protocol):
    """Processes that grade what is costly: those of this machine (tulu/grading/pool.py), or of a cluster (rollout/graders.py)."""

    def submit(self, tasks: list[Task]) -> None:
        """Queue tasks. Each of their futures gets a verdict, whatever happens."""

    def pids(self) -> list[int]:
        """The process ids of what runs."""
        ...

    def close(self) -> None:
        """End every process. Verdicts that are still awaited get the status error."""


class Grader:
    """Scores completions. It may be shared between threads and used from asyncio, Ray tasks and Ray actors.

    `deadline` is in seconds per verdict, and `memory_mb` limits the address space of a process. No process or thread is
    started before a completion needs it. The score of a problem with several verifiers is the sum of their scores, each
    multiplied by its entry in the row's `weights` (1 if there is none); if one of them reaches no score, neither does the
    problem. Thinking is graded only where the row says `grade_thinking: true`.
    """

    def __init__(
        self,
        workers: int | None = None,
        deadline: float = 6.0,
        *,
        mode: Mode = "strict",
        memory_mb: int = MEMORY_MB,
        settings: Settings | None = None,
        pool: Pool | None = None,
    ) -> None:
        """`pool` takes the place of the grading processes of this machine, and with it `workers`, `deadline` and `memory_mb`."""
        self.mode = mode
        self.settings = settings or Settings()
        """What verifiers take where a row names nothing else."""
        self._workers: Pool = pool or Workers(workers or os.cpu_count() or 1, deadline, memory_mb)
        self._threads: ThreadPoolExecutor | None = None
        self._lock = threading.RLock()
        self._contents: dict[str, str] = {}
        """What the files of verifiers held when they were first used here. They may be edited while this grades."""
        self._cache: OrderedDict[tuple[str, str, str], Future[Verdict]] = OrderedDict()
        self.seconds: deque[float] = deque(maxlen=200_000)
        """Latencies of the latest verdicts, in seconds. A verdict from the cache adds none."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()

    def close(self) -> None:
        """End all processes. Verdicts that are still awaited get the status error."""
        self._workers.close()
        if self._threads is not None:
            self._threads.shutdown(wait=False, cancel_futures=True)

    def pids(self) -> list[int]:
        """The process ids of the running workers."""
        return self._workers.pids()

    def grade(self, items: Sequence[tuple[str, Problem]]) -> list[Verdict]:
        """Return one verdict per (completion, problem), in order.

        Raises RecipeError for an unknown verifier and DataError for a problem with a wrong number of ground truths. A failing
        verifier never raises; its verdict has a status other than ok.
        """
        cases = [self._split_by_verifier(completion, problem) for completion, problem in items]
        tasks: list[Task] = []
        started = [self._start(name, case, tasks) for group in cases for name, case in group]
        if tasks:
            self._workers.submit(tasks)
        verdicts = iter([entry if isinstance(entry, Verdict) else entry.result() for entry in started])
        return [_combine([next(verdicts) for _ in group], problem) for group, (_, problem) in zip(cases, items, strict=True)]

    async def grade_async(self, items: Sequence[tuple[str, Problem]]) -> list[Verdict]:
        """Grade as `grade` does, without blocking the event loop."""
        return await asyncio.to_thread(self.grade, items)

    def _split_by_verifier(self, completion: str, problem: Problem) -> list[tuple[str, Case]]:
        """(verifier, case) for each verifier of a problem. Raises DataError if the number of ground truths is another."""
        names = problem.verifiers
        truths = [problem.ground_truth] if len(names) == 1 else problem.ground_truth
        if not isinstance(truths, list | tuple) or len(truths) != len(names):
            raise DataError(f"{problem.id}: {len(names)} verifiers need a list of {len(names)} ground truths")
        completion = expose_thinking(completion, problem)
        users = [message["content"] for message in problem.messages if message["role"] == "user"]
        prompt = users[-1] if users else ""
        return [
            (name, Case(completion, truth, prompt, problem.row, settings=self.settings, content=self._content_of(name)))
            for name, truth in zip(names, truths, strict=True)
        ]

    def _content_of(self, name: str) -> str:
        if name not in self._contents:
            content = find(name).content
            self._contents[name] = content() if content is not None else ""
        return self._contents[name]

    def _start(self, name: str, case: Case, tasks: list[Task]) -> "Future[Verdict] | Verdict":
        """The verdict if it is cheap, else a future of it. What a process must do is added to `tasks`."""
        verifier = find(name)
        cheap = verifier.grade(self.mode) if verifier.place == "here" else verifier.quick if self.mode == "strict" else None
        if cheap is not None:
            began = time.perf_counter()
            verdict = grade_safely(cheap, case, traced=self.mode == "strict")
            if verdict is not UNDECIDED:
                self.seconds.append(time.perf_counter() - began)
                return verdict
        if verifier.key is None or self.mode != "strict":
            return self._submit(name, case, tasks)
        key = (name, verifier.key(case), _gold_key(case.gold))
        with self._lock:
            future = self._cache.get(key)
            if future is None:
                future = self._cache[key] = self._submit(name, case, tasks)
                future.add_done_callback(lambda done: self._forget_faults(key, done))
            if key in self._cache:
                self._cache.move_to_end(key)
            if len(self._cache) > _CACHED:
                self._cache.popitem(last=False)
        return future

    def _forget_faults(self, key: tuple[str, str, str], future: "Future[Verdict]") -> None:
        """Remove a verdict without score from the cache: it says nothing about the answer."""
        if future.cancelled() or future.exception() is not None or future.result().status != "ok":
            with self._lock:
                self._cache.pop(key, None)

    def _submit(self, name: str, case: Case, tasks: list[Task]) -> "Future[Verdict]":
        if find(name).place == "thread":
            if self._threads is None:
                self._threads = ThreadPoolExecutor(REQUESTS, "judging")
            return self._threads.submit(self._grade_in_thread, name, case)
        task = Task(name, self.mode, case)
        task.future.add_done_callback(lambda _: self.seconds.append(task.seconds))
        tasks.append(task)
        return task.future

    def _grade_in_thread(self, name: str, case: Case) -> Verdict:
        began = time.perf_counter()
        # An answer costs a judge, so that a second one is not spent on finding out whose fault a failure is.
        verdict = grade_safely(find(name).grade(self.mode), case, traced=False)
        self.seconds.append(time.perf_counter() - began)
        return verdict


def split_off_reward_model(problem: Problem) -> tuple[Problem | None, float | None]:
    """Split a problem into what its verifiers grade and the weight of its reward model.

    The first is the problem without the name `reward_model` among its verifiers, or None if no other verifier remains. The
    second is the entry of `reward_model` in the row's `weights` (1 if there is none), or None if the row does not name it.
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
    others = [index for index in range(len(names)) if index != place]
    truths = [problem.ground_truth[index] for index in others]
    row = {**problem.row, "weights": weights}
    verifiers = tuple(problem.verifiers[index] for index in others)
    return replace(problem, verifiers=verifiers, ground_truth=truths[0] if len(truths) == 1 else truths, row=row), weight


def expose_thinking(completion: str, problem: Problem) -> str:
    """Remove the tags around the thinking if the row says `grade_thinking`, so that it is graded like any other text."""
    return without_thinking_tags(completion) if problem.row.get("grade_thinking") else completion


class Scores(Protocol):
    """What scores completions, such as a Grader or a reward model."""

    def grade(self, items: Sequence[tuple[str, Problem]]) -> list[Verdict]:
        """One verdict per (completion, problem), in order."""


def pair_with_problems(problems: Sequence[Problem], groups: Sequence[Group], tokenizer: Any) -> list[tuple[str, Problem]]:
    """Every completion as `grade` takes it: its text without special tokens, and its problem with its length in tokens.

    Of an episode the last turn is graded: what tools said is no answer of the policy.
    """
    return [
        (str(tokenizer.decode(list(completion.last_turn), skip_special_tokens=True)), problem.with_tokens(len(completion.tokens)))
        for problem, group in zip(problems, groups, strict=True)
        for completion in group.completions
    ]


def grade_by_verifiers(grader: Scores, items: Sequence[tuple[str, Problem]]) -> list[Verdict | None]:
    """Grade each (completion, problem) by its verifiers except reward_model; None where the problem names no other."""
    parts = [(text, split_off_reward_model(problem)[0]) for text, problem in items]
    verdicts = iter(grader.grade([(text, part) for text, part in parts if part is not None]))
    return [None if part is None else next(verdicts) for _, part in parts]


def _combine(verdicts: list[Verdict], problem: Problem) -> Verdict:
    """The weighted sum of the verdicts of a problem's verifiers, or a verdict without score if one of them has none."""
    weights = problem.row.get("weights") or [1.0] * len(verdicts)
    if len(verdicts) == 1 and (len(weights) > 1 or weights[0] == 1):
        # Several weights beside one verifier belong to the verifiers that the recipe's own verifier replaced.
        return verdicts[0]
    parts = tuple(zip(problem.verifiers, verdicts, strict=True))
    detail = "; ".join(f"{name}: {verdict.detail}" for name, verdict in parts)
    for verdict in verdicts:
        if verdict.score is None:
            return Verdict(None, verdict.status, detail, parts)
    score = sum(weight * (verdict.score or 0.0) for weight, verdict in zip(weights, verdicts, strict=True))
    return Verdict(score, detail=detail, parts=parts)


def _gold_key(gold: Any) -> str:
    return gold if isinstance(gold, str) else json.dumps(gold, sort_keys=True, default=repr)

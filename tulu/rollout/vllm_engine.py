"""Rollouts through vLLM in a process of its own, because vLLM replaces parts of transformers in the process it runs in."""

import logging
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tulu import deadlines
from tulu.config.cluster import cluster_address, connect, start_alone
from tulu.errors import EngineError
from tulu.rollout.engine import STALE, EngineSpec, Part, Places, ProgressCallback, check_numbers, check_request
from tulu.rollout.fleet_calls import EngineLost, death, failure
from tulu.rollout.sync import Parcel, TensorInfo, pack_weights
from tulu.rollout.vllm_worker import VllmWorker
from tulu.types import Completion, Group, Problem, SamplingParams

log = logging.getLogger("tulu")

NAME = "engine"
"""The name of the only engine of a process."""
START_SECONDS = 600.0
"""Most seconds that vLLM may take to load a model. On a GPU this includes the recording of its graphs."""
STORE_BYTES = 1 << 30
"""Smallest object store, in bytes, of a Ray that is started here. The weights of one sync must fit into it."""


MOST_FAILURES = 3
"""A worker that failed so often in a row, without a completion between, is not started again."""
LOOK_SECONDS = 1.0
"""How long the worker is waited for at a time."""


@dataclass(frozen=True)
class Sent:
    """The weights of a version. They lie in Ray's object store until the next, for a worker that is started again."""

    references: list[Any]
    infos: dict[str, TensorInfo]
    version: int


class VllmEngine:
    """Samples in a Ray actor, which verifies the weights it is sent before it loads them.

    A worker that dies, fails or hangs is started again, gets the weights that were sent last, and samples what had not ended. No
    other process of a learner takes part in that: the weights are kept here, because sharded ones could only be gathered by all.
    """

    exact = False
    """vLLM batches requests as they come, and log-probs differ by roundings."""

    def __init__(self, spec: EngineSpec, progress: ProgressCallback | None = None) -> None:
        folder = Path(spec.folder)
        self.folder = str(folder.resolve()) if folder.is_dir() else spec.folder
        self.spec = spec
        self.progress = progress
        self.version = STALE
        self.worker: Any = None
        self.sent: Sent | None = None
        """The weights of the last sync; None before the first, and where the worker refused them."""
        self.restarts = 0
        self._failures = 0
        """In a row."""
        self._cause, self._failed_at = "", 0.0
        """What the worker failed of last, and when it failed first."""
        try:
            self._start()
        except EngineLost as lost:
            raise EngineError(f"the vLLM engine of {spec.folder} does not start: {lost.reason}") from None
        self.version = spec.version

    def sync(self, weights: Iterable[tuple[str, Tensor]], version: int) -> None:
        """Send a whole set of weights. A worker that has died is started again first."""
        self.deliver(pack_weights(weights, self.spec.dtype), version)

    def deliver(self, parcels: Iterable[Parcel], version: int) -> None:
        """Hand packed weights to the worker. If it refuses them, this raises EngineError and the engine is stale."""
        # The weights before are let go first, so that there are never two sets of them.
        self.version, self.sent = STALE, None
        self.sent = self._put(parcels, version)
        self._prepare()

    def generate(self, problems: Sequence[Problem], n: int, params: SamplingParams) -> list[Group]:
        """Sample n completions of each problem and return one Group per problem, in order.

        The seed of a completion is made from params.seed, the problem's id and the completion's index within its group.
        """
        completions: dict[tuple[int, int], Completion] = {}
        for part in self.sample(problems, n, params, [range(n)] * len(problems)):
            completions |= {(index, sample): completion for index, sample, completion in part}
        return [
            Group(problem.prompt, [completions[index, sample] for sample in range(n)], problem.id)
            for index, problem in enumerate(problems)
        ]

    def sample(self, problems: Sequence[Problem], n: int, params: SamplingParams, wanted: Places) -> Iterator[Part]:
        """The same completions, as they end. What had not ended when a worker was lost is sampled again, and nothing else."""
        check_request(self.version, problems, n, params, self.spec.max_length)
        # The worker needs ids and prompts only; the rest of a problem stays here.
        prompts = [Problem(problem.id, (), list(problem.prompt), None, ()) for problem in problems]
        left = dict.fromkeys((index, sample) for index, places in enumerate(wanted) for sample in places)
        total = len(left)
        while left:
            try:
                for part in self._parts(prompts, list(left), params):
                    for index, sample, completion in part:
                        check_numbers(problems[index].id, completion)
                        del left[index, sample]
                        self._failures, self._cause = 0, ""
                    if part and self.progress is not None:
                        self.progress(total - len(left), total)
                    yield part
                if left:
                    raise EngineLost(NAME, "it ended early", cause="it ended early")
            except EngineLost as lost:
                self._note(lost, f", and {len(left)} of {total} completions are sampled again")
                self._prepare()

    def close(self) -> None:
        """End the process of the worker."""
        self.version, self.sent = STALE, None
        self._kill()

    # -- the worker, which may be lost in each of these ---------------------------------------------------------

    def _start(self) -> None:
        import ray

        start_ray(self.folder, self.spec.dtype)
        if torch.cuda.is_available():
            # What torch keeps for later on this GPU is what a worker needs that starts again beside a learner.
            torch.cuda.empty_cache()
        # Ray does not restart a worker that failed, because the new one would hold the weights of the folder.
        actor = ray.remote(VllmWorker).options(num_cpus=0, max_restarts=0, runtime_env={"env_vars": worker_environment()})
        self.worker = actor.remote(replace(self.spec, folder=self.folder))
        try:
            self._get(self.worker.start.remote(), min(START_SECONDS, self.spec.timeout))
        except (EngineError, EngineLost):
            self._kill()
            raise

    def _put(self, parcels: Iterable[Parcel], version: int) -> Sent:
        """Lay weights into Ray's object store. Raises EngineError if they do not fit."""
        import ray

        infos: dict[str, TensorInfo] = {}
        references = []
        try:
            for parcel in parcels:
                infos |= parcel.infos
                references.append(ray.put(parcel.data))
        except ray.exceptions.RayError as error:
            self._kill()
            raise EngineError(f"the new weights do not reach the vLLM engine of {self.spec.folder} ({error})") from None
        return Sent(references, infos, version)

    def _load(self, sent: Sent) -> None:
        # References in a list reach the worker as they are; Ray would replace each one that is an argument by its contents.
        self._get(self.worker.load.remote(sent.references, sent.infos, sent.version))

    def _parts(self, prompts: Sequence[Problem], wanted: Sequence[tuple[int, int]], params: SamplingParams) -> Iterator[Part]:
        """What the worker hands over; an empty part every LOOK_SECONDS while it hands over nothing."""
        import ray

        stream = self.worker.generate.remote(prompts, wanted, params, self.version)
        heard = deadlines.now()
        while True:
            ready, _ = ray.wait([stream], timeout=LOOK_SECONDS)
            if ready:
                reference = next(stream, None)
                if reference is None:
                    return
                heard = deadlines.now()
                yield self._get(reference)
            elif deadlines.now() - heard >= self.spec.timeout:
                raise _hangs(self.spec.timeout)
            else:
                yield []

    def _get(self, reference: Any, timeout: float | None = None) -> Any:
        """Wait for a call and return its result. Raises EngineError if the worker refused it, EngineLost if it is lost."""
        import ray
        from ray import exceptions

        limit = self.spec.timeout if timeout is None else timeout
        try:
            return ray.get(reference, timeout=limit)
        except exceptions.GetTimeoutError:
            raise _hangs(limit) from None
        except exceptions.RayTaskError as error:
            if isinstance(error.cause, EngineError):
                self.version = STALE
                raise type(error.cause)(str(error.cause)) from None
            raise EngineLost(NAME, failure(error.cause), cause=failure(error.cause)) from None
        except exceptions.RayError as error:
            raise EngineLost(NAME, death(error)) from None

    def _kill(self) -> None:
        worker, self.worker = self.worker, None
        if worker is not None:
            import ray

            ray.kill(worker)

    # -- coming back -------------------------------------------------------------------------------------------

    def _prepare(self) -> None:
        """Let a worker hold the weights that were sent last, one that is started for it if need be.

        Raises EngineError if the worker refuses the weights, or fails too often.
        """
        while True:
            try:
                if self.worker is None:
                    self._restart()
                if self.sent is not None:
                    self._load(self.sent)
                break
            except EngineLost as lost:
                self._note(lost, "")
            except EngineError:
                self.sent = None
                raise
        self.version = self.spec.version if self.sent is None else self.sent.version
        if self._failed_at:
            log.info("the vLLM engine is back after %.1f s, with weights %d", deadlines.now() - self._failed_at, self.version)
            self._failed_at = 0.0

    def _restart(self) -> None:
        self.restarts += 1
        try:
            self._start()
        except EngineError as error:
            # What it loaded once it may load again, when the memory is free that the one before has left.
            raise EngineLost(NAME, str(error), cause=str(error)) from None

    def _note(self, lost: EngineLost, then: str) -> None:
        """Note that the worker is lost. Raises EngineError if it fails for ever, so that another would be lost too."""
        self._kill()
        self.version = STALE
        self._failed_at = self._failed_at or deadlines.now()
        self._failures += 1
        for_ever = lost.repeats(self._cause)
        self._cause = lost.cause
        if not for_ever and self._failures <= MOST_FAILURES:
            log.warning("the vLLM engine failed: %s; it is started again%s", lost.reason, then)
            return
        times = f" ({self._failures} times in a row, and no completion ended between)" if self._failures > 1 else ""
        self._failures, self._cause, self._failed_at = 0, "", 0.0
        raise EngineError(f"the vLLM engine of {self.spec.folder} is gone: {lost.reason}{times}; run the same command to resume")


def _hangs(seconds: float) -> EngineLost:
    return EngineLost(NAME, f"it hangs: no answer for {seconds:.0f} s", hangs=True, cause="it hangs")


def start_ray(folder: str, dtype: torch.dtype) -> bool:
    """Connect to Ray: to this process's, to that at RAY_ADDRESS, or to a new one that is no larger than one engine needs.

    Returns whether this call connected. Raises RecipeError where RAY_ADDRESS names no cluster that answers, EngineError
    where a new one does not start.
    """
    import ray

    if ray.is_initialized():
        return False
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    checkpoint_bytes = sum(file.stat().st_size for file in Path(folder).glob("*.safetensors")) if Path(folder).is_dir() else 0
    # A checkpoint in bf16 doubles when it is sent in fp32. There is room for two syncs, because the old one is freed late.
    store_bytes = max(STORE_BYTES, 2 * checkpoint_bytes * (2 if dtype == torch.float32 else 1))
    if (address := cluster_address()) is not None:
        connect(address)
        return True
    start_alone(num_cpus=1, object_store_memory=store_bytes)
    return True


def worker_environment() -> dict[str, str]:
    """The environment of the worker: no further process, one thread unless OMP_NUM_THREADS says more, the learner's GPU."""
    settings = {
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
        "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1"),
        "VLLM_LOGGING_LEVEL": os.environ.get("VLLM_LOGGING_LEVEL", "WARNING"),
        "VLLM_NO_USAGE_STATS": "1",
        "TOKENIZERS_PARALLELISM": "false",
    }
    settings |= {name: os.environ[name] for name in ("HF_HUB_OFFLINE", "HF_HOME") if name in os.environ}
    if torch.cuda.is_available():
        visible = os.environ.get("CUDA_VISIBLE_DEVICES", "")
        device = torch.cuda.current_device()
        settings["CUDA_VISIBLE_DEVICES"] = visible.split(",")[device] if visible else str(device)
        # The actor requests no GPU from Ray, so that it can share the learner's. Without this, Ray would hide all GPUs from it.
        settings["RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO"] = "0"
    else:
        # On a CPU the model runs uncompiled. What vLLM still compiles costs half a minute and gains nothing.
        settings["TORCH_COMPILE_DISABLE"] = "1"
        # torch then asks for large pages: new weights, which vLLM lays into new memory, load several times faster.
        settings["THP_MEM_ALLOC_ENABLE"] = "1"
    return settings

"""Rollouts through vLLM in a process of its own, because vLLM replaces parts of transformers in the process it runs in."""

import os
import time
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

import torch
from torch import Tensor

from tulu.config.cluster import cluster_address, connect, start_alone
from tulu.errors import EngineError
from tulu.rollout.engine import STALE, EngineSpec, ProgressCallback, check_answer, check_request
from tulu.rollout.fleet_calls import death, failure
from tulu.rollout.sync import Parcel, TensorInfo, pack_weights
from tulu.rollout.vllm_worker import VllmWorker
from tulu.types import Completion, Group, Problem, SamplingParams

START_SECONDS = 600.0
"""Most seconds that vLLM may take to load a model. On a GPU this includes the recording of its graphs."""
STORE_BYTES = 1 << 30
"""Smallest object store, in bytes, of a Ray that is started here. The weights of one sync must fit into it."""


class VllmEngine:
    """Samples in a Ray actor, which verifies the weights it is sent before it loads them."""

    def __init__(self, spec: EngineSpec, progress: ProgressCallback | None = None) -> None:
        folder = Path(spec.folder)
        self.folder = str(folder.resolve()) if folder.is_dir() else spec.folder
        self.spec = spec
        self.progress = progress
        self.version = STALE
        self.worker: Any = None
        self._started = False
        """Whether it has loaded its model once."""
        self._start()
        self.version = spec.version

    def sync(self, weights: Iterable[tuple[str, Tensor]], version: int) -> None:
        """Send a whole set of weights. A worker that has died is started again first."""
        self.deliver(pack_weights(weights, self.spec.dtype), version)

    def deliver(self, parcels: Iterable[Parcel], version: int) -> None:
        """Hand packed weights to the worker. If it refuses them, this raises EngineError and the engine is stale."""
        import ray

        self.version = STALE
        if self.worker is None:
            self._start()
        infos: dict[str, TensorInfo] = {}
        references = []
        try:
            for parcel in parcels:
                infos |= parcel.infos
                references.append(ray.put(parcel.data))
        except ray.exceptions.RayError as error:
            self._fail(f"the weights do not reach it ({error})")
        # References in a list reach the worker as they are; Ray would replace each one that is an argument by its contents.
        self._get(self.worker.load.remote(references, infos, version))
        self.version = version

    def generate(self, problems: Sequence[Problem], n: int, params: SamplingParams) -> list[Group]:
        """Sample n completions of each problem and return one Group per problem, in order.

        The seed of a completion is made from params.seed, the problem's id and the completion's index within its group.
        """
        check_request(self.version, problems, n, params, self.spec.max_length)
        if not problems:
            return []
        import ray

        completions: dict[tuple[int, int], Completion] = {}
        total = len(problems) * n
        deadline = time.monotonic() + self.spec.timeout
        # The worker needs ids and prompts only; the rest of a problem stays here.
        prompts = [Problem(problem.id, (), list(problem.prompt), None, ()) for problem in problems]
        stream = self.worker.generate.remote(prompts, n, params, self.version)
        while len(completions) < total:
            ready, _ = ray.wait([stream], timeout=max(0.0, deadline - time.monotonic()))
            if not ready:
                self._fail(f"it did not finish sampling within {self.spec.timeout:.0f} s")
            try:
                reference = next(stream)
            except StopIteration:
                self._fail(f"it returned {len(completions)} completions of {total}")
            for index, sample, completion in self._get(reference, deadline - time.monotonic()):
                completions[index, sample] = completion
            if self.progress is not None:
                self.progress(len(completions), total)
        groups = [
            Group(problem.prompt, [completions[index, sample] for sample in range(n)], problem.id)
            for index, problem in enumerate(problems)
        ]
        return check_answer(groups)

    def close(self) -> None:
        """End the process of the worker."""
        self.version = STALE
        self._kill()

    def _start(self) -> None:
        import ray

        start_ray(self.folder, self.spec.dtype)
        # Ray does not restart a worker that failed, because the new one would hold the weights of the folder.
        actor = ray.remote(VllmWorker).options(num_cpus=0, max_restarts=0, runtime_env={"env_vars": worker_environment()})
        self.worker = actor.remote(replace(self.spec, folder=self.folder))
        try:
            self._get(self.worker.start.remote(), min(START_SECONDS, self.spec.timeout))
            self._started = True
        except EngineError:
            self._kill()
            raise

    def _get(self, reference: Any, timeout: float | None = None) -> Any:
        """Wait for a call to the worker and return its result. Raises EngineError if the worker failed, died or took too long."""
        import ray
        from ray import exceptions

        limit = self.spec.timeout if timeout is None else max(0.0, timeout)
        try:
            return ray.get(reference, timeout=limit)
        except exceptions.GetTimeoutError:
            self._fail(f"it did not answer within {limit:.0f} s")
        except exceptions.RayTaskError as error:
            if isinstance(error.cause, EngineError):
                self.version = STALE
                raise type(error.cause)(str(error.cause)) from None
            self._fail(failure(error.cause))
        except exceptions.RayError as error:
            self._fail(death(error))

    def _fail(self, reason: str) -> NoReturn:
        self.version = STALE
        self._kill()
        if not self._started:
            raise EngineError(f"the vLLM engine of {self.spec.folder} does not start: {reason}")
        raise EngineError(f"the vLLM engine of {self.spec.folder} is gone: {reason}; run the same command to resume")

    def _kill(self) -> None:
        worker, self.worker = self.worker, None
        if worker is not None:
            import ray

            ray.kill(worker)


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

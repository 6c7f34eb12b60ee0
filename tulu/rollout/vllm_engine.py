"""Rollouts through vLLM in a process of its own: its model code replaces parts of transformers' in the process it runs in."""

import logging
import os
import time
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

import torch
from torch import Tensor

from tulu.errors import EngineError
from tulu.rollout.engine import STALE, EngineSpec, Progress, check_request
from tulu.rollout.sync import Entry, Parcel, parcels
from tulu.rollout.vllm_worker import DTYPES, VllmWorker
from tulu.types import Completion, Group, Problem, SamplingParams

START_SECONDS = 600.0
"""Longest time that vLLM may take to load a model; a GPU records its graphs in it."""
STORE_BYTES = 1 << 30
"""Least size of the object store of a Ray that is started here; the weights of one sync must fit it."""


class VllmEngine:
    """Samples in a Ray actor, with weights that it verified before loading."""

    def __init__(self, spec: EngineSpec, progress: Progress | None = None) -> None:
        folder = Path(spec.folder)
        self.folder = str(folder.resolve()) if folder.is_dir() else spec.folder
        self.spec = spec
        self.progress = progress
        self.version = STALE
        self.worker: Any = None
        self._start()
        self.version = spec.version

    def sync(self, weights: Iterable[tuple[str, Tensor]], version: int) -> None:
        """Send a whole set of weights; a worker that has died is started again for it."""
        self.deliver(parcels(weights, DTYPES[self.spec.precision]), version)

    def deliver(self, packed: Iterable[Parcel], version: int) -> None:
        """Hand packed weights to the worker. Raises EngineError, and is stale, if it refuses them."""
        import ray

        self.version = STALE
        if self.worker is None:
            self._start()
        entries: dict[str, Entry] = {}
        references = []
        try:
            for parcel in packed:
                entries |= parcel.entries
                references.append(ray.put(parcel.data))
        except ray.exceptions.RayError as error:
            self._lost(f"the weights do not reach it ({error})")
        # In a list, so that the worker gets references, not a copy of each as its own argument.
        self._get(self.worker.load.remote(references, entries, version))
        self.version = version

    def generate(self, problems: Sequence[Problem], n: int, params: SamplingParams) -> list[Group]:
        """One Group of n completions per problem, in order; its seed comes from params.seed, the problem's id and its place."""
        check_request(self.version, problems, n, params, self.spec.max_length)
        if not problems:
            return []
        import ray

        found: dict[tuple[int, int], Completion] = {}
        total = len(problems) * n
        deadline = time.monotonic() + self.spec.timeout
        bare = [Problem(problem.id, (), list(problem.prompt), None, ()) for problem in problems]
        stream = self.worker.generate.remote(bare, n, params, self.version)
        while len(found) < total:
            ready, _ = ray.wait([stream], timeout=max(0.0, deadline - time.monotonic()))
            if not ready:
                self._lost(f"it did not finish sampling within {self.spec.timeout:.0f} s")
            try:
                reference = next(stream)
            except StopIteration:
                self._lost(f"it returned {len(found)} completions of {total}")
            for index, sample, completion in self._get(reference, deadline - time.monotonic()):
                found[index, sample] = completion
            if self.progress is not None:
                self.progress(len(found), total)
        return [
            Group(problem.prompt, [found[index, sample] for sample in range(n)], problem.id)
            for index, problem in enumerate(problems)
        ]

    def close(self) -> None:
        """End the worker's process."""
        self.version = STALE
        self._kill()

    def _start(self) -> None:
        import ray

        start_ray(self.folder, DTYPES[self.spec.precision])
        # Its failures leave it dead, for the learner to decide: a restart by Ray would hold the folder's weights.
        actor = ray.remote(VllmWorker).options(num_cpus=0, max_restarts=0, runtime_env={"env_vars": environment()})
        self.worker = actor.remote(replace(self.spec, folder=self.folder))
        try:
            self._get(self.worker.start.remote(), min(START_SECONDS, self.spec.timeout))
        except EngineError:
            self._kill()
            raise

    def _get(self, reference: Any, timeout: float | None = None) -> Any:
        """What a call to the worker returned. Raises EngineError if it failed, died or took too long."""
        import ray
        from ray import exceptions

        limit = self.spec.timeout if timeout is None else max(0.0, timeout)

        try:
            return ray.get(reference, timeout=limit)
        except exceptions.GetTimeoutError:
            self._lost(f"it did not answer within {limit:.0f} s")
        except exceptions.RayTaskError as error:
            if isinstance(error.cause, EngineError):
                self.version = STALE
                raise EngineError(str(error.cause)) from None
            self._lost(f"it failed ({type(error.cause).__name__}: {error.cause})")
        except exceptions.RayError as error:
            self._lost(f"its process died ({str(error).strip().splitlines()[0]})")

    def _lost(self, reason: str) -> NoReturn:
        self.version = STALE
        self._kill()
        raise EngineError(
            f"the vLLM engine of {self.spec.folder} is gone: {reason}\n"
            "What it sampled for this step is lost; the next sync starts it again, or run the same command to resume."
        )

    def _kill(self) -> None:
        worker, self.worker = self.worker, None
        if worker is not None:
            import ray

            ray.kill(worker)


def start_ray(folder: str, dtype: torch.dtype) -> None:
    """Join the Ray of this process, or start one that is no larger than one engine needs."""
    import ray

    if ray.is_initialized():
        return
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    stored = sum(file.stat().st_size for file in Path(folder).glob("*.safetensors")) if Path(folder).is_dir() else 0
    # Checkpoints hold two bytes a weight or four; two syncs' worth, because the old one is freed with a delay.
    room = max(STORE_BYTES, 2 * stored * (2 if dtype == torch.float32 else 1))
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    if os.environ.get("RAY_ADDRESS"):
        ray.init(**quiet)
        return
    ray.init(num_cpus=1, include_dashboard=False, object_store_memory=room, **quiet)


def environment() -> dict[str, str]:
    """The worker's environment: one process, one thread where cores are shared, the learner's own GPU."""
    settings = {
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
        "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1"),
        "VLLM_LOGGING_LEVEL": os.environ.get("VLLM_LOGGING_LEVEL", "WARNING"),
        "VLLM_NO_USAGE_STATS": "1",
        "TOKENIZERS_PARALLELISM": "false",
    }
    settings |= {name: os.environ[name] for name in ("HF_HUB_OFFLINE", "HF_HOME") if name in os.environ}
    if torch.cuda.is_available():
        seen = os.environ.get("CUDA_VISIBLE_DEVICES", "")
        device = torch.cuda.current_device()
        settings["CUDA_VISIBLE_DEVICES"] = seen.split(",")[device] if seen else str(device)
        # The actor asks Ray for no GPU, so that it can share the learner's; Ray would hide them all.
        settings["RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO"] = "0"
    else:
        # Of what vLLM compiles, a CPU that runs the model itself uncompiled only gains half a minute's wait for a C++ compiler.
        settings["TORCH_COMPILE_DISABLE"] = "1"
    return settings

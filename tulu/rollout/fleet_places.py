"""Where the engines of a fleet run: their GPUs, and what Ray is asked for."""

import os
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch

from tulu.config.cores import cores
from tulu.errors import RecipeError
from tulu.rollout.engine import EngineSpec
from tulu.rollout.fleet_member import Limits, Member
from tulu.rollout.fleet_replica import Replica
from tulu.rollout.fleet_standby import Standby
from tulu.rollout.vllm_engine import worker_environment

APART_SHARE = 0.9
"""The fraction of a GPU's memory that an engine takes that has it for itself."""


def places(engines: int, tensor_parallel: int, learners: int, gpus: int, colocated: bool = False) -> tuple[list[list[int]], bool]:
    """The GPUs of each engine on this machine, and whether learners use them too. Without a GPU every list is empty.

    The learners have the first GPUs. The engines get the others, for example 2 learners and 3 engines of 2 GPUs on 8:
    [[2, 3], [4, 5], [6, 7]]. Where those are too few, or engines are `colocated`, they share GPUs with learners: 1 learner and 1
    engine on 1 GPU.
    Raises RecipeError if the machine has too few for the engines alone.
    """
    if not gpus:
        return [[] for _ in range(engines)], False
    needed = engines * tensor_parallel
    if needed > gpus:
        raise RecipeError(
            f"rlvr.resources: {engines} engines of {tensor_parallel} GPUs need {needed}, and this machine has {gpus}; "
            "lower engines or tensor_parallel, or set RAY_ADDRESS to the cluster that has them"
        )
    shared = colocated or learners + needed > gpus
    first = 0 if shared else learners
    return [list(range(first + i * tensor_parallel, first + (i + 1) * tensor_parallel)) for i in range(engines)], shared


def make_members(
    spec: EngineSpec, replica: type[Replica], engines: int, tensor_parallel: int, learners: int, limits: Limits, cluster: bool
) -> tuple[list[Member], Standby, bool]:
    """The engines of a fleet, none of them started yet, what stands by for them, and whether learners use their GPUs too."""
    import ray

    gpus, shared = places(engines, tensor_parallel, learners, 0 if cluster else torch.cuda.device_count(), spec.sleeps)
    if not shared and spec.gpu_share is None:
        spec = replace(spec, gpu_share=APART_SHARE)

    if not cluster:
        spec = replace(spec, load_threads=load_threads(engines * tensor_parallel))

    actor = ray.remote(replica).options(**actor_options(tensor_parallel, cluster))

    def make() -> Any:
        return actor.remote(spec, tensor_parallel)

    standby = Standby(None if cluster else make)
    members = [
        Member(f"engine-{index + 1}", lambda: standby.take() or make(), limits, spec.version, visible(own))
        for index, own in enumerate(gpus)
    ]
    return members, standby, shared


def visible(gpus: Sequence[int]) -> dict[str, str]:
    """The environment in which an engine finds these GPUs of this machine, counted from 0 among those that this process sees."""
    if not gpus:
        return {}
    seen = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    names = seen.split(",") if seen else [str(index) for index in range(max(gpus) + 1)]
    return {"CUDA_VISIBLE_DEVICES": ",".join(names[index] for index in gpus)}


def load_threads(workers: int) -> int:
    """The threads with which each of so many workers of this machine loads new weights.

    While they come, nothing is sampled and the learner has little to do, so they share all cores. A number that was set for this
    process holds for them too.
    """
    own = os.environ.get("OMP_NUM_THREADS", "").split(",")[0].strip()
    return int(own) if own.isdecimal() and int(own) else max(1, cores() // workers)


def actor_options(tensor_parallel: int, cluster: bool) -> dict[str, Any]:
    """What Ray is asked for, for one engine: on this machine nothing but a process, in a cluster a node with free GPUs."""
    environment = worker_environment()
    on_cpu = not torch.cuda.is_available()
    # A single CPU worker needs no process beside the engine core's, and starts in half the time without.
    environment["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0" if on_cpu and tensor_parallel == 1 else "1"
    if on_cpu:
        # vLLM lays the weights of every sync into new memory; memory that the process keeps need not be cleared each time.
        environment |= {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": str(1 << 40)}
    if on_cpu and tensor_parallel > 1:
        # vLLM would want a NUMA node for each worker.
        environment["VLLM_CPU_OMP_THREADS_BIND"] = os.environ.get("VLLM_CPU_OMP_THREADS_BIND", "nobind")
    options: dict[str, Any] = {"max_restarts": 0, "max_task_retries": 0, "num_cpus": 0}
    if cluster:
        import ray

        for name in ("CUDA_VISIBLE_DEVICES", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO"):
            environment.pop(name, None)
        has_gpus = bool(ray.cluster_resources().get("GPU"))
        options |= {"num_gpus": tensor_parallel} if has_gpus else {"num_cpus": tensor_parallel}
        options["scheduling_strategy"] = "SPREAD"
    return options | {"runtime_env": {"env_vars": environment}}

"""Which fleet RLVR samples with: the engine of this process, or engines in processes of their own."""

import logging
from collections.abc import Iterator
from dataclasses import replace

from torch import Tensor

from tulu.config.options import EngineName
from tulu.config.parts import Resources
from tulu.config.schema import Rlvr
from tulu.model.adapters_apart import AdapterForm, adapter_form, adapter_weights
from tulu.model.policy import Policy
from tulu.rollout.engine import EngineSpec, ProgressCallback
from tulu.rollout.engines import check_embeddings, choose, make_engine
from tulu.rollout.fleet import Fleet
from tulu.rollout.local_fleet import LocalFleet
from tulu.rollout.ray_fleet import RayFleet
from tulu.rollout.team import SharedEngine, Team

log = logging.getLogger("tulu")


def make_fleet(
    name: EngineName,
    spec: EngineSpec,
    resources: Resources,
    learners: int = 1,
    policy: Policy | None = None,
    progress: ProgressCallback | None = None,
) -> Fleet:
    """Make the fleet that a recipe asks for; `learners` are the processes that train on this machine.

    Raises RecipeError if vLLM or a GPU is missing, and EngineError if the engines cannot load the model.
    """
    if resources.gpu_share is not None:
        spec = replace(spec, gpu_share=resources.gpu_share)
    if not resources.engines:
        return LocalFleet(make_engine(name, spec, policy, progress))
    choose("vllm")
    check_embeddings(spec, policy)
    count = resources.engines
    log.info("rollouts: %d vLLM engines in processes of their own; they are starting, which takes up to a minute", count)
    return RayFleet(replace(spec, sleeps=resources.colocated), count, resources.tensor_parallel, learners)


def fleet_of(stage: Rlvr, spec: EngineSpec, policy: Policy, team: Team) -> Fleet | None:
    """The fleet of a recipe's stage, for which every process of the learner asks.

    Without engines of their own every process samples its share with the engine that it has; else the main process has the fleet,
    and the others have None.
    """
    if not stage.resources.engines:
        if stage.resources.gpu_share is not None:
            spec = replace(spec, gpu_share=stage.resources.gpu_share)
        return LocalFleet(SharedEngine(make_engine(stage.engine, spec, policy), team))
    if not team.parallel.is_main:
        return None
    return make_fleet(stage.engine, spec, stage.resources, team.parallel.world, policy)


def sent_adapters(policy: Policy, stage: Rlvr) -> AdapterForm | None:
    """What the adapters look like that engines get by themselves; None where they get all weights. Raises RecipeError."""
    return adapter_form(policy.module.model) if stage.resources.adapters == "apart" else None


def sent_weights(policy: Policy, stage: Rlvr) -> Iterator[tuple[str, Tensor]]:
    """What engines get of the policy: all weights with adapters merged, or the adapters alone."""
    return adapter_weights(policy.module.model) if stage.resources.adapters == "apart" else policy.weights()

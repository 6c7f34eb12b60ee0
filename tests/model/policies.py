"""Model families, random groups and a policy with adapters, for the tests of this folder."""

from pathlib import Path
from typing import Any

import torch

from tests.samples import make_group
from tulu.config.schema import Lora
from tulu.model.policy import Policy

SHARING = ["olmo2", "olmo3", "olmoe", "qwen3", "llama"]
"""Families whose completions share their prompt. Olmo 3's window of 6 is smaller than every sequence below."""
FAMILIES = [*SHARING, "olmo_hybrid"]
GROUPS = [make_group(0, 9, [7, 12]), make_group(1, 14, [5]), make_group(2, 3, [8, 1, 20]), make_group(3, 0, [17])]
LORA = Lora(rank=4, alpha=8)


def lora_policy(folder: Path, lora: Lora = LORA, **options: Any) -> Policy:
    """A policy whose adapters change its log-probs, which those of peft do not before training: their B is 0."""
    ours = Policy.load(folder, lora=lora, **options)
    generator = torch.Generator().manual_seed(3)
    for name, parameter in ours.module.named_parameters():
        if "lora_B" in name:
            parameter.data.normal_(0, 0.1, generator=generator)
    return ours

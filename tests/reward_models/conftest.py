"""A tiny classifier of any family, saved as AutoModelForSequenceClassification loads it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture(scope="session")
def tiny_reward_model(tiny_model: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """tiny_reward_model(family, seed, **config) -> folder; the head is random."""
    from tulu.reward_models.model import RewardModel

    made: dict[str, Path] = {}

    def make(family: str = "olmo2", seed: int = 0, **config: Any) -> Path:
        key = repr((family, seed, sorted(config.items())))
        if key not in made:
            made[key] = tmp_path_factory.mktemp(f"rm-{family}")
            RewardModel.load(tiny_model(family, seed, **config), new_head=seed).save(made[key])
        return made[key]

    return make

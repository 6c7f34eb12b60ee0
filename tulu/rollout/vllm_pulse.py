"""How a replica sees that its vLLM lives: what the engine reports after every step.

This file imports vLLM, so only the process that runs vLLM imports it.
"""

from collections.abc import Callable
from typing import Any

from vllm.config import VllmConfig
from vllm.v1.metrics.loggers import StatLoggerBase


def make_pulse(sampled: Callable[[int, int], None]) -> Callable[[VllmConfig, int], StatLoggerBase]:
    """What vLLM makes its loggers with: one that calls `sampled(new tokens, requests without room)` after every step."""

    class Pulse(StatLoggerBase):
        def __init__(self, vllm_config: VllmConfig, engine_index: int = 0) -> None:
            self.waiting = 0

        def record(self, scheduler_stats: Any, iteration_stats: Any, mm_cache_stats: Any = None, engine_idx: int = 0) -> None:
            if scheduler_stats is not None:
                self.waiting = scheduler_stats.num_waiting_reqs
            if iteration_stats is not None:
                sampled(iteration_stats.num_generation_tokens, self.waiting)

        def log_engine_initialized(self) -> None:
            """Nothing is written."""

    return Pulse

"""Published RewardBench figures, to compare with.

They are those of the leaderboards of allenai/reward-bench, retrieved 2025-12-22 through evaleval/every_eval_ever @ e0f8b80, in
percent. Independent reruns of classifiers agree with them to 0.94 points a subset (issue 272 there), so that a difference of up
to a point says nothing.
"""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Target:
    """One model's published score and sections, in percent."""

    model: str
    kind: str
    score: float
    sections: tuple[float | None, ...]
    """In v1 Chat, Chat Hard, Safety, Reasoning, Prior Sets; in v2 Factuality, Precise IF, Math, Safety, Focus, Ties."""


TARGETS: Mapping[str, tuple[Target, ...]] = {
    "v1": (
        Target("INF-ORM-Llama3.1-70B", "classifier", 95.11, (96.65, 91.01, 93.65, 99.12, None)),
        Target("Skywork-Reward-Gemma-2-27B-v0.2", "classifier", 94.26, (96.09, 89.91, 92.97, 98.07, None)),
        Target("Skywork-Reward-Llama-3.1-8B", "classifier", 92.52, (95.81, 87.28, 90.81, 96.20, None)),
        Target("Llama-3.1-70B-Instruct-RM-RB2", "classifier", 90.21, (96.65, 83.55, 90.95, 89.69, None)),
        Target("Llama-3.1-8B-Instruct-RM-RB2", "classifier", 88.85, (95.81, 81.58, 89.32, 88.70, None)),
        Target("ArmoRM-Llama3-8B-v0.1", "classifier", 88.60, (96.93, 76.75, 90.54, 97.35, 74.29)),
        Target("gpt-4o-2024-08-06", "judge", 86.73, (96.09, 76.10, 88.11, 86.61, None)),
        Target("Llama-3.1-Tulu-3-8B-SFT-RM-RB2", "classifier", 85.51, (94.97, 79.17, 87.84, 80.05, None)),
        Target("Eurus-RM-7b", "classifier", 81.59, (98.04, 65.57, 81.35, 86.33, 71.72)),
        Target("Starling-RM-34B", "classifier", 81.33, (96.93, 57.24, 87.70, 88.45, 71.37)),
        Target("tulu-2-dpo-70b", "dpo", 76.21, (97.49, 60.53, 84.46, 74.07, 52.78)),
        Target("PoLL (3 models)", "judge", 75.78, (95.25, 54.06, 80.34, 73.46, None)),
        Target("zephyr-7b-beta", "dpo", 72.81, (95.25, 62.72, 65.68, 77.89, 52.16)),
        Target("tulu-2-dpo-7b", "dpo", 72.12, (97.49, 56.14, 75.27, 71.76, 47.74)),
        Target("Starling-RM-7B-alpha", "classifier", 71.13, (98.04, 45.61, 84.46, 58.00, 67.94)),
        Target("UltraRM-13b", "classifier", 69.03, (96.37, 55.48, 59.86, 62.44, 72.94)),
        Target("oasst-rm-2.1-pythia-1.4b", "classifier", 69.01, (88.55, 48.68, 63.11, 77.52, 65.33)),
        Target("reward-model-deberta-v3-large-v2", "classifier", 61.26, (89.39, 45.18, 73.38, 38.55, 58.36)),
    ),
    "v2": (
        Target("Skywork-Reward-V2-Llama-3.1-8B", "classifier", 84.13, (84.63, 66.25, 77.60, 96.67, 98.38, 81.24)),
        Target("Llama-3.1-70B-Instruct-RM-RB2", "classifier", 76.06, (81.26, 41.88, 69.95, 88.44, 86.46, 88.35)),
        Target("Skywork-Reward-Gemma-2-27B-v0.2", "classifier", 75.31, (76.74, 37.50, 67.21, 96.89, 91.72, 81.82)),
        Target("Skywork-Reward-Llama-3.1-8B", "classifier", 73.14, (69.89, 42.50, 62.84, 93.33, 96.16, 74.10)),
        Target("Llama-3.1-8B-Instruct-RM-RB2", "classifier", 72.85, (74.32, 44.37, 61.75, 89.56, 90.71, 76.38)),
        Target("Llama-3.1-Tulu-3-8B-RL-RM-RB2", "classifier", 68.71, (76.42, 40.00, 61.75, 86.44, 84.85, 62.81)),
        Target("Llama-3.1-Tulu-3-8B-SFT-RM-RB2", "classifier", 68.21, (73.26, 38.75, 57.92, 89.78, 88.89, 60.63)),
        Target("gpt-4o-2024-08-06", "judge", 64.93, (56.84, 33.12, 62.30, 86.19, 72.93, 78.19)),
        Target("Llama-3.1-8B-Base-RM-RB2", "classifier", 64.90, (72.00, 36.25, 61.20, 82.67, 83.23, 54.06)),
        Target("Skywork-Reward-V2-Qwen3-0.6B", "classifier", 61.25, (58.00, 40.00, 71.58, 84.44, 79.49, 33.97)),
        Target("Llama-3.1-Tulu-3-8B-RM", "classifier", 59.00, (74.53, 34.69, 64.48, 74.22, 53.64, 52.43)),
        Target("UltraRM-13b", "classifier", 46.83, (50.63, 33.12, 55.19, 50.89, 60.81, 30.36)),
        Target("Starling-RM-34B", "classifier", 45.53, (45.89, 31.87, 61.75, 75.56, 48.08, 10.04)),
        Target("oasst-rm-2.1-pythia-1.4b", "classifier", 26.48, (31.79, 26.25, 39.34, 32.44, 27.07, 1.98)),
    ),
}

"""The numbers of the released recipes, for test_released.py.

reference: allenai/open-instruct @ e6c3044a unless another commit is named; the recipes say for each number where it stands.
"""

from collections.abc import Mapping
from typing import Any

from tulu.config.parts import SkipSteps, VerifierSettings

RELEASED = (
    "tulu3-8b",
    "tulu3-70b",
    "tulu3-405b",
    "tulu3.1-8b",
    "olmo2-instruct",
    "olmo2-32b",
    "olmoe-0125",
    "olmo3-7b-instruct",
    "olmo3-32b-instruct",
    "olmo-hybrid-7b-instruct",
    "rewardbench2-rm",
    "olmo2-1b",
    "olmo2-13b",
    "olmo3-7b-think",
    "olmo3-32b-think",
    "olmo3-rl-zero-math",
    "olmo3-rl-zero-code",
    "olmo3-rl-zero-if",
    "olmo3-rl-zero-general",
)
ADAMW = {"adam_beta2": 0.999, "adam_epsilon": 1e-8, "lora": None, "skip_steps": None}
"""torch's defaults; neither adapters nor steps that are passed over."""
CLIPPED = {
    "loss": "clip",
    "ratio_floor": None,
    "overlong_buffer": None,
    "entropy_bonus": 0,
    "teacher": None,
    "reward_model": None,
}
"""What no trainer of RLVR added to the clipped loss."""
SFT: dict[str, Any] = ADAMW | {"over_length": "truncate", "held_out": 0}
SFT |= {"schedule": "linear", "warmup": 0.03, "weight_decay": 0, "max_length": 4096, "epochs": 2, "loss": "sum"}
DPO: dict[str, Any] = ADAMW | {"held_out": 0, "save_every": 1000}
DPO |= {"schedule": "linear", "warmup": 0.1, "weight_decay": 0, "epochs": 1, "loss": "dpo_norm", "beta": 5, "label_smoothing": 0}
RM: dict[str, Any] = ADAMW | {"learning_rate": 3e-6, "schedule": "linear", "warmup": 0, "weight_decay": 0.01, "centre": 0}
RM |= {"adam_epsilon": 1e-5, "max_length": 2048, "held_out": 0}
PPO: dict[str, Any] = ADAMW | CLIPPED | {"kl_in": "reward", "mask_truncated": False, "warmup": 0, "loss_micro_batch": 2}
PPO |= {"samples": 1, "advantage": "gae", "kl": "k1", "updates": 4, "minibatches": 1, "clip_low": 0.2, "clip_high": 0.2}
PPO |= {"no_stop_score": -10, "reward_scale": 10, "temperature": 1, "schedule": "linear", "ratio_cap": None, "refill": False}
PPO |= {"adam_epsilon": 1e-8, "weight_decay": 0.01, "verifier_mode": "tulu3-2024", "max_prompt": 2048}
PPO |= {"denominator": "micro_mean", "rate_by": "update", "old": "step", "drop_equal": False, "retire_at": None}
GRPO: dict[str, Any] = ADAMW | CLIPPED | {"kl_in": "loss", "mask_truncated": False, "warmup": 0, "loss_micro_batch": 2}
GRPO |= {"refill": False, "ratio_cap": None, "temperature": 1, "max_prompt": 2048, "verifier_mode": "tulu3-2024"}
GRPO |= {"samples": 16, "prompts": 48, "batch": 768, "advantage": "standard", "ddof": 1, "kl": "k3", "beta": 0.01}
GRPO |= {"minibatches": 2, "updates": 1, "clip_low": 0.2, "clip_high": 0.2, "no_stop_score": 0, "reward_scale": 10}
GRPO |= {"schedule": "constant", "adam_epsilon": 1e-8, "weight_decay": 0.01, "learning_rate": 5e-7, "max_tokens": 2048, "seed": 1}
GRPO |= {"denominator": "micro_mean", "rate_by": "update", "old": "minibatch", "drop_equal": False, "retire_at": None}
FAST: dict[str, Any] = ADAMW | CLIPPED | {"kl": "k3", "kl_in": None, "ddof": 0, "warmup": 0, "old": "step", "rate_by": "update"}
FAST |= {"denominator": "token", "ratio_level": "token", "ratio_outside": "truncate"}
FAST |= {"samples": 8, "beta": 0, "clip_low": 0.2, "clip_high": 0.272, "schedule": "constant", "no_stop_score": None}
FAST |= {"drop_equal": True, "retire_at": None}
FAST |= {"temperature": 1, "weight_decay": 0, "verifier_mode": "tulu3", "updates": 1, "reward_scale": 10, "max_prompt": 2048}
ZERO = FAST | {
    "learning_rate": 1e-6,
    "prompts": 32,
    "batch": 256,
    "minibatches": 1,
    "max_tokens": 16384,
    "seed": 1,
    "ratio_cap": 2,
}
JUDGE: Mapping[str, Any] = {"judge_model": "Qwen/Qwen3-32B", "judge_seconds": 600.0, "judge_tokens": 2048}
OLMO3_VERIFIERS = VerifierSettings(code_threshold=0.99, code_seconds=1.0, **JUDGE)
CORE: dict[str, Any] = {"adam_epsilon": 1e-8, "lora": None, "held_out": 0, "over_length": "truncate", "save_every": 1000}
CORE |= {"schedule": "linear", "warmup": 0.03, "weight_decay": 0, "epochs": 2, "max_length": 32768, "seed": 34521}
CORE |= {"adam_beta1": 0.9, "adam_beta2": 0.95, "skip_steps": SkipSteps(window=128, sigma=6.0), "loss": "token"}

NUMBERS: Mapping[tuple[str, str], Mapping[str, Any]] = {
    # docs/tulu3.md
    ("tulu3-8b", "sft"): SFT | {"learning_rate": 5e-6, "batch": 128, "loss_micro_batch": 1, "seed": 123},
    ("tulu3-8b", "dpo"): DPO | {"learning_rate": 5e-7, "batch": 128, "max_length": 2048, "labels": "all", "seed": 42},
    ("tulu3-8b", "rm"): RM | {"batch": 256, "epochs": 1, "seed": 1},
    ("tulu3-8b", "rlvr"): PPO
    | {"learning_rate": 3e-7, "beta": 0.05, "prompts": 224, "steps": 10_000_000 // 224, "max_tokens": 2048, "seed": 3}
    | {"warmup": 0, "save_every": 100, "loss_micro_batch": 2},
    ("tulu3-70b", "sft"): SFT | {"learning_rate": 2e-6, "batch": 128, "loss_micro_batch": 1, "seed": 456, "save_every": 1000},
    ("tulu3-70b", "dpo"): DPO | {"learning_rate": 2e-7, "batch": 128, "max_length": 2048, "labels": "all", "seed": 42},
    ("tulu3-70b", "rlvr"): PPO
    | {
        "learning_rate": 1e-7,
        "beta": 0.07,
        "prompts": 640,
        "steps": 400_000 // 640,
        "max_tokens": 2048,
        "seed": 8,
        "warmup": 0.1,
    }
    | {"loss_micro_batch": 1, "save_every": 40},
    ("tulu3-405b", "dpo"): DPO | {"learning_rate": 2e-7, "batch": 256, "max_length": 2048, "labels": "all", "seed": 42},
    ("tulu3-405b", "rlvr"): PPO
    | {"learning_rate": 1e-7, "beta": 0.05, "prompts": 29 * 8 * 8, "steps": 400_000 // 1856, "max_tokens": 1024, "seed": 3}
    | {"loss_micro_batch": 1, "save_every": 25},
    ("tulu3.1-8b", "rlvr"): GRPO | {"steps": 10_000_000 // 768, "verifier_mode": "tulu3-2024", "save_every": 40},
    # docs/archived_dev_scripts/olmo2_1124.sh, configs/train_configs/olmo2/
    ("olmo2-instruct", "sft"): SFT | {"learning_rate": 1e-5, "batch": 128, "loss_micro_batch": 1, "seed": 4},
    ("olmo2-instruct", "dpo"): DPO | {"learning_rate": 8e-7, "batch": 128, "max_length": 2048, "labels": "all", "seed": 9},
    ("olmo2-instruct", "rm"): RM | {"batch": 256, "epochs": 1, "seed": 1},
    ("olmo2-instruct", "rlvr"): PPO
    | {"learning_rate": 3e-7, "prompts": 248, "steps": 200_000 // 248, "max_tokens": 2048, "seed": 1, "save_every": 60},
    # scripts/train/olmo2/finetune_32b.sh @ bb98dbcac^
    ("olmo2-32b", "sft"): SFT | {"learning_rate": 4e-6, "batch": 256, "loss_micro_batch": 1, "seed": 8},
    ("olmo2-32b", "dpo"): DPO | {"batch": 128, "max_length": 2048, "labels": "all"},
    # docs/archived_dev_scripts/olmoe_0125.sh
    ("olmoe-0125", "sft"): SFT | {"learning_rate": 1.75e-5, "batch": 128, "loss_micro_batch": 2, "seed": 7},
    ("olmoe-0125", "dpo"): DPO | {"learning_rate": 9e-7, "batch": 128, "max_length": 2048, "labels": "all", "seed": 42},
    ("olmoe-0125", "rm"): RM | {"batch": 128, "epochs": 1, "seed": 1},
    ("olmoe-0125", "rlvr"): PPO
    | {"learning_rate": 3e-7, "prompts": 112, "steps": 200_000 // 112, "max_tokens": 2048, "seed": 3, "save_every": 40},
    # scripts/train/olmo3/ @ 7917d417^, OLMo-core src/scripts/train/sft/OLMo-sft.py @ 9e97471 and abfa4ea
    ("olmo3-7b-instruct", "sft"): CORE | {"learning_rate": 8e-5, "batch_tokens": 2**20},
    ("olmo3-7b-instruct", "dpo"): DPO | {"learning_rate": 1e-6, "batch": 128, "max_length": 16384, "labels": "last", "seed": 42},
    ("olmo3-7b-instruct", "rlvr"): FAST
    | {
        "learning_rate": 1e-6,
        "prompts": 64,
        "batch": 512,
        "minibatches": 4,
        "max_tokens": 8192,
        "steps": 1_024_000 // 512,
        "seed": 1,
    }
    | {
        "advantage": "centred",
        "ratio_cap": None,
        "verifier_settings": OLMO3_VERIFIERS,
        "retire_at": 0.875,
        "stop": ("</answer>",),
        "refill": True,
        "mask_truncated": False,
        "save_every": 50,
    },
    ("olmo3-32b-instruct", "sft"): CORE | {"learning_rate": 8e-5, "batch_tokens": 2**22},
    ("olmo3-32b-instruct", "dpo"): DPO | {"learning_rate": 1e-6, "batch": 128, "max_length": 8192, "labels": "last", "seed": 42},
    ("olmo3-32b-instruct", "rlvr"): FAST
    | {"learning_rate": 2e-6, "prompts": 64, "batch": 512, "minibatches": 1, "max_tokens": 16384, "steps": 10_000_000 // 512}
    | {
        "advantage": "centred",
        "ratio_cap": 2,
        "verifier_settings": VerifierSettings(code_threshold=0.99, code_seconds=6.0, **JUDGE),
        "seed": 543210,
        "refill": True,
        "mask_truncated": False,
        "save_every": 50,
        "stop": (),
    },
    # OLMo-core src/scripts/official/OLMo-hybrid/ @ 0b808818; scripts/train/olmo-hybrid/, scripts/train/olmo3/*_hybrid_rl.sh
    ("olmo-hybrid-7b-instruct", "sft"): CORE | {"learning_rate": 2.5e-5, "batch_tokens": 2**21},
    ("olmo-hybrid-7b-instruct", "dpo"): DPO
    | {"learning_rate": 1e-6, "batch": 128, "max_length": 16384, "labels": "last", "seed": 42, "save_every": 500},
    ("olmo-hybrid-7b-instruct", "rlvr"): FAST
    | {
        "learning_rate": 1e-6,
        "prompts": 64,
        "batch": 512,
        "minibatches": 4,
        "max_tokens": 8192,
        "steps": 1_024_000 // 512,
        "seed": 1,
    }
    | {
        "advantage": "centred",
        "ratio_cap": 2,
        "refill": True,
        "verifier_settings": OLMO3_VERIFIERS,
        "retire_at": 0.875,
        "save_every": 10,
        "stop": ("</answer>",),
        "mask_truncated": False,
    },
    # docs/olmo2.md
    ("olmo2-1b", "sft"): SFT | {"learning_rate": 3e-5, "batch": 128, "loss_micro_batch": 2, "seed": 1},
    ("olmo2-1b", "dpo"): DPO | {"learning_rate": 2.5e-6, "batch": 128, "max_length": 2048, "labels": "all", "seed": 111},
    ("olmo2-1b", "rlvr.mixed"): GRPO | {"steps": 2_000_000 // 768, "loss_micro_batch": 1, "save_every": 200},
    ("olmo2-1b", "rlvr.math"): GRPO | {"steps": 2_000_000 // 768, "loss_micro_batch": 1, "save_every": 200},
    # docs/archived_dev_scripts/olmo2_1124.sh
    ("olmo2-13b", "sft"): SFT | {"learning_rate": 5e-6, "batch": 64, "loss_micro_batch": 1, "seed": 1},
    ("olmo2-13b", "dpo"): DPO | {"learning_rate": 8e-7, "batch": 128, "max_length": 2048, "labels": "all", "seed": 8},
    ("olmo2-13b", "rm"): RM | {"batch": 256, "epochs": 1, "seed": 1},
    ("olmo2-13b", "rlvr.mixed"): PPO
    | {"learning_rate": 3e-7, "prompts": 248, "steps": 806, "beta": 0.1, "seed": 52}
    | {"max_tokens": 2048, "save_every": 60},
    ("olmo2-13b", "rlvr.gsm"): PPO
    | {"learning_rate": 3e-7, "prompts": 248, "steps": 806, "beta": 0.03, "seed": 52}
    | {"max_tokens": 2048, "save_every": 60}
    | {"start": "mixed@step-480", "released": "allenai/OLMo-2-1124-13B-Instruct-RLVR1"},
    ("olmo2-13b", "rlvr.math"): PPO
    | {"learning_rate": 3e-7, "prompts": 248, "steps": 806, "seed": 52}
    | {"max_tokens": 2048, "save_every": 60}
    | {"start": "gsm@step-180", "released": "allenai/OLMo-2-1124-13B-Instruct-RLVR2"},
    # scripts/train/olmo3/ @ 7917d417^, OLMo-core src/scripts/train/sft/ @ 38f6652 and 79a184c
    ("olmo3-7b-think", "sft"): CORE | {"learning_rate": 5e-5, "batch_tokens": 2**20},
    ("olmo3-7b-think", "dpo"): DPO | {"learning_rate": 8e-8, "batch": 128, "max_length": 16384, "labels": "last", "seed": 42},
    ("olmo3-7b-think", "rlvr"): FAST
    | {"learning_rate": 1e-6, "prompts": 64, "batch": 512, "minibatches": 1, "max_tokens": 32768, "steps": 10_000_000 // 512}
    | {"verifier_settings": OLMO3_VERIFIERS, "seed": 1, "refill": False, "mask_truncated": False, "save_every": 25, "stop": ()},
    ("olmo3-32b-think", "sft"): CORE | {"learning_rate": 1e-4, "batch_tokens": 2**22},
    ("olmo3-32b-think", "dpo"): DPO | {"batch": 128, "max_length": 8192, "labels": "last", "seed": 42},
    ("olmo3-32b-think", "rlvr"): FAST
    | {"learning_rate": 2e-6, "prompts": 64, "batch": 512, "minibatches": 1, "max_tokens": 32768, "steps": 10_000_000 // 512}
    | {
        "verifier_settings": OLMO3_VERIFIERS,
        "seed": 1,
        "save_every": 25,
        "stop": (),
        "refill": True,
        "mask_truncated": False,
        "advantage": "centred",
        "ratio_cap": 2,
    },
    ("olmo3-rl-zero-math", "rlvr"): ZERO
    | {"steps": 768_000 // 256, "advantage": "centred", "retire_at": 0.875, "refill": True, "mask_truncated": False}
    | {"save_every": 100, "stop": ()},
    ("olmo3-rl-zero-code", "rlvr"): ZERO
    | {
        "verifier_settings": VerifierSettings(code_threshold=0.0, code_seconds=1.0),
        "steps": 10_000_000 // 256,
        "advantage": "standard",
        "mask_truncated": True,
    }
    | {"save_every": 50, "stop": (), "refill": False},
    ("olmo3-rl-zero-if", "rlvr"): ZERO
    | {"steps": 10_000_000 // 256, "advantage": "standard", "mask_truncated": True}
    | {"save_every": 50, "stop": (), "refill": False},
    ("olmo3-rl-zero-general", "rlvr"): ZERO
    | {
        "steps": 10_000_000 // 256,
        "advantage": "standard",
        "mask_truncated": True,
        "verifier_settings": VerifierSettings(**JUDGE),
        "stop": ("</answer>",),
    }
    | {"save_every": 50, "refill": False},
    # arXiv 2506.01937
    ("rewardbench2-rm", "rm"): RM | {"epochs": 2, "batch": 256, "held_out": 0.01},
}

"""The data of the released recipes, and what their runs set that no field has, for test_released.py.

reference: allenai/open-instruct @ e6c3044a unless another commit is named; the recipes say for each value where it stands.
"""

from collections.abc import Mapping
from typing import Any

from tests.config.plan_sections import ON_POLICY_SETS

MIXED = {"allenai/RLVR-GSM-MATH-IF-Mixed-Constraints": 1.0}
OLMOE_PAIRS = {"allenai/tulu-3-pref-personas-instruction-following": 1.0} | {
    f"ai2-adapt-dev/{name}-olmoe": 1.0 for name in ON_POLICY_SETS
}
"""docs/archived_dev_scripts/olmoe_0125.sh."""
OLMO3_PROBLEMS = {
    "hamishivi/rlvr_acecoder_filtered_filtered": 20_000,
    "hamishivi/omega-combined-no-boxed_filtered": 20_000,
    "hamishivi/rlvr_orz_math_57k_collected_filtered": 14_000,
    "hamishivi/polaris_53k": 14_000,
    "hamishivi/MathSub-30K_filtered": 9_000,
    "hamishivi/DAPO-Math-17k-Processed_filtered": 7_000,
    "allenai/IF_multi_constraints_upto5_filtered_dpo_0625_filter-keyword-filtered-topic-char-topic-filtered": 38_000,
    "allenai/rlvr_general_mix-keyword-filtered-topic-chars-char-filt-topic-filtered": 50_000,
}
"""scripts/train/olmo3/7b_instruct_rl.sh, 32b_instruct_rl.sh and 7b_instruct_hybrid_rl.sh."""
OLMO3_PAIRS = {
    "allenai/olmo-3-pref-mix-deltas-complement2-DECON-tpc-kwd-ch-dedup5-lbc100-grafmix-unbal": 125_000,
    "allenai/dpo-yolo1-200k-gpt4.1-2w2s-maxdelta_reje-426124-rm-gemma3-kwd-ftd-ch-ftd-topic-ftd-dedup5-lbc100": 125_000,
}
"""The two large sets of scripts/train/olmo3/7b_instruct_dpo.sh and 32b_instruct_dpo.sh; eight small ones differ."""

MIXES: Mapping[tuple[str, str], Mapping[str, float]] = {
    ("tulu3-8b", "sft"): {"allenai/tulu-3-sft-mixture": 1.0},
    ("tulu3-8b", "dpo"): {"allenai/llama-3.1-tulu-3-8b-preference-mixture": 1.0},
    ("tulu3-8b", "rm"): {"allenai/llama-3.1-tulu-3-8b-preference-mixture": 1.0},
    ("tulu3-8b", "rlvr"): MIXED,
    ("tulu3-70b", "sft"): {"allenai/tulu-3-sft-mixture": 1.0},
    ("tulu3-70b", "dpo"): {"allenai/llama-3.1-tulu-3-70b-preference-mixture": 1.0},
    ("tulu3-70b", "rlvr"): MIXED,
    ("tulu3-405b", "sft"): {"allenai/tulu-3-sft-mixture": 1.0},
    ("tulu3-405b", "dpo"): {"ai2-adapt-dev/405b_preference_mix": 1.0},
    ("tulu3-405b", "rlvr"): {"allenai/RLVR-MATH": 1.0},
    ("tulu3.1-8b", "rlvr"): MIXED,
    ("olmo2-instruct", "sft"): {"allenai/tulu-3-sft-olmo-2-mixture": 1.0},
    ("olmo2-instruct", "dpo"): {"allenai/olmo-2-1124-7b-preference-mix": 1.0},
    ("olmo2-instruct", "rm"): {"allenai/olmo-2-1124-7b-preference-mix": 1.0},
    ("olmo2-instruct", "rlvr"): {"allenai/RLVR-GSM": 1.0},
    ("olmo2-32b", "sft"): {"allenai/tulu-3-sft-olmo-2-mixture-0225": 1.0},
    ("olmoe-0125", "sft"): {"allenai/tulu-3-sft-olmo-2-mixture": 1.0},
    ("olmoe-0125", "dpo"): OLMOE_PAIRS,
    ("olmoe-0125", "rm"): OLMOE_PAIRS,
    ("olmoe-0125", "rlvr"): {"allenai/RLVR-GSM": 1.0},
    ("olmo3-7b-instruct", "dpo"): OLMO3_PAIRS
    | {
        f"allenai/{name}_{writer}_pairs_filtered_lbc100": count
        for writer in ("qwen", "gpt")
        for name, count in {"related-query": 1250, "paraphrase": 938, "repeat": 312, "self-talk": 2500}.items()
    },
    ("olmo3-7b-instruct", "rlvr"): OLMO3_PROBLEMS,
    ("olmo3-32b-instruct", "dpo"): OLMO3_PAIRS
    | {
        "allenai/general_responses_dev_8maxturns_truncate-9fbef8-enrejected-kwd-ftd-cn-ftd-topic-filt-lb100": 1250,
        "allenai/paraphrase_train_dev_8maxturns_truncated-6e031f-dorejected-kwd-ftd-cn-ftd-topic-filt-lb100": 938,
        "allenai/repeat_tulu_5maxturns_big_truncated2048_victoriagrejected-kwd-ftd-cn-ftd-topic-filt-lb100": 312,
        "allenai/self-talk_gpt3.5_gpt4o_prefpairs_truncat-1848c9-agrejected-kwd-ftd-cn-ftd-topic-filt-lb100": 2500,
        "allenai/general-responses-truncated-gpt-dedup-topic-filt-lb100": 1250,
        "allenai/paraphrase-truncated-gpt-dedup-topic-filt-lb100": 938,
        "allenai/repeat-truncated-gpt-dedup-topic-filt-lb100": 312,
        "allenai/self-talk-truncated-gpt-deduped-topic-filt-lb100": 2500,
    },
    ("olmo3-32b-instruct", "rlvr"): OLMO3_PROBLEMS,
    ("olmo-hybrid-7b-instruct", "dpo"): {"allenai/Dolci-Instruct-DPO-fixed": 259_922},
    ("olmo-hybrid-7b-instruct", "rlvr"): OLMO3_PROBLEMS,
    ("rewardbench2-rm", "rm"): {
        "allenai/llama-3.1-tulu-3-8b-preference-mixture": 1.0,
        "Skywork/Skywork-Reward-Preference-80K-v0.2": 1.0,
    },
    ("olmo2-1b", "sft"): {"allenai/tulu-3-sft-olmo-2-mixture-0225": 1.0},
    ("olmo2-1b", "dpo"): {"allenai/olmo-2-0425-1b-preference-mix": 1.0},
    ("olmo2-1b", "rlvr.mixed"): MIXED,
    ("olmo2-1b", "rlvr.math"): {"allenai/RLVR-MATH": 1.0},
    ("olmo2-13b", "sft"): {"allenai/tulu-3-sft-olmo-2-mixture": 1.0},
    ("olmo2-13b", "dpo"): {"allenai/olmo-2-1124-13b-preference-mix": 1.0},
    ("olmo2-13b", "rm"): {"allenai/olmo-2-1124-13b-preference-mix": 1.0},
    ("olmo2-13b", "rlvr.mixed"): MIXED,
    ("olmo2-13b", "rlvr.gsm"): {"allenai/RLVR-GSM": 1.0},
    ("olmo2-13b", "rlvr.math"): {"allenai/RLVR-MATH": 1.0},
    ("olmo3-7b-think", "dpo"): {"scottgeng00/olmo-3-preference-mix-deltas_reasoning-yolo_scottmix-DECON": 150_000},
    ("olmo3-7b-think", "rlvr"): {"allenai/Dolci-Think-RL-7B": 1.0},
    ("olmo3-32b-think", "dpo"): {
        "allenai/olmo-3-preference-mix-deltas_reasoning-scottmix-DECON-keyword-ftd-topic-ftd-dedup5_take2": 200_000
    },
    ("olmo3-32b-think", "rlvr"): {
        "hamishivi/math_rlvr_mixture_dpo": 1.0,
        "hamishivi/code_rlvr_mixture_dpo": 1.0,
        "hamishivi/IF_multi_constraints_upto5_filtered_dpo_0625_filter": 30_186,
        "allenai/rlvr_general_mix-keyword-filtered": 21_387,
    },
    ("olmo3-rl-zero-math", "rlvr"): {"allenai/Dolci-RLZero-Math-7B": 1.0},
    ("olmo3-rl-zero-code", "rlvr"): {"allenai/Dolci-RLZero-Code-7B": 1.0},
    ("olmo3-rl-zero-if", "rlvr"): {"allenai/Dolci-RLZero-IF-7B": 1.0},
    ("olmo3-rl-zero-general", "rlvr"): {"hamishivi/rlvr_general_mix": 13_314},
}
"""The sets of each stage in their order, with a share of the rows or a number of them."""

LEGACY: dict[str, Any] = {"async_mode": True, "reward_model_multiplier": 0.0, "stop_token": "eos"}
LEGACY |= {"local_rollout_forward_batch_size": 2}
PPO = {**LEGACY, "whiten_rewards": False}
GRPO = {**LEGACY, "vllm_tensor_parallel_size": 4, "actor_num_gpus_per_node": [4, 8]}
JUDGE = {"llm_judge_max_context_length": 32768, "llm_judge_temperature": 1.0}
PACKED: dict[str, Any] = {"per_device_train_batch_size": 1}
AHEAD = {**PACKED, "async_steps": 8, "inflight_updates": True}
ZERO: dict[str, Any] = {**PACKED, "async_steps": 4, "inflight_updates": True, "pack_length": 18432}
ZERO |= {"num_learners_per_node": [8], "vllm_num_engines": 32}

RELEASED_VALUES: Mapping[tuple[str, str], Mapping[str, Any]] = {
    ("tulu3-8b", "rlvr"): PPO,
    ("tulu3-70b", "rlvr"): {
        **PPO,
        "local_rollout_forward_batch_size": 1,
        "vllm_num_engines": 1,
        "vllm_tensor_parallel_size": 4,
    },
    ("tulu3-405b", "rlvr"): {
        **PPO,
        "local_rollout_forward_batch_size": 1,
        "vllm_num_engines": 1,
        "vllm_tensor_parallel_size": 16,
    },
    ("tulu3.1-8b", "rlvr"): GRPO,
    ("olmo2-instruct", "rlvr"): PPO,
    ("olmo2-32b", "rlvr"): GRPO,
    ("olmoe-0125", "rlvr"): PPO,
    ("olmo2-1b", "rlvr.mixed"): GRPO,
    ("olmo2-1b", "rlvr.math"): GRPO,
    ("olmo2-13b", "rlvr.mixed"): PPO,
    ("olmo2-13b", "rlvr.gsm"): PPO,
    ("olmo2-13b", "rlvr.math"): PPO,
    ("olmo3-7b-instruct", "sft"): {"init_seed": 543210, "num_nodes": 4, "dataset_path": "olmo3-32b-instruct-sft-1114"},
    ("olmo3-7b-instruct", "rlvr"): {
        **AHEAD,
        **JUDGE,
        "pack_length": 11264,
        "num_learners_per_node": [8],
        "vllm_num_engines": 56,
    },
    ("olmo3-32b-instruct", "sft"): {"init_seed": 33333, "num_nodes": 8, "dataset_path": "olmo3-32b-instruct-sft-1114"},
    ("olmo3-32b-instruct", "rlvr"): {
        **AHEAD,
        **JUDGE,
        **{"pack_length": 19456, "num_learners_per_node": [8] * 4, "vllm_num_engines": 16},
        **{"vllm_tensor_parallel_size": 4, "inference_batch_size": 200},
    },
    ("olmo-hybrid-7b-instruct", "sft"): {"init_seed": 42, "num_nodes": 8, "dataset_path": "olmo3-32b-instruct-sft-1114"},
    ("olmo-hybrid-7b-instruct", "dpo"): {"packing": True, "activation_memory_budget": 0.5},
    ("olmo-hybrid-7b-instruct", "rlvr"): {
        **AHEAD,
        **JUDGE,
        **{"pack_length": 11264, "num_learners_per_node": [8], "vllm_num_engines": 8, "vllm_enforce_eager": True},
    },
    ("olmo3-7b-think", "sft"): {
        **{"init_seed": 53184, "num_nodes": 8, "chat_template": "olmo_thinker_no_think_7b"},
        **{"dataset_path": "reasoning-mix-decontam-v2-special-tokens-v3-think-FIX"},
    },
    ("olmo3-7b-think", "rlvr"): {
        **PACKED,
        **JUDGE,
        **{"pack_length": 35840, "async_steps": 1, "inflight_updates": False},
        **{"num_learners_per_node": [8, 8], "vllm_num_engines": 56},
    },
    ("olmo3-32b-think", "sft"): {
        **{"init_seed": 33333, "second_learning_rate": 5e-5, "num_nodes": 32, "dataset_path": "olmo3-32b-thinking-sft"},
        **{"chat_template": "olmo_thinker_no_think_sft_tokenization"},
    },
    ("olmo3-32b-think", "rlvr"): {
        **AHEAD,
        **JUDGE,
        **{"pack_length": 35840, "num_learners_per_node": [8] * 12, "vllm_num_engines": 6},
        **{"vllm_tensor_parallel_size": 8, "deepspeed_zpg": 32},
    },
    ("olmo3-rl-zero-math", "rlvr"): {
        **AHEAD,
        "pack_length": 18432,
        "num_learners_per_node": [8, 8],
        "vllm_num_engines": 56,
    },
    ("olmo3-rl-zero-code", "rlvr"): ZERO,
    ("olmo3-rl-zero-if", "rlvr"): ZERO,
    ("olmo3-rl-zero-general", "rlvr"): {**ZERO, **JUDGE},
}
"""What the run of a stage set and its recipe only tells, under the original's names."""

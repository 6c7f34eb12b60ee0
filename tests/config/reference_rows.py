"""Which row of the reference's tables each stage of a released recipe follows, and which numbers of it are left out, and why."""

from collections.abc import Mapping

ROWS: Mapping[str, Mapping[str, str]] = {
    # recipe: the first cell of its row in §2 SFT, §3 DPO, §4 reward models, §5 PPO and §6 GRPO, for each stage of a list
    "tulu3-8b": {"sft": "Tülu 3 8B", "dpo": "Tülu 3 8B", "rm": "Tülu 3 8B RM", "ppo": "Tülu 3 8B"},
    "tulu3-70b": {"sft": "Tülu 3 70B", "dpo": "Tülu 3 70B", "ppo": "Tülu 3 70B"},
    "tulu3-405b": {"sft": "Tülu 3 405B", "dpo": "Tülu 3 405B", "ppo": "Tülu 3 405B"},
    "tulu3.1-8b": {"grpo": "Tülu 3.1 8B"},
    "olmo2-instruct": {"sft": "OLMo 2 7B (1124) config", "dpo": "OLMo 2 7B", "rm": "OLMo 2 7B / 13B RM", "ppo": "OLMo 2 7B"},
    "olmo2-32b": {"sft": "OLMo 2 32B (0325) script", "dpo": "OLMo 2 32B", "grpo": "OLMo 2 32B released RLVR"},
    "olmoe-0125": {"sft": "OLMoE 0125", "dpo": "OLMoE 0125", "rm": "OLMoE 0125 RM", "ppo": "OLMoE 0125"},
    "olmo3-7b-instruct": {"sft": "Olmo 3 7B Instruct", "dpo": "Olmo 3 7B Instruct", "grpo": "Olmo 3 7B Instruct"},
    "olmo3-32b-instruct": {"sft": "Olmo 3 32B Instruct", "dpo": "Olmo 3 32B Instruct", "grpo": "Olmo 3 32B Instruct"},
    "olmo-hybrid-7b-instruct": {"grpo": "Olmo-Hybrid 7B Instruct"},
    "olmo2-1b": {
        "sft": "OLMo 2 1B (0425)",
        "dpo": "OLMo 2 1B",
        "grpo mixed": "OLMo 2 1B stage 1",
        "grpo math": "OLMo 2 1B stage 2",
    },
    "olmo2-13b": {"sft": "OLMo 2 13B script", "dpo": "OLMo 2 13B", "rm": "OLMo 2 7B / 13B RM"}
    | {"ppo mixed": "OLMo 2 13B", "ppo gsm": "OLMo 2 13B", "ppo math": "OLMo 2 13B"},
    "olmo3-7b-think": {"sft": "Olmo 3 7B Think", "dpo": "Olmo 3 7B Think", "grpo": "Olmo 3 7B Think"},
    "olmo3-32b-think": {"sft": "Olmo 3 32B Think", "dpo": "Olmo 3 32B Think", "grpo": "Olmo 3 32B Think"},
    "olmo3-rl-zero-math": {"grpo": "RL-Zero math"},
    "olmo3-rl-zero-code": {"grpo": "RL-Zero code/IF/general/mix"},
    "olmo3-rl-zero-if": {"grpo": "RL-Zero code/IF/general/mix"},
    "olmo3-rl-zero-general": {"grpo": "RL-Zero code/IF/general/mix"},
}
NO_ROW = {
    # The stages of released recipes that no row of the tables describes.
    "olmo-hybrid-7b-instruct sft": "its script is of March 2026, in OLMo-core",
    "olmo-hybrid-7b-instruct dpo": "its script is of March 2026",
    "rewardbench2-rm rm": "arXiv 2506.01937",
}
NO_RECIPE = {
    ("sft", "Tülu 3 8B script at HEAD (trap)"): "a trap: 512 rows, and another loss",
    ("sft", "OLMo 2 7B re-tuned script"): "of the later -0225 mixture; the released model is the row of the configuration",
    (
        "sft",
        "OLMo 2 13B config",
    ): "the run that DPO continues from has the numbers of the script's row, but for mixture and seed",
    ("sft", "OLMoE 0924 (v3.1 preview)"): "the recipe of that release is not confirmed",
    ("dpo", '8B "final best" mix'): "the parts of the published mixture that the row of Tülu 3 8B names",
    ("rm", "Tülu 3 8B RM, newer script"): "a later script; the released model is that of docs/tulu3.md",
    ("grpo", 'Tülu 3.1 8B "fast"'): "the same run with another trainer, which made no released model",
    ("grpo", "Tülu 3.1 code DPO/SFT"): "an experiment without a released model",
    ("grpo", "OLMo 2 7B/13B zero"): "an experiment without a released model",
    ("grpo", "OLMo 2 32B zero"): "an experiment without a released model",
}
"""Rows that no recipe follows."""
LEFT_OUT: Mapping[tuple[str, str], Mapping[float, str]] = {
    # (recipe, place): the numbers of its row that stand nowhere in the stage's lines
    ("olmo2-instruct", "rm"): {8: "the 13B's half of the cell", 32: "the 13B's half of the cell"},
    ("olmo2-instruct", "dpo"): {8: "the script's; released models continue from seed 9"},
    ("olmo2-32b", "dpo"): {9: "the template file lists one of the eight sets twice"},
    ("olmo2-13b", "dpo"): {1234: "the configuration's; released models continue from seeds 7 and 8"},
    ("olmo2-13b", "ppo mixed"): {4e-7: "the other rate of the loop", 0.03: "the stage after it"},
    ("olmo2-13b", "ppo gsm"): {4e-7: "the other rate of the loop"},
    ("olmo2-13b", "ppo math"): {4e-7: "the other rate of the loop"},
    ("olmoe-0125", "sft"): {256: "the second try, which no released model continues from"},
    ("olmoe-0125", "ppo"): {28: "the loop on four nodes, 7 × 4"},
    ("tulu3-405b", "ppo"): {640: "the text's, a copy of the 70B's; the command gives 1856"},
    ("olmo3-32b-think", "grpo"): {12: "8 learners on each of 12 nodes", 18: "nodes used", 28: "nodes listed"},
    ("olmo3-rl-zero-code", "grpo"): {13314: "rows of the general mix"},
    ("olmo3-rl-zero-if", "grpo"): {13314: "rows of the general mix"},
}
NOT_OF_A_RUN: Mapping[str, Mapping[float, str]] = {
    # Numbers around a table that are no hyper-parameters.
    "sft": {3: "Olmo 3"},
    "dpo": {2: "OLMo 2"},
    "ppo": {
        -1: "the code's default for a completion that did not stop, which every recipe overrides",
        2.6: "how much smaller steps would be with the other epsilon",
        3.1: "Tülu 3.1",
        26: "a date",
        2026: "a date",
    },
    "grpo": {2: "OLMo 2", 3: "Olmo 3"},
}
NOTES: Mapping[float, tuple[str, str]] = {
    # The notes below the table of §6: the number, and the stage that it belongs to.
    0: ("olmo3-32b-instruct", "sft"),
    0.03: ("olmo3-32b-instruct", "sft"),
    0.9: ("olmo3-32b-instruct", "sft"),
    0.95: ("olmo3-32b-instruct", "sft"),
    1: ("tulu3.1-8b", "rlvr"),
    1e-8: ("tulu3.1-8b", "rlvr"),
    8e-7: ("olmo2-instruct", "dpo"),
    32: ("tulu3-8b", "dpo"),
    42: ("tulu3-8b", "dpo"),
    100: ("tulu3-8b", "rlvr"),
    128: ("tulu3-8b", "dpo"),
    1024: ("tulu3-405b", "rlvr"),
    2048: ("tulu3-405b", "rlvr"),
    33333: ("olmo3-32b-instruct", "sft"),
    34521: ("olmo3-32b-instruct", "sft"),
    53184: ("olmo3-7b-think", "sft"),
    300_000: ("tulu3-405b", "rlvr"),
    400_000: ("tulu3-405b", "rlvr"),
}
COLUMNS: Mapping[str, Mapping[str, str]] = {
    # kind: field and the column of the row in which its number must stand
    "sft": {"learning_rate": "LR", "batch": "eff. batch", "epochs": "epochs", "max_length": "max len", "seed": "seed"},
    "dpo": {"learning_rate": "LR", "batch": "eff. batch", "max_length": "max len", "seed": "seed"},
    "rm": {"batch": "eff. batch", "max_length": "max len / prompt"},
    "ppo": {"learning_rate": "LR", "beta": "β", "batch": "eff. batch (episodes)", "max_tokens": "resp len"}
    | {"temperature": "T", "no_stop_score": "no-EOS penalty", "seed": "misc"},
    "grpo": {"learning_rate": "LR / sched", "beta": "β / KL", "prompts": "n samples × prompts"}
    | {"samples": "n samples × prompts", "minibatches": "mini-batches", "max_tokens": "resp / pack", "temperature": "T"},
}
NOT_IN_THE_TABLE = {
    ("tulu3-8b", "dpo", "seed"): "default 42, in the notes below §6",
    ("tulu3-70b", "dpo", "seed"): "default 42, in the notes below §6",
    ("tulu3-405b", "dpo", "seed"): "default 42, in the notes below §6",
    ("olmo3-7b-instruct", "dpo", "seed"): "`default`, which is 42",
    ("olmo3-7b-think", "dpo", "seed"): "`default`, which is 42",
    ("olmo3-7b-think", "sft", "seed"): "34521, in the notes below §6",
    ("olmo3-32b-think", "sft", "seed"): "34521, in the notes below §6",
    ("olmo2-13b", "sft", "seed"): "the row of the configuration has 1, that of the script 8",
    ("olmo3-7b-instruct", "sft", "seed"): "34521, in the notes below §6; the table has the init seed",
    ("olmo3-32b-instruct", "sft", "seed"): "34521, in the notes below §6; the table has the init seed",
}

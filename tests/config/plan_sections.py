"""Sections whose plans can be worked out on paper."""

from tulu.config.schema import Dpo, Rlvr, Rm, Sft, Source

DATA = (Source(name="a", fraction=1.0),)
SFT = Sft(data=DATA, max_length=64, batch=96, epochs=1, learning_rate=1e-4)
DPO = Dpo(data=DATA, max_length=64, batch=96, epochs=1, learning_rate=1e-6)
RM = Rm(data=DATA, max_length=64, batch=96, epochs=1, learning_rate=1e-6)
RLVR = Rlvr(
    data=DATA,
    prompts=12,
    samples=8,
    batch=96,
    minibatches=2,
    steps=5,
    learning_rate=1e-6,
    max_prompt=32,
    max_tokens=32,
    max_length=64,
)
ON_POLICY_SETS = (
    "wildchat_v3.9_used_on_policy_prompts",
    "wildchat_v3.9_unused_off_policy_prompts",
    "DaringAnteater-preferences",
    "uf_cleaned",
    "IF_Taxonomy",
    "sft_v3.9_used_off_policy_prompts",
    "sft_v3.9_used_on_policy_prompts",
    "Wildchat-prefs-280824",
)
"""What the on-policy preference sets of OLMo 2 32B and of OLMoE are called, before each adds its model."""
OLMO32 = [f"allenai/{name}-olmo32" for name in ON_POLICY_SETS]
"""The preference sets of OLMo 2 32B, which are published together."""

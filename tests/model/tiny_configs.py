"""Tiny configurations of transformers' own causal language models, and what makes a random one of them hard to get wrong."""

from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM

from tulu.data.chat import apply_template, make_byte_tokenizer

DENSE: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 128,
    "initializer_range": 0.2,
}
EXPERTS: dict[str, Any] = {
    **DENSE,
    "num_experts": 4,
    "num_local_experts": 4,
    "n_routed_experts": 4,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 24,
    "shared_expert_intermediate_size": 24,
    "n_shared_experts": 1,
    "n_group": 1,
    "topk_group": 1,
    "first_k_dense_replace": 1,
}
GPT: dict[str, Any] = {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 128, "initializer_range": 0.2}
MAMBA: dict[str, Any] = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "state_size": 8,
    "expand": 2,
    "n_groups": 1,
    "num_heads": 8,
    "head_dim": 8,
    "chunk_size": 8,
    "initializer_range": 0.2,
}
LATENT: dict[str, Any] = {
    "q_lora_rank": 16,
    "kv_lora_rank": 16,
    "qk_rope_head_dim": 8,
    "qk_nope_head_dim": 8,
    "v_head_dim": 8,
    "qk_head_dim": 16,
    "num_key_value_heads": 4,
}
DELTA: dict[str, Any] = {
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 2,
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 16,
}
CALM = {"initializer_range": 0.08}
"""Weights so small that a recurrence does not raise rounding above the tolerance."""
IN_MAMBA: dict[str, Any] = {
    "mamba_d_state": 8,
    "mamba_n_heads": 8,
    "mamba_d_head": 8,
    "mamba_n_groups": 1,
    "mamba_chunk_size": 8,
    "mamba_d_ssm": 64,
    "mamba_expand": 2,
}

CONFIGS: dict[str, dict[str, Any]] = {
    "llama": DENSE,
    "llama tied": {**DENSE, "tie_word_embeddings": True, "attention_bias": True},
    "mistral": DENSE,
    "olmo": DENSE,
    "olmo2": DENSE,
    "olmo3": {**DENSE, "sliding_window": 6},
    "qwen2": DENSE,
    "qwen3": {**DENSE, "tie_word_embeddings": True},
    "gemma": DENSE,
    "gemma2": {**DENSE, "query_pre_attn_scalar": 8, "sliding_window": 6},
    "gemma3_text": {**DENSE, "query_pre_attn_scalar": 8, "sliding_window": 6},
    "phi": DENSE,
    "phi3": {**DENSE, "pad_token_id": 0},
    "gpt2": GPT,
    "gpt_neox": DENSE,
    "gptj": {**GPT, "rotary_dim": 4},
    "opt": {**DENSE, "ffn_dim": 48, "word_embed_proj_dim": 16},
    "bloom": {"hidden_size": 32, "n_layer": 2, "n_head": 4, "initializer_range": 0.2},
    "mpt": {"d_model": 32, "n_layers": 2, "n_heads": 4, "expansion_ratio": 2, "max_seq_len": 128},
    "falcon": {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "initializer_range": 0.2, "alibi": False},
    "granite": {**DENSE, "logits_scaling": 4.0, "embedding_multiplier": 2.0, "residual_multiplier": 0.5},
    "cohere": {**DENSE, "logit_scale": 0.25},
    "cohere2": {**DENSE, "logit_scale": 0.25, "sliding_window": 6},
    "starcoder2": DENSE,
    "stablelm": DENSE,
    "smollm3": {**DENSE, "no_rope_layers": [1, 0]},
    "glm": DENSE,
    "glm4": DENSE,
    "exaone4": {**DENSE, "sliding_window": 6, "sliding_window_pattern": 2},
    "minicpm3": {**DENSE, **LATENT, **CALM},
    "olmoe": EXPERTS,
    "mixtral": EXPERTS,
    "qwen2_moe": EXPERTS,
    "qwen3_moe": EXPERTS,
    "deepseek_v2": {**EXPERTS, **LATENT},
    "deepseek_v3": {**EXPERTS, **LATENT},
    "glm4_moe": EXPERTS,
    "granitemoe": {**EXPERTS, "logits_scaling": 4.0},
    "gpt_oss": {**EXPERTS, "sliding_window": 6},
    "phimoe": EXPERTS,
    "jetmoe": {**EXPERTS, "kv_channels": 8, "num_key_value_heads": 2},
    "ernie4_5_moe": {**EXPERTS, "moe_num_experts": 4, "moe_k": 2, "moe_layer_start_index": 1},
    "hunyuan_v1_moe": {**EXPERTS, "moe_topk": 2},
    "llama4_text": {**EXPERTS, "intermediate_size_mlp": 48},
    "mamba": MAMBA,
    "mamba2": MAMBA,
    "falcon_mamba": MAMBA,
    "jamba": {**EXPERTS, "num_hidden_layers": 4, "attn_layer_period": 2, "attn_layer_offset": 1, "use_mamba_kernels": False},
    "bamba": {**DENSE, **IN_MAMBA, "attn_layer_indices": [1]},
    "zamba2": {
        **DENSE,
        **IN_MAMBA,
        "num_hidden_layers": 4,
        "layer_types": ["mamba", "hybrid"] * 2,
        "hybrid_layer_ids": [1, 3],
        "mamba_ngroups": 1,
        "n_mamba_heads": 8,
        "chunk_size": 8,
    },
    "falcon_h1": {**DENSE, **IN_MAMBA, "lm_head_multiplier": 0.5},
    "granitemoehybrid": {**EXPERTS, **IN_MAMBA, "layer_types": ["mamba", "attention"]},
    "nemotron_h": {
        **EXPERTS,
        "hybrid_override_pattern": "M*-E",
        "mamba_num_heads": 8,
        "mamba_head_dim": 8,
        "ssm_state_size": 8,
        "n_groups": 1,
        "chunk_size": 8,
    },
    "qwen3_next": {**EXPERTS, **DELTA, **CALM, "num_hidden_layers": 4},
    "qwen3_5_text": {**DENSE, **DELTA, **CALM, "num_hidden_layers": 4},
    "olmo_hybrid": {**DENSE, **DELTA, **CALM, "num_hidden_layers": 4},
    "lfm2": {**DENSE, "num_hidden_layers": 2, "layer_types": ["conv", "full_attention"], "block_ff_dim": 48},
    "recurrent_gemma": {**DENSE, "num_hidden_layers": 3, "lru_width": 32, "attention_window_size": 8},
    "rwkv": {"hidden_size": 32, "num_hidden_layers": 2, "attention_hidden_size": 32, "context_length": 128},
}
"""By architecture, and what stands behind it, the fields of a tiny configuration."""


def build(name: str, folder: Path) -> Path:
    """Write a random model of an architecture with the byte tokenizer, and return its folder."""
    tokenizer = make_byte_tokenizer()
    special = {f"{kind}_token_id": getattr(tokenizer, f"{kind}_token_id") for kind in ("bos", "eos", "pad")}
    config = AutoConfig.for_model(name.split()[0], **{**CONFIGS[name], **special, "vocab_size": len(tokenizer)})
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
        unsettle(model)
    apply_template(tokenizer, "tulu")
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@torch.no_grad()
def unsettle(model: nn.Module) -> None:
    """Move every weight that a new model begins with at 0 or 1, buffers too, so that one which is forgotten is noticed."""
    for tensor in model.state_dict(keep_vars=True).values():
        if tensor.is_floating_point() and ((tensor == 0) | (tensor == 1)).all():
            tensor += 0.1 * torch.rand(tensor.shape)

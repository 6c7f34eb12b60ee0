"""Tiny models of transformers' own architectures, each with a feature that depends on the row or on the position."""

from typing import Any

import torch
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM

from tulu.model.batch import Batch, documents
from tulu.model.trunk import Trunk

COMMON = {
    "vocab_size": 256,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "num_hidden_layers": 2,
    "max_position_embeddings": 512,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
WINDOW = {"sliding_window": 64}
"""Longer than the documents that a model is measured on, and shorter than the longest of `GROUPS` in test_self_check.py."""
LONG: dict[str, Any] = {
    "max_position_embeddings": 64,
    "original_max_position_embeddings": 24,
    "rope_scaling": {
        "rope_type": "longrope",
        "short_factor": [1.0, 1.1, 1.2, 1.3],
        "long_factor": [2.0, 4.0, 8.0, 16.0],
        "original_max_position_embeddings": 24,
    },
}
MSCALE = {"short_mscale": 1.0, "long_mscale": 1.2}
LATENT = {
    "num_key_value_heads": 4,
    "kv_lora_rank": 16,
    "q_lora_rank": 16,
    "qk_rope_head_dim": 8,
    "qk_nope_head_dim": 8,
    "v_head_dim": 8,
}
EXPERTS = {"n_routed_experts": 4, "num_experts_per_tok": 2, "n_group": 1, "topk_group": 1, "moe_intermediate_size": 16}
CAPPED = {"head_dim": 8, **WINDOW, "attn_logit_softcapping": 5.0, "final_logit_softcapping": None}

ARCHITECTURES: dict[str, tuple[str, str, dict[str, Any]]] = {
    "LongRoPE": ("packed", "phi3", LONG),
    "dynamic NTK": (
        "packed",
        "llama",
        {"max_position_embeddings": 24, "rope_scaling": {"rope_type": "dynamic", "factor": 4.0}},
    ),
    "YaRN": (
        "packed",
        "llama",
        {
            "max_position_embeddings": 96,
            "rope_scaling": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 24},
        },
    ),
    "soft cap and windows": ("packed", "gemma2", CAPPED),
    "two rotary embeddings": ("packed", "gemma3_text", {"head_dim": 8, **WINDOW, "num_hidden_layers": 6}),
    "sinks and windows": ("packed", "gpt_oss", {"head_dim": 8, **WINDOW, "num_local_experts": 4, "num_experts_per_tok": 2}),
    "windows in some layers": ("packed", "olmo3", {**WINDOW, "num_hidden_layers": 4}),
    "a window": ("packed", "mistral", WINDOW),
    "latent attention": ("packed", "deepseek_v3", {**LATENT, **EXPERTS, "first_k_dense_replace": 1}),
    "learned positions": ("packed", "gpt2", {"n_embd": 32, "n_head": 4, "n_layer": 2}),
    "output that is viewed": ("packed", "jetmoe", {"kv_channels": 8, "num_local_experts": 4}),
    # Its window is in the mask alone.
    "a window of the mask": ("padded", "phimoe", {**WINDOW, "num_local_experts": 4}),
    "LongRoPE and a window of the mask": (
        "padded",
        "phimoe",
        {**LONG, **WINDOW, "rope_scaling": {**LONG["rope_scaling"], **MSCALE}, "num_local_experts": 4},
    ),
    # Its chunks are in the mask alone, and its temperature counts the tokens of the row.
    "chunks": (
        "padded",
        "llama4_text",
        {"head_dim": 8, "attention_chunk_size": 64, "num_hidden_layers": 4, "num_local_experts": 2, "intermediate_size_mlp": 48},
    ),
    "ALiBi of Bloom": ("padded", "bloom", {"n_head": 4, "n_layer": 2}),
    "ALiBi of MPT": ("padded", "mpt", {"d_model": 32, "n_heads": 4, "n_layers": 2}),
    "ALiBi of Falcon": ("padded", "falcon", {"alibi": True}),
    "recurrent layers": (
        "padded",
        "qwen3_next",
        {
            "head_dim": 8,
            "num_hidden_layers": 4,
            "linear_num_key_heads": 2,
            "linear_num_value_heads": 2,
            "linear_key_head_dim": 8,
            "linear_value_head_dim": 8,
            "num_experts": 4,
            "num_experts_per_tok": 2,
            "moe_intermediate_size": 16,
            "shared_expert_intermediate_size": 16,
        },
    ),
    "no keyword arguments": ("padded", "stablelm", {}),
    # It attends to the best keys of the whole row, padding included.
    "sparse attention": (
        "single",
        "deepseek_v32",
        {**LATENT, **EXPERTS, "first_k_dense_replace": 1, "index_topk": 64, "index_n_heads": 2, "index_head_dim": 16},
    ),
}
"""By feature: how its models are read, a model type that has it, and the fields of a tiny one."""


def make(feature: str, dtype: torch.dtype = torch.float32, **fields: Any) -> Any:
    """A random model with a feature; the same arguments give the same weights."""
    _, model_type, config = ARCHITECTURES[feature]
    settings = AutoConfig.for_model(model_type, **{**COMMON, **config, **fields})
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(settings, dtype=torch.float32).eval()
        for name, parameter in model.named_parameters():
            # Large weights, so that a mistake shows; sinks of zero would say little.
            if parameter.dim() > 1 or "sinks" in name:
                torch.nn.init.normal_(parameter, std=0.15 if parameter.dim() > 1 else 1.0)
    return model.to(dtype)


def logps(model: Any, trunk: Trunk, batch: Batch) -> Tensor:
    """(N,) log-probs of a batch's trained tokens."""
    return _logps(model, trunk(batch), batch.target_N)


def plain_logps(plain: Any, batch: Batch) -> Tensor:
    """The oracle: the same by transformers' own eager attention, each document alone."""
    plain.set_attn_implementation("eager")
    found = []
    for number, (segment, tokens_T) in enumerate(zip(batch.completions, documents(batch), strict=True)):
        inner = Trunk(plain).model
        # Dynamic scaling remembers the longest row, until it reads a short one.
        inner(input_ids=tokens_T[None, :1], use_cache=False)
        hidden_TH = inner(input_ids=tokens_T[None], use_cache=False).last_hidden_state[0]
        own_N = batch.owner_N == number
        places_N = batch.place_N[own_N] + segment.prefix_length - 1
        found.append(_logps(plain, hidden_TH[places_N], batch.target_N[own_N]))
    return torch.cat(found)


def _logps(model: Any, hidden_NH: Tensor, target_N: Tensor) -> Tensor:
    logits_NV = model.get_output_embeddings()(hidden_NH).float()
    return torch.log_softmax(logits_NV, dim=-1).gather(1, target_N[:, None])[:, 0]

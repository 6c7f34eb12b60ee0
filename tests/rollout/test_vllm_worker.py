"""What vLLM is given on a CPU: no more memory for keys and values than the rows that it decodes together can fill."""

from collections.abc import Callable
from pathlib import Path

from transformers import AutoConfig

from tulu.rollout.engine import EngineSpec
from tulu.rollout.vllm_worker import CPU_ROWS, cache_needed


def spec(folder: Path, length: int, cache_bytes: int = 2 << 30) -> EngineSpec:
    return EngineSpec(str(folder), length, "bf16", cache_bytes=cache_bytes)


def test_a_small_model_gets_what_its_rows_can_fill_and_a_large_one_what_may_be_taken(tiny_model: Callable[..., Path]) -> None:
    """2 layers, keys and values, 2 heads of 16 numbers of 2 bytes: 256 bytes a token; 300 tokens take two blocks of 256."""
    folder = tiny_model(
        "olmo2", num_hidden_layers=2, hidden_size=64, num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=512
    )
    config = AutoConfig.from_pretrained(folder)
    assert cache_needed(spec(folder, 300), config) == CPU_ROWS * 512 * 256
    assert cache_needed(spec(folder, 300, cache_bytes=1 << 20), config) == 1 << 20


def test_what_recurrent_layers_keep_is_not_guessed(tiny_model: Callable[..., Path]) -> None:
    folder = tiny_model("olmo_hybrid")
    assert cache_needed(spec(folder, 64), AutoConfig.from_pretrained(folder)) == 2 << 30

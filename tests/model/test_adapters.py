"""Adapters go where they act as they should, and a target that cannot have one is refused by name."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoConfig, AutoModelForCausalLM

from tests.model.policies import LORA
from tests.model.tiny_configs import CONFIGS
from tests.samples import make_stage
from tulu.errors import RecipeError
from tulu.model.adapters import add_adapters
from tulu.model.fully_sharded import shard
from tulu.model.load import load_model
from tulu.model.parallel import Parallel


def adapted(name: str, **lora: Any) -> set[str]:
    """The modules of a tiny model that get an adapter, by the last part of their name."""
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(name, **CONFIGS[name], vocab_size=32))
    wrapped: Any = add_adapters(model, LORA.model_copy(update=lora))
    inner = wrapped.get_base_model()
    return {path.rpartition(".")[2] for path, module in inner.named_modules() if hasattr(module, "lora_A")}


def test_all_linear_is_every_linear_layer_but_the_head() -> None:
    assert adapted("llama") == {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}
    assert adapted("gpt2") == {"c_attn", "c_proj", "c_fc"}


def test_of_mamba_only_what_a_kernel_does_not_read_past_its_adapter() -> None:
    assert adapted("mamba2") == {"in_proj"}
    assert adapted("falcon_mamba") == {"in_proj"}
    hybrid = adapted("bamba")
    assert "out_proj" not in hybrid
    assert "o_proj" in hybrid


def test_a_router_that_is_called_linear_gets_none() -> None:
    found = adapted("phimoe")
    assert "router" not in found
    assert "q_proj" in found


def test_linear_layers_of_an_architectures_own_get_one() -> None:
    assert "query_key_value" in adapted("falcon")


@pytest.mark.parametrize(
    ("name", "lora", "message"),
    [
        ("llama", {"targets": ("q_proj", "w_pack")}, "LlamaForCausalLM has no w_pack\nIts linear layers: down_proj, gate_proj"),
        ("llama", {"targets": ("lm_head",)}, "lm_head takes no adapter"),
        ("bamba", {"targets": ("out_proj",)}, "out_proj of BambaForCausalLM takes no adapter"),
        ("opt", {"targets": ("q_proj", "embed_positions")}, "embed_positions of OPTForCausalLM takes no adapter"),
        ("olmoe", {"dropout": 0.1}, "Set lora.dropout to 0, or name other modules in lora.targets"),
    ],
)
def test_a_target_without_effect_is_refused(name: str, lora: dict[str, Any], message: str) -> None:
    with pytest.raises(RecipeError, match="lora") as found:
        adapted(name, **lora)
    assert message in str(found.value)


def test_experts_can_be_left_out_so_that_the_others_drop_out() -> None:
    assert adapted("olmoe", dropout=0.1, targets=("q_proj", "v_proj")) == {"q_proj", "v_proj"}


def test_adapters_of_experts_that_are_sharded_are_refused(tiny_model: Callable[..., Path]) -> None:
    model = AutoModelForCausalLM.from_pretrained(tiny_model("olmoe"))
    experts: Any = model.model.layers[1].mlp.experts
    # What DeepSpeed marks its shards with.
    experts.down_proj.ds_id = 7
    with pytest.raises(RecipeError, match="cannot be trained with sharding: zero3\nSet sharding: zero2"):
        add_adapters(model, LORA)
    adapted = add_adapters(AutoModelForCausalLM.from_pretrained(tiny_model("olmoe")), LORA)
    # FSDP2 shards them later, and refuses before it connects anything.
    with pytest.raises(RecipeError, match="cannot be trained with sharding: fsdp2\nSet sharding: zero2"):
        shard(adapted, Parallel(make_stage()), "fp32")


def test_the_same_adapters_every_time(tiny_model: Callable[..., Path]) -> None:
    first, second = (load_model(AutoModelForCausalLM, tiny_model("llama"), trainable=True, lora=LORA) for _ in range(2))
    own = {name: parameter for name, parameter in first.named_parameters() if "lora_A" in name}
    assert own
    assert all(parameter.equal(second.get_parameter(name)) for name, parameter in own.items())

"""What this framework touches of other libraries' private state is still there, and stands in one file."""

import ast
import importlib
import inspect
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from tulu.model import private_state

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = ("config", "data", "model", "train", "grading", "rollout", "evaluation", "stages", "commands")
LIBRARIES = ("accelerate", "transformers", "deepspeed", "peft", "codecarbon")


def test_accelerate_forgets_its_settings() -> None:
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState

    Accelerator(cpu=True)
    assert AcceleratorState._shared_state
    private_state.reset_accelerate()
    assert not AcceleratorState._shared_state


def test_accelerate_keeps_a_deepspeed_engine_that_takes_the_last_micro_batch() -> None:
    from accelerate import Accelerator
    from accelerate.utils.deepspeed import DeepSpeedEngineWrapper
    from deepspeed.runtime.engine import DeepSpeedEngine

    engine = object()
    wrapper = DeepSpeedEngineWrapper(engine)
    assert private_state.deepspeed_engine(SimpleNamespace(deepspeed_engine_wrapped=wrapper)) is engine
    assert "self.deepspeed_engine_wrapped = DeepSpeedEngineWrapper(engine)" in inspect.getsource(Accelerator)
    assert "is_boundary" in inspect.signature(DeepSpeedEngine.set_gradient_accumulation_boundary).parameters
    for method in ("backward", "step", "get_global_grad_norm"):
        assert callable(getattr(DeepSpeedEngine, method))


def test_deepspeed_builds_nothing_for_processes_of_a_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    from deepspeed import ops
    from deepspeed.ops.op_builder.cpu import ShareMemCommBuilder

    def build(_: object, **__: object) -> None:
        raise AssertionError("it was to be built")

    comm = importlib.import_module("deepspeed.comm.torch")
    monkeypatch.setattr(ShareMemCommBuilder, "load", build)
    monkeypatch.setattr(comm, "get_accelerator", lambda: SimpleNamespace(create_op_builder=lambda _: ShareMemCommBuilder()))
    monkeypatch.setitem(vars(ops), "__compatible_ops__", {ShareMemCommBuilder.NAME: True})
    with pytest.raises(AssertionError, match="to be built"):
        comm.build_shm_op()
    private_state.build_nothing()
    assert comm.build_shm_op() is None


def test_transformers_keeps_its_own_attention_in_the_file_of_its_layers() -> None:
    from transformers.models.gemma2 import modeling_gemma2
    from transformers.models.gpt_oss.modeling_gpt_oss import GptOssForCausalLM

    layer = object.__new__(modeling_gemma2.Gemma2Attention)
    assert private_state.eager_attention_of(layer) is modeling_gemma2.eager_attention_forward
    assert private_state.eager_attention_of(torch.nn.Linear(1, 1)) is None
    assert private_state.supports_sdpa(modeling_gemma2.Gemma2ForCausalLM)
    assert not private_state.supports_sdpa(GptOssForCausalLM)


def test_layers_apply_the_rotary_embedding_of_their_file() -> None:
    from transformers.models.llama import modeling_llama

    own = private_state.rotary_of(modeling_llama.__name__)
    assert own is modeling_llama.apply_rotary_pos_emb
    assert private_state.rotary_of("torch.nn.modules.linear") is None
    sizes: dict[str, Any] = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = modeling_llama.LlamaConfig(vocab_size=9, **sizes)
    model = modeling_llama.LlamaModel(config)
    calls: list[Any] = []

    def counted(*arguments: Any, **options: Any) -> Any:
        calls.append(arguments)
        return own(*arguments, **options)

    private_state.set_rotary(modeling_llama.__name__, counted)
    try:
        model(input_ids=torch.arange(4)[None])
    finally:
        private_state.set_rotary(modeling_llama.__name__, own)
    assert len(calls) == 1
    query, key, cosines, sines = calls[0]
    assert (query.shape, key.shape, cosines.shape, sines.shape) == ((1, 2, 4, 4), (1, 2, 4, 4), (1, 4, 4), (1, 4, 4))


def test_torch_limits_how_often_a_function_is_compiled() -> None:
    import torch._dynamo.config

    before = torch._dynamo.config.recompile_limit
    assert before == 8
    private_state.allow_recompilations(4)
    assert torch._dynamo.config.recompile_limit == before
    try:
        private_state.allow_recompilations(64)
        assert torch._dynamo.config.recompile_limit == 64
    finally:
        torch._dynamo.config.recompile_limit = before


def test_transformers_asks_for_the_settings_of_zero_3_that_we_swap() -> None:
    from transformers.integrations import HfDeepSpeedConfig, is_deepspeed_zero3_enabled

    before = private_state.swap_zero3_settings(None)
    settings = HfDeepSpeedConfig({"zero_optimization": {"stage": 3}})
    assert is_deepspeed_zero3_enabled()
    reference = private_state.swap_zero3_settings(before)
    assert reference() is settings
    assert not is_deepspeed_zero3_enabled()


def test_deepspeed_marks_its_shards_as_we_read_them() -> None:
    from deepspeed.runtime.zero.utils import is_zero_param

    parameter: Any = torch.nn.Parameter(torch.zeros(1))
    assert not is_zero_param(parameter)
    assert not private_state.is_sharded(parameter)
    parameter.ds_id = 1
    assert is_zero_param(parameter)
    assert private_state.is_sharded(parameter)


def test_a_shard_of_deepspeed_can_be_cast(tiny_model: Callable[..., Path]) -> None:
    """That DeepSpeed computes with what was cast is in tests/ranks/."""
    parameter: Any = torch.nn.Parameter(torch.empty(0))
    assert private_state.shard_of(parameter).data_ptr() == parameter.data_ptr()
    parameter.ds_tensor = torch.tensor([1.0001])
    before = private_state.cast_shard(parameter, torch.bfloat16)
    assert before.item() == torch.tensor(1.0001).item()
    assert private_state.shard_of(parameter).item() == 1.0
    assert parameter.dtype == parameter.ds_tensor.dtype == torch.bfloat16


def test_transformers_says_what_stays_in_float32_and_what_is_a_layer(tiny_model: Callable[..., Path]) -> None:
    model = AutoModelForCausalLM.from_pretrained(tiny_model("qwen3"))
    assert private_state.layer_classes(torch.nn.ModuleList([model])) == {"Qwen3DecoderLayer"}
    names = [name for name, _ in model.named_parameters()]
    assert not any(map(private_state.stays_float32(model, torch.bfloat16), names))
    model._keep_in_fp32_modules_strict, model._keep_in_fp32_modules = {"q_norm"}, {"k_norm"}
    for dtype, kept in ((torch.bfloat16, {"q_norm"}), (torch.float16, {"q_norm", "k_norm"})):
        stays = private_state.stays_float32(model, dtype)
        assert {name.split(".")[-2] for name in names if stays(name)} == kept


def test_transformers_names_a_model_s_attention(tiny_model: Callable[..., Path]) -> None:
    for name in ("eager", "sdpa"):
        model = AutoModelForCausalLM.from_pretrained(tiny_model("llama"), attn_implementation=name)
        assert private_state.attention_of(model) == name
    model.set_attn_implementation("eager")
    assert private_state.attention_of(model) == "eager"


def test_transformers_takes_fused_experts_apart(tiny_model: Callable[..., Path]) -> None:
    from safetensors.torch import load_file

    folder = tiny_model("olmoe")
    model = AutoModelForCausalLM.from_pretrained(folder)
    fused = {name: parameter.detach() for name, parameter in model.named_parameters()}
    published = load_file(folder / "model.safetensors")
    assert fused.keys() != published.keys(), "experts are fused when they are loaded"
    found = private_state.to_published_weights(model, fused)
    assert found.keys() == published.keys()
    assert all(torch.equal(found[name], published[name]) for name in published)


def test_codecarbon_describes_the_hardware_that_it_adds_up() -> None:
    from codecarbon import OfflineEmissionsTracker

    tracker = OfflineEmissionsTracker(country_iso_code="USA", save_to_file=False, allow_multiple_runs=True, log_level="critical")
    tracker.start()
    tracker.stop()
    sources = private_state.energy_sources(tracker)
    assert any(source.startswith("CPU(") for source in sources), sources


@pytest.mark.parametrize("folder", FOLDERS)
def test_no_other_file_touches_private_state(folder: str) -> None:
    """No file names a `_field` of an object that is not its own, nor imports a `_name` of a library."""
    for path in sorted((ROOT / "tulu" / folder).glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            where = f"{path.relative_to(ROOT)}:{getattr(node, 'lineno', 0)}"
            if isinstance(node, ast.Attribute) and path.name != "private_state.py":
                own = isinstance(node.value, ast.Name) and node.value.id in ("self", "cls")
                own = own or ast.unparse(node) == "os._exit"  # It is documented, whatever its name looks like.
                assert own or not node.attr.startswith("_") or node.attr.startswith("__"), f"{where}: {ast.unparse(node)}"
            elif isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] in LIBRARIES:
                private = [name.name for name in node.names if name.name.startswith("_")]
                assert not private, f"{where}: {private}"


def test_transformers_puts_something_else_where_it_loaded_a_weight(tiny_model: Callable[..., Path], tmp_path: Path) -> None:
    """As the file has it, in its dtype, one after the other; buffers are those of the model all the same."""
    plain: Any = AutoModelForCausalLM.from_pretrained(tiny_model("olmoe"))
    plain.to(torch.bfloat16).save_pretrained(tmp_path)
    given: list[tuple[torch.dtype, torch.dtype]] = []

    def halved(parameter: torch.nn.Parameter, dtype: torch.dtype) -> torch.nn.Parameter:
        given.append((parameter.dtype, dtype))
        return torch.nn.Parameter(parameter.detach().to(dtype) / 2)

    with private_state.replace_as_loaded(halved, torch.float32):
        found = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32)
    assert given == [(torch.bfloat16, torch.float32)] * len(list(plain.parameters()))
    expected = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32)
    for name, parameter in expected.named_parameters():
        assert torch.equal(found.get_parameter(name), parameter / 2), name
    for name, buffer in expected.named_buffers():
        assert torch.equal(found.get_buffer(name), buffer), name

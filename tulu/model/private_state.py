"""The private state of other libraries that this framework touches, all of it in this one file.

No library promises to keep what stands here, so a new version may move it: tests/model/test_private_state.py fails then.
Each function says why the public interface does not do. The libraries are imported where they are used, so that this
file is as light as what imports it.
"""

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any


def reset_accelerate() -> None:
    """Forget the settings of accelerate's last Accelerator, such as its precision; the processes stay connected.

    accelerate keeps them for the life of a process, and one process runs the stages of a recipe one after the other, each
    with settings of its own.
    """
    from accelerate.state import AcceleratorState

    AcceleratorState._reset_state()


def deepspeed_engine(accelerator: Any) -> Any:
    """The DeepSpeed engine inside an Accelerator.

    `Accelerator.backward` counts micro-batches by itself to know the last one of a step, and steps as soon as it has gone
    backward through it. Here steps differ in their number of micro-batches, the caller knows the last one, and the loss is
    looked at before the step is taken.
    """
    return accelerator.deepspeed_engine_wrapped.engine


def build_nothing() -> None:
    """Let DeepSpeed compile nothing for a CPU.

    As it connects its processes it would ask a compiler, in each of them, which of all its kernels could be built here, and build
    one that adds up over the processes of a machine. That takes a minute, needs a compiler, and only its inference engine calls
    it. No setting of it says so.
    """
    from deepspeed import ops

    vars(ops)["__compatible_ops__"] = {}


def clip_zero_groups(engine: Any, largest: Sequence[float | None]) -> float:
    """Scale down the gradients of each group of the optimizer's parameters to a largest norm of its own, before a DeepSpeed step.

    Returns the norm of all of them as it was. DeepSpeed itself clips by that one alone.
    """
    lists = _zero_gradients(engine.optimizer)
    squares: dict[int, Any] = {}
    for group, _, norm in lists:
        squares[group] = squares.get(group, 0.0) + norm**2
    for group, gradients, _ in lists:
        limit = largest[group]
        if limit is not None:
            factor = (limit / (squares[group] ** 0.5 + 1e-6)).clamp(max=1.0)
            for gradient in gradients:
                gradient.mul_(factor.to(gradient.device))
    return float(sum(squares.values()) ** 0.5)


@contextmanager
def passing_over(engine: Any, refuses: Callable[[float], bool]) -> Iterator[None]:
    """While the context lasts, a step of a DeepSpeed engine leaves weights and moments alone where `refuses(norm)` says so.

    DeepSpeed knows the norm of the gradients before it lets the optimizer that it was given step, once for each group of
    parameters. That call is passed over; DeepSpeed's own part of the step, such as clearing gradients, goes on.
    """
    outer = engine.optimizer
    inner = outer.optimizer
    answers: list[bool] = []

    def step(*args: Any, **kwargs: Any) -> Any:
        if not answers:
            answers.append(refuses(float(outer._global_grad_norm)))
        return None if answers[0] else type(inner).step(inner, *args, **kwargs)

    inner.step = step
    try:
        yield
    finally:
        del inner.step


def _zero_gradients(optimizer: Any) -> list[tuple[int, Sequence[Any], Any]]:
    """The lists in which DeepSpeed keeps this process's gradients: (group of parameters, gradients, norm over all processes)."""
    import torch

    if hasattr(optimizer, "fp32_groups_gradients"):
        # ZeRO-1 in bfloat16, under which every process has whole gradients.
        whole = enumerate(optimizer.fp32_groups_gradients)
        return [(group, gradients, torch.nn.utils.get_total_norm(gradients)) for group, gradients in whole]
    if hasattr(optimizer, "sub_group_to_group_id"):
        # ZeRO-3, which cuts a large group into several lists.
        group_of, parameters = optimizer.sub_group_to_group_id, optimizer.fp16_groups
    else:
        parameters = optimizer.params_in_partition
        group_of = {group: group for group in range(len(parameters))}
    lists = []
    for number, group in group_of.items():
        gradients = optimizer.averaged_gradients[number]
        # In float16 the gradients are still multiplied by the scale of the loss.
        norm = optimizer.get_grad_norm_direct(gradients, parameters[number]) / optimizer.loss_scale
        lists.append((group, gradients, norm))
    return lists


def swap_zero3_settings(settings: Any) -> Any:
    """Make `settings` the ZeRO-3 settings by which transformers shards every model that it loads; returns those before.

    None stands for loading whole. transformers can forget its settings, but cannot say what they were.
    """
    from transformers.integrations import deepspeed

    before = deepspeed._hf_deepspeed_config_weak_ref
    deepspeed._hf_deepspeed_config_weak_ref = settings
    return before


@contextmanager
def replace_as_loaded(replace: Callable[[Any, Any], Any], dtype: Any) -> Iterator[None]:
    """While the context lasts, transformers puts `replace(parameter, dtype)` into a model where it loaded a parameter.

    `dtype` is that of the model. The parameter comes as the file has it, and not read yet where the file could be mapped: one
    after the other, and not turned into another dtype, which would read all of it. transformers itself spreads weights only
    by its own plan of FSDP2, which knows nothing of adapters or of weights that are computed with before training.
    """
    from transformers import core_model_loading

    names = vars(core_model_loading)
    read, put = names["spawn_materialize"], names["set_param_for_module"]

    def read_later(pool: Any, tensor: Any, device: Any = None, dtype: Any = None, **options: Any) -> Any:
        return read(None, tensor, None, None, **options)

    def put_replaced(model: Any, target: str, value: Any, *rest: Any, **options: Any) -> None:
        import torch

        path, _, name = target.rpartition(".")
        module = model.get_submodule(path)
        planned = getattr(module, name, None)
        own = planned.dtype if torch.is_tensor(planned) else None
        if own == dtype and stays_float32(model, dtype)(target):
            own = torch.float32
        if name in module._buffers and own is not None:
            value = value.to(own, copy=True)
        put(model, target, value, *rest, **options)
        loaded = module._parameters.get(name)
        if loaded is not None and loaded is not planned:
            module._parameters[name] = replaced = replace(loaded, own)
            # What has it not, transformers fills with random numbers, which a few architectures make of the weights themselves.
            replaced._is_hf_initialized = True
            held = [tensor for tensor in (*module._parameters.values(), *module._buffers.values()) if tensor is not None]
            module._is_hf_initialized = all(getattr(tensor, "_is_hf_initialized", False) for tensor in held)

    names |= {"spawn_materialize": read_later, "set_param_for_module": put_replaced}
    try:
        yield
    finally:
        names |= {"spawn_materialize": read, "set_param_for_module": put}


def is_sharded(parameter: Any) -> bool:
    """Whether ZeRO-3 holds only a shard of the parameter in this process. DeepSpeed itself is not imported to find out."""
    return hasattr(parameter, "ds_id")


def shard_of(parameter: Any) -> Any:
    """What this process holds of a parameter: its shard under ZeRO-3 and FSDP2, and the whole elsewhere."""
    held = getattr(parameter, "ds_tensor", parameter).detach()
    return held.to_local() if hasattr(held, "to_local") else held


def cast_shard(parameter: Any, dtype: Any) -> Any:
    """Turn a parameter that ZeRO-3 sharded into another dtype; returns the shard of this process in the dtype before.

    DeepSpeed takes the dtype of sharded weights from the settings under which they are loaded, and has no way to change it.
    """
    before = parameter.ds_tensor.detach().clone()
    parameter.ds_tensor.data = parameter.ds_tensor.data.to(dtype)
    parameter.data = parameter.data.to(dtype)
    return before


def stays_float32(module: Any, dtype: Any) -> Callable[[str], bool]:
    """Whether transformers keeps the weight of that name in float32 in a model of 16 bits, as it does when it loads one."""
    import torch
    from transformers import PreTrainedModel

    kept: set[str] = set()
    for model in module.modules():
        if isinstance(model, PreTrainedModel):
            kept |= set(model._keep_in_fp32_modules_strict or ())
            kept |= set(model._keep_in_fp32_modules or ()) if dtype == torch.float16 else set()
    # A name of several parts, such as `gate.bias`, stands for a stretch of the whole name.
    return lambda name: any(f".{part}." in f".{name}." for part in kept)


def layer_classes(module: Any) -> set[str]:
    """The names of the classes of layers in the transformers models of a module."""
    from transformers import PreTrainedModel

    return {name for model in module.modules() if isinstance(model, PreTrainedModel) for name in model._no_split_modules or ()}


def whole_shape(parameter: Any) -> tuple[int, ...]:
    """The shape of a parameter with all its entries. DeepSpeed keeps it in the parameter, whose own shape is empty then."""
    return tuple(getattr(parameter, "ds_shape", parameter.shape))


def allow_recompilations(number: int) -> None:
    """Let torch.compile compile a function that often; beyond its limit, 8, it would run the function as it is, in silence."""
    import torch._dynamo.config

    torch._dynamo.config.recompile_limit = max(number, torch._dynamo.config.recompile_limit)


def attention_of(model: Any) -> str:
    """The name of the attention implementation of a transformers model, which has a public setter and no public reader."""
    return str(model.config._attn_implementation)


def eager_attention_of(layer: Any) -> Any:
    """The attention of a transformers layer as its architecture defines it, a function; None where there is none.

    Every architecture keeps it under one name in the file of its layers, and no public interface hands it out.
    """
    return vars(sys.modules[type(layer).__module__]).get("eager_attention_forward")


def rotary_of(file: str) -> Any:
    """The rotary embedding that the layers of a file of transformers apply, a function; None where there is none.

    Layers call it by its name in their file, and no public interface hands it out or takes another.
    """
    return vars(sys.modules[file]).get("apply_rotary_pos_emb")


def set_rotary(file: str, function: Any) -> None:
    """Let the layers of a file of transformers apply another rotary embedding."""
    vars(sys.modules[file])["apply_rotary_pos_emb"] = function


def supports_sdpa(model: Any) -> bool:
    """Whether torch's attention kernels compute what the architecture defines, as far as transformers knows.

    Asking for them where they do not raises an error, after which it is too late to keep what was there before.
    """
    return bool(model._supports_sdpa)


def to_published_weights(model: Any, weights: dict[str, Any]) -> dict[str, Any]:
    """Weights under the names and shapes of the published checkpoint, such as one matrix for each expert.

    transformers fuses and renames weights when it loads a model, and publishes the way back only inside `save_pretrained`.
    """
    from transformers.core_model_loading import revert_weight_conversion

    return dict(revert_weight_conversion(model, weights))


def ignored_at_loading(model: Any) -> str:
    """A pattern of the weights of a checkpoint that transformers leaves out silently when it loads a model, or an empty one.

    Among them are layers that predict further tokens, of which it has no implementation, and buffers of old versions. They
    are named in attributes of each class alone.
    """
    patterns = [*(model._keys_to_ignore_on_load_unexpected or ()), r"rotary_emb\.inv_freq", r"(^|\.)position_ids$"]
    return "|".join(f"({pattern})" for pattern in patterns)


def energy_sources(tracker: Any) -> list[str]:
    """A description of every part of the machine whose energy a codecarbon tracker adds up, such as `CPU(Xeon …)`.

    Its public list of the hardware does not say which parts are measured and which are estimated.
    """
    return [repr(part) for part in tracker._hardware]


def set_timeout(options: Any, timeout: timedelta) -> None:
    """Set how long a process group of NCCL waits, which its options take under no other name (torch's own init_process_group)."""
    options._timeout = timeout

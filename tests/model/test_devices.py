"""Devices other than CUDA and the CPU, as far as a machine without them can tell: what is asked, refused and avoided."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from tests.samples import make_stage
from tests.test_bad_input import Place
from tulu import losses
from tulu.config.schema import Sft
from tulu.errors import RecipeError
from tulu.model import devices
from tulu.model.devices import default_device, fault_of, has_bfloat16
from tulu.model.parallel import Parallel
from tulu.model.processes import Processes

MPS = torch.device("mps")


@pytest.fixture
def mac(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that says it has MPS."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    devices._is_right.cache_clear()


def test_the_cpu_computes_as_the_cpu() -> None:
    assert fault_of(torch.device("cpu")) == ""


def test_a_device_that_computes_nothing_or_something_else_is_not_used(
    mac: None, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Here torch has no MPS, which is the first kind of fault; the second is gradients that are slightly wrong."""
    assert [default_device() for _ in range(2)] == [torch.device("cpu")] * 2
    assert caplog.text.count("this Mac's GPU is not used: ") == 1

    def slightly_wrong(device: torch.device) -> tuple[torch.Tensor, ...]:
        return (torch.ones(3), torch.ones(3), torch.ones(3) * (1.0 if device.type == "cpu" else 1.01))

    monkeypatch.setattr(devices, "_values_and_gradients", slightly_wrong)
    assert fault_of(MPS) == "its gradients differ from the CPU's by 0.01 of the largest"
    monkeypatch.setattr(devices, "_values_and_gradients", lambda device: (torch.full((3,), float("nan")),) * 3)
    assert fault_of(MPS).startswith("its attention differ")


def test_a_device_that_passes_is_the_device_of_models_and_processes(mac: None, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[bool] = []

    class State:
        process_index, num_processes, is_main_process, device = 0, 1, True, MPS

        def __init__(self, cpu: bool, **options: Any) -> None:
            asked.append(cpu)

    monkeypatch.setattr(devices, "fault_of", lambda device: "")
    monkeypatch.setattr("accelerate.PartialState", State)
    assert default_device() == MPS
    assert Processes().device == MPS
    assert asked == [False]
    # torch connects several processes on the CPU alone.
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert default_device() == torch.device("cpu")


def test_cards_before_ampere_are_refused_bfloat16_and_told_of_fp16(monkeypatch: pytest.MonkeyPatch) -> None:
    card = torch.device("cuda", 0)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "Tesla T4")
    for capability, has in (((7, 5), False), ((8, 0), True), ((9, 0), True)):
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device, found=capability: found)
        assert has_bfloat16(card) is has
    assert has_bfloat16(torch.device("cpu"))
    monkeypatch.setattr("tulu.model.parallel.has_bfloat16", lambda device: False)
    monkeypatch.setattr("tulu.model.parallel.name_of", lambda device: "Tesla T4")
    with pytest.raises(RecipeError, match="precision: bf16: Tesla T4 computes nothing in bfloat16; set precision to fp16"):
        Parallel(make_stage(Sft, precision="bf16"))
    Parallel(make_stage(Sft, precision="fp16"))


class NoFloat64(TorchDispatchMode):
    """Refuses every operation of torch that makes numbers of 64 bits, as MPS does."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        for tensor in made if isinstance(made, tuple | list) else (made,):
            if isinstance(tensor, torch.Tensor) and tensor.dtype == torch.float64:
                raise TypeError("this device has no float64")
        return made


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_a_step_needs_no_float64_where_the_device_has_none(
    precision: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, tiny_model: Callable[..., Path]
) -> None:
    place = Place(tmp_path, tiny_model("olmo2"))
    command = ("sft", "sft.steps=2", f"sft.precision={precision}", "sft.clip_norm=1.0")
    with NoFloat64():
        assert isinstance(place.call(*command).exception, TypeError), "elsewhere sums are kept in float64"
    monkeypatch.setattr(losses, "WITHOUT_FLOAT64", ("mps", "cpu"))
    with NoFloat64():
        result = place.call(*command)
    assert result.exit_code == 0, (result.output, result.exception)

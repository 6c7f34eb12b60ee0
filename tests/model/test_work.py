"""The arithmetic of training by numbers worked out on paper, and where the seconds of a step go."""

import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from tests.model.tiny_configs import build
from tests.samples import make_group
from tulu.config.parts import Lora
from tulu.model.batch import pack_row
from tulu.model.cards import peak_flops, peak_of
from tulu.model.clock import PARTS, Clock
from tulu.model.policy import Policy
from tulu.model.work import Work, pairs_of
from tulu.types import Completion, Group

ROW = pack_row([Group([0] * 4, (Completion([1] * 2, [True] * 2), Completion([1] * 6, [True] * 6)), "a")])
"""A prompt of 4 with completions of 2 and 6."""


def test_pairs_of_a_shared_prompt_count_once() -> None:
    # 4²/2 for the prompt, then 2·4 + 2²/2, and 6·4 + 6²/2.
    assert pairs_of(ROW, None) == 8 + 10 + 42
    assert pairs_of(ROW, 100) == pairs_of(ROW, None)
    # In a window of 4 every position beyond the fourth sees 4: 8 for the prompt, 2·4, and 6·4.
    assert pairs_of(ROW, 4) == 8 + 8 + 24


def test_work_of_a_model_on_paper(tiny_model: Callable[..., Path]) -> None:
    """OLMo 2: 2 layers, hidden 32, feed-forward 48, 4 heads of 8."""
    policy = Policy.load(tiny_model("olmo2"))
    work = Work.of(policy.module)
    vocabulary = len(policy.tokenizer)
    # Queries, keys, values and output; three of the feed-forward; norms: two of queries and keys and two of the layer; one last.
    layer = 4 * 32 * 32 + 3 * 32 * 48 + 4 * 32
    assert work.per_token == 6 * (2 * layer + 32)
    assert work.per_read == 6 * vocabulary * 32
    assert work.attention == ((None, 2 * 12.0 * 32),)
    assert work.on([ROW, ROW]) == 2 * (12 * work.per_token + 8 * work.per_read + 60 * 24 * 32)


def test_what_is_frozen_needs_no_gradient_of_its_own(tiny_model: Callable[..., Path]) -> None:
    whole, adapted = (
        Work.of(Policy.load(tiny_model("olmo2"), lora=lora).module) for lora in (None, Lora(rank=1, alpha=1, targets=("q_proj",)))
    )
    assert adapted.per_read == whole.per_read * 4 / 6
    # Two layers with adapters of 32 and 32 numbers.
    assert adapted.per_token == whole.per_token * 4 / 6 + 6 * 2 * 64


def test_a_token_passes_through_some_experts_alone(tiny_model: Callable[..., Path]) -> None:
    few, many = (Work.of(Policy.load(tiny_model("olmoe", num_experts=count)).module) for count in (4, 8))
    # Only the router grows.
    assert many.per_token - few.per_token == 6 * 2 * 4 * 32


def test_a_model_without_attention_has_products_alone(tmp_path: Path) -> None:
    work = Work.of(Policy.load(build("mamba", tmp_path)).module)
    assert work.attention == ()
    assert work.per_token > 0


def test_windows_are_known_by_the_layer(tiny_model: Callable[..., Path]) -> None:
    work = Work.of(Policy.load(tiny_model("olmo3")).module)
    assert dict(work.attention) == {6: 3 * 12.0 * 32, None: 12.0 * 32}


@pytest.mark.parametrize(
    ("name", "tera"),
    [
        ("NVIDIA H100 80GB HBM3", 989),
        ("NVIDIA H100 PCIe", 756),
        ("NVIDIA H200", 989),
        ("NVIDIA A100-SXM4-80GB", 312),
        ("NVIDIA L4", 121),
        ("NVIDIA A10G", 70),
        ("NVIDIA RTX A4000", None),
        ("Some card", None),
    ],
)
def test_cards_are_known_by_name(name: str, tera: float | None) -> None:
    assert peak_flops(name) == (None if tera is None else tera * 1e12)


def test_a_cpu_has_no_peak_that_is_known() -> None:
    assert peak_of(torch.device("cpu")) is None


def test_a_clock_adds_up_each_part_and_begins_anew() -> None:
    clock = Clock(torch.device("cpu"))
    began = time.perf_counter()
    for _ in range(2):
        with clock.part("forward"):
            time.sleep(0.01)
    took = time.perf_counter() - began
    with pytest.raises(ValueError, match="x"), clock.part("data"):
        raise ValueError("x")
    seconds = clock.read()
    assert list(seconds) == list(PARTS)
    assert 0.02 <= seconds["forward"] <= took
    assert seconds["backward"] == 0.0
    assert clock.read()["forward"] == 0.0


class Event:
    """A moment of a GPU, which comes when `now` has passed it."""

    now = 0.0
    given = 0.0

    def __init__(self, enable_timing: bool) -> None:
        assert enable_timing

    def record(self) -> None:
        Event.given += 1.0
        self.at = Event.given

    def query(self) -> bool:
        return self.at <= Event.now

    def elapsed_time(self, later: "Event") -> float:
        return (later.at - self.at) * 1000


def test_a_gpu_is_never_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.Event", Event)
    clock = Clock(torch.device("cuda"))
    for part in ("forward", "backward", "optimizer"):
        with clock.part(part):
            pass
    Event.now = 4.0
    seconds = clock.read()
    assert (seconds["forward"], seconds["backward"], seconds["optimizer"]) == (1.0, 1.0, 0.0)
    Event.now = 6.0
    assert clock.read()["optimizer"] == 1.0


def test_the_meter_compares_with_what_the_cards_could_do(
    tiny_model: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    from tests.samples import make_stage
    from tulu.model.parallel import Parallel
    from tulu.train.meter import Meter

    parallel = Parallel(make_stage())
    parallel.world = 2
    monkeypatch.setattr("tulu.train.meter.peak_of", lambda device: 1e6)
    meter = Meter(Policy.load(tiny_model("olmo2")).module, parallel)
    meter.add(meter.work.on([pack_row([make_group(1, 3, [4])])]))
    began = time.perf_counter()
    with parallel.clock.part("backward"):
        time.sleep(0.02)
    took = time.perf_counter() - began
    operations = meter.work.on([pack_row([make_group(1, 3, [4])])])
    measured = meter.read(4.0, training_seconds=2.0)
    assert measured["mfu"] == pytest.approx(operations / (2.0 * 2e6))
    assert 0.0 < measured["peak_gib"] < 64.0  # type: ignore[operator]
    assert 0.02 / 4.0 <= measured["share_backward"] <= took / 4.0  # type: ignore[operator]
    assert meter.read(1.0)["mfu"] == 0.0, "it begins anew"

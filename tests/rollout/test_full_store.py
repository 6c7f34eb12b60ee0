"""A full object store is told at once, with what would not fit. The store is Ray's own, and its disk counts as full as well."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("ray", reason="ray is not installed")

import ray
import torch
from safetensors.torch import save_file

from tests.rollout import fake_replica
from tests.rollout.fake_replica import FakeReplica
from tulu.config.cluster import start_alone
from tulu.errors import EngineError
from tulu.grading.grader import Grader
from tulu.rollout.engine import EngineSpec
from tulu.rollout.fleet_member import Limits
from tulu.rollout.grader_member import GraderLimits
from tulu.rollout.graders import RayWorkers
from tulu.rollout.ray_fleet import RayFleet
from tulu.types import Problem

STORE = 80 << 20
SOON = 20.0


@pytest.fixture(scope="module")
def small_store() -> Iterator[None]:
    """A Ray that may neither hold more than 80 MiB nor spill it."""
    start_alone(num_cpus=1, object_store_memory=STORE, _system_config={"local_fs_capacity_threshold": 0.001})
    yield
    ray.shutdown()


def test_weights_that_do_not_fit_end_the_sync_with_their_size_and_the_cure(
    small_store: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a cluster, where weights go through the store; on one machine they lie in shared memory."""
    monkeypatch.setenv("RAY_ADDRESS", ray.get_runtime_context().gcs_address)
    ray.cloudpickle.register_pickle_by_value(fake_replica)
    weights = {name: torch.ones(12, 1 << 20) for name in ("a.weight", "b.weight")}
    save_file(weights, str(tmp_path / "model.safetensors"))
    fleet = RayFleet(EngineSpec(str(tmp_path), 64), engines=1, limits=Limits(start=300), replica=FakeReplica)
    try:
        began = time.monotonic()
        with pytest.raises(EngineError, match=r"(?s)object store has no room for 101 MB of weights .*--object-store-memory"):
            fleet.sync(weights.items(), 1)
        assert time.monotonic() - began < SOON
        assert fleet.states()[0].status != "ready", "an engine that holds half of the weights samples nothing"
    finally:
        fleet.close()


def test_a_case_that_does_not_fit_is_masked_by_name_and_the_others_are_graded(small_store: None, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("def score(completion, ground_truth):\n    return completion == ground_truth\n")
    pool = RayWorkers(1, limits=GraderLimits(start=300))
    try:
        problem = Problem("p", [], (), "7", (f"{tmp_path}/mine.py:score",))
        large, small = (Grader(pool=pool).grade([(text, problem)])[0] for text in ("7" * 2 * STORE, "7"))
    finally:
        pool.close()
    assert (large.status, large.score) == ("error", None)
    assert large.detail.startswith("it does not reach grader-1 (")
    assert small.score == 1.0

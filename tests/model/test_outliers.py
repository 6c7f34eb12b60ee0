"""Steps that stand out are passed over: as the original decides, in every sharding alike, and the same after a resume."""

import json
from pathlib import Path

import pytest
import torch
from torch import nn

from tests import forked
from tests.samples import make_stage
from tulu.config.parts import SkipSteps
from tulu.model.outliers import Outliers
from tulu.model.parallel import OUTLIERS, Parallel


class AsTheOriginal:
    """OLMo-core's rule in the words of its documentation, over torch's statistics: the oracle."""

    def __init__(self, window: int, sigma: float) -> None:
        self.window, self.sigma = window, sigma
        self.rows: list[tuple[float, float]] = []

    def stands_out(self, loss: float, norm: float) -> bool:
        self.rows = [*self.rows, (loss, norm)][-(self.window + 1) :]
        if len(self.rows) < max(2, self.window // 2):
            return False
        deviation, mean = torch.std_mean(torch.tensor(self.rows[:-1], dtype=torch.float64), dim=0)
        latest = torch.tensor(self.rows[-1], dtype=torch.float64)
        return not bool(((latest - mean) <= self.sigma * deviation).all())


@pytest.mark.parametrize(("window", "sigma"), [(6, 1.0), (7, 2.0), (128, 6.0), (16, 0.5)])
def test_it_decides_as_the_original(window: int, sigma: float) -> None:
    generator = torch.Generator().manual_seed(window)
    numbers = torch.randn(400, 2, generator=generator, dtype=torch.float64).abs() ** 3
    ours, theirs = Outliers(SkipSteps(window=window, sigma=sigma)), AsTheOriginal(window, sigma)
    decided = [(ours.stands_out(*row), theirs.stands_out(*row)) for row in numbers.tolist()]
    assert [one for one, _ in decided] == [other for _, other in decided]
    assert ours.passed_over == sum(one for one, _ in decided) > 0


def test_on_paper() -> None:
    """Losses 1, 2, 3 have the mean 2 and the deviation 1: with sigma 2, 4 is the last that is taken, and 4.1 is not.

    With a window of 8 the fourth step is the first that is judged.
    """

    def after(*losses: float) -> bool:
        window = Outliers(SkipSteps(window=8, sigma=2.0))
        return [window.stands_out(loss, 1.0) for loss in losses][-1]

    assert [after(1.0, 2.0, 3.0, 4.0), after(1.0, 2.0, 3.0, 4.1)] == [False, True]
    assert not after(1.0, 3.0, 100.0), "three steps are no half of eight"
    assert not after(3.0, 2.0, 3.0, -100.0), "a loss that falls is no outlier"


def test_the_norm_counts_as_the_loss_does() -> None:
    window = Outliers(SkipSteps(window=8, sigma=2.0))
    assert [window.stands_out(1.0, norm) for norm in (1.0, 2.0, 3.0, 4.1)] == [False, False, False, True]


def test_what_was_passed_over_joins_the_window() -> None:
    """A loss that has risen for good is accepted: the first outlier widens the deviation that the next is measured by."""
    window = Outliers(SkipSteps(window=6, sigma=1.0))
    assert [window.stands_out(loss, 1.0) for loss in (1.0, 1.1, 1.0, 9.0, 9.0, 9.0, 9.0)] == [
        *(False, False, False),
        *(True, True, True, False),
    ]


def test_a_window_gives_itself_back_to_the_bit(tmp_path: Path) -> None:
    whole, cut = Outliers(SkipSteps(window=8, sigma=1.0)), Outliers(SkipSteps(window=8, sigma=1.0))
    numbers = (torch.randn(40, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64).abs() / 3).tolist()
    first = [whole.stands_out(*row) for row in numbers]
    again = [cut.stands_out(*row) for row in numbers[:20]]
    cut.save(tmp_path / "state.json")
    resumed = Outliers(SkipSteps(window=8, sigma=1.0))
    resumed.load(tmp_path / "state.json")
    assert [*again, *(resumed.stands_out(*row) for row in numbers[20:])] == first
    assert resumed.passed_over == whole.passed_over
    assert json.loads((tmp_path / "state.json").read_text())["passed_over"] == sum(first[:20])


def trained(parallel: Parallel, module: nn.Linear, factors: list[float]) -> list[torch.Tensor]:
    """The weight after every step, of which each has a gradient as large as its factor."""
    seen = []
    for factor in factors:
        loss = (module(torch.ones(1, 2)) * factor).sum()
        parallel.backward(loss, last=True)
        parallel.finish_step(torch.tensor([1.0]))
        seen.append(module.weight.detach().clone())
    return seen


def test_a_step_that_is_passed_over_never_was(tmp_path: Path) -> None:
    """Weight, moments and Adam's count of steps after it are those of a run without it."""
    steady = [1.0, 1.5, 1.25, 1.0, 1.5]
    runs = []
    for factors in (steady, [*steady[:4], 50.0, *steady[4:]]):
        torch.manual_seed(0)
        parallel = Parallel(make_stage(skip_steps={"window": 8, "sigma": 6.0}))
        module = nn.Linear(2, 1)
        parallel.prepare(module, torch.optim.AdamW(module.parameters(), lr=0.1, weight_decay=0.1))
        runs.append((trained(parallel, module, factors), parallel))
    (plain, _), (jumped, parallel) = runs
    assert torch.equal(jumped[3], jumped[4])
    assert torch.equal(plain[-1], jumped[-1])
    assert parallel.outliers is not None
    assert parallel.outliers.passed_over == 1
    parallel.save(tmp_path)
    assert len(json.loads((tmp_path / OUTLIERS).read_text())["losses"]) == 6


def test_every_sharding_passes_over_the_same_steps(tmp_path: Path) -> None:
    """Two ranks, each sharding in float32 and bfloat16: the weights are those of one process, before and after a resume."""
    forked.ranks("tests.model.ranks_outliers", 2, tmp_path, folder=tmp_path, patience=240)
    found = json.loads((tmp_path / "found.json").read_text())
    assert sorted(found) == sorted(
        f"{sharding} {precision}" for sharding in ("none", "zero1", "zero2", "zero3", "fsdp2") for precision in ("fp32", "bf16")
    )
    for case, facts in found.items():
        assert facts["moved"] == [True, True, True, True, False, True, True], case
        assert facts["passed over"] == 1, case
        assert facts["as without it"] < 1e-6, case
        assert facts["resumed"], case

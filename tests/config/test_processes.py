"""What a process knows about itself before it is connected to others."""

import pytest

from tulu.config.processes import is_main_process, world_size
from tulu.errors import RecipeError


def test_world_size_is_a_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "two")
    with pytest.raises(RecipeError, match="WORLD_SIZE='two'"):
        world_size()


@pytest.mark.parametrize(("rank", "main"), [(None, True), ("0", True), ("1", False), ("unset", True)])
def test_rank_0_speaks_for_all(monkeypatch: pytest.MonkeyPatch, rank: str | None, main: bool) -> None:
    monkeypatch.delenv("RANK", raising=False)
    if rank is not None:
        monkeypatch.setenv("RANK", rank)
    assert is_main_process() == main

"""What one process has trained, with which several are compared: once for all tests of this folder."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.ranks.launch import run
from tests.ranks.stages import Cell, write_inputs


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory, tiny_model: Callable[..., Path]) -> Iterator[Path]:
    """A folder with inputs and a model, in which one process has trained every kind."""
    folder = tmp_path_factory.mktemp("ranks")
    write_inputs(folder)
    shutil.copytree(tiny_model("qwen3"), folder / "model")
    run(Cell("none", 1), folder)
    yield folder
    shutil.rmtree(folder, ignore_errors=True)

"""An unreachable hub is asked once: the cache serves what it has, and what it lacks is told at once."""

import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from huggingface_hub import constants
from typer.testing import CliRunner

from tests.test_bad_input import Place, complained
from tulu.cli import app
from tulu.config import hub

Asked = list[float]


@pytest.fixture
def silent(monkeypatch: pytest.MonkeyPatch) -> Iterator[Asked]:
    """A hub that hangs up on everyone; when it was asked."""
    asked: Asked = []
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()

        def serve() -> None:
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                asked.append(time.monotonic())
                connection.close()

        threading.Thread(target=serve, daemon=True).start()
        monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{server.getsockname()[1]}")
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setenv("HF_HUB_OFFLINE", "")
        import datasets.config

        monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", False)
        hub.reach_hub.cache_clear()
        yield asked
        server.shutdown(socket.SHUT_RDWR)
    hub.reach_hub.cache_clear()


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("model=nobody/none-such", "nobody/none-such: cannot be loaded as a model"),
        ("sft.data=nobody/rows", "nobody/rows: no file here, and the hub does not give it"),
    ],
)
def test_what_is_not_in_the_cache_is_told_at_once(
    override: str, told: str, silent: Asked, tmp_path: Path, tiny_model: Callable[..., Path]
) -> None:
    place = Place(tmp_path, tiny_model("olmo2"))
    began = time.monotonic()
    result = CliRunner().invoke(app, ["sft", str(place.recipe), override, "--runs", str(place.runs)])
    complained(result, 2, told, "cannot be reached", "only what is in its cache here is used")
    assert len(silent) == 1
    assert time.monotonic() - began < 100


def test_a_local_model_asks_nobody(silent: Asked, tmp_path: Path, tiny_model: Callable[..., Path]) -> None:
    place = Place(tmp_path, tiny_model("olmo2"))
    assert place.call("sft", "sft.steps=1").exit_code == 0
    assert silent == []


def test_offline_is_not_asked_at_all(silent: Asked, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    hub.reach_hub()
    assert silent == []

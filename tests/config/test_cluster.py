"""A Ray that cannot be reached, or does not start, is a message with the cure."""

import socket

import pytest

pytest.importorskip("ray", reason="ray is not installed")

import ray

from tulu.config import cluster
from tulu.errors import EngineError, RecipeError


@pytest.fixture
def nobody() -> str:
    """An address where nobody listens."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{held.getsockname()[1]}"


def test_an_address_where_nobody_listens_is_told_at_once(nobody: str) -> None:
    """Ray itself would try for minutes."""
    with pytest.raises(RecipeError, match=rf"(?s)RAY_ADDRESS={nobody}: no Ray cluster .*refused.*ray start --head.*unset"):
        cluster.connect(nobody)


def test_the_client_server_of_ray_is_no_cluster() -> None:
    with pytest.raises(RecipeError, match="Ray's client server; name the cluster itself"):
        cluster.connect("ray://127.0.0.1:10001")


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("The actor died unexpectedly.\n\tclass_name: Learner", "The actor died unexpectedly."),
        (
            "The actor died because of an error raised in its creation task, ray::A()\nTraceback:\n  ImportError: no tulu\n",
            "ImportError: no tulu",
        ),
        (" \n", "RayError"),
    ],
)
def test_what_ray_says_is_told_in_one_line(text: str, line: str) -> None:
    assert cluster.in_one_line(ray.exceptions.RayError(text)) == line


def test_a_ray_that_does_not_start_is_tried_again_and_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a machine that is busy for a while the second attempt may succeed."""
    asked: list[str] = []

    def init(address: str, **_: object) -> None:
        asked.append(address)
        if len(asked) in (1, 3, 4, 5):
            raise Exception("The current node timed out during startup.\nSee the logs.")

    monkeypatch.setattr(ray, "init", init)
    cluster.start_alone(num_cpus=1)
    assert asked == ["local"] * 2
    with pytest.raises(EngineError, match=r"Ray does not start on this machine \(The current node timed out during startup\.\)"):
        cluster.start_alone(num_cpus=1)
    assert len(asked) == 5

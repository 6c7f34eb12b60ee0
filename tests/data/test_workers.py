"""Worker processes: order, errors in their place, and the same result for any number of them."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from tulu.data import tokenise
from tulu.data.chat import apply_template, make_byte_tokenizer
from tulu.data.sources import Row
from tulu.data.token_cache import Groups
from tulu.data.tokenise import TokeniseOptions, encode_part
from tulu.data.workers import in_batches, shared_out
from tulu.errors import DataError
from tulu.types import Group

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    made = make_byte_tokenizer()
    apply_template(made, "tulu")
    return made


def rows(count: int, *, broken: int | None = None) -> Iterator[Row]:
    """Rows of uneven length, of which some are dropped, truncated or noted; reading one of them may fail."""
    for number in range(count):
        if number == broken:
            raise DataError(f"rows:{number}: broken JSON")
        answer = "" if number % 7 == 3 else f"answer {number} " * (number % 50) + "<|pad|>" * (number % 11 == 5)
        yield Row(
            f"rows:{number}", {"prompt": f"question {number}", "completion": answer, "history": [["a", "b"]] * (number % 2)}
        )


def encoded(tokenizer: Any, workers: int, count: int = 1700, folder: Path | None = None, **options: Any) -> Groups:
    return Groups([encode_part("rows", rows(count, **options), tokenizer, TokeniseOptions("sft", 300), folder, workers)])


def test_nothing_depends_on_the_number_of_workers(tokenizer: Any, tmp_path: Path) -> None:
    alone, shared = encoded(tokenizer, 1), encoded(tokenizer, 3, folder=tmp_path / "entry")
    assert list(shared) == list(alone)
    assert shared.digest == alone.digest
    assert shared.report == alone.report
    assert shared.report.rows == 1700
    assert shared.report.truncated.count > 100
    assert shared.report.dropped
    assert shared.report.noted


def test_workers_take_over_when_it_takes_long(tokenizer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    share = tokenise.shared_out

    def counted(*arguments: Any) -> Any:
        asked.append(arguments[-1])
        return share(*arguments)

    monkeypatch.setattr(tokenise, "shared_out", counted)
    monkeypatch.setattr(tokenise, "cores", lambda: 2)
    monkeypatch.setattr(tokenise, "_ALONE", 1e9)
    whole = Groups([encode_part("rows", rows(1200), tokenizer, TokeniseOptions("sft", 300))])
    assert asked == [], "a moment's work"
    monkeypatch.setattr(tokenise, "_ALONE", 0.0)
    parted = Groups([encode_part("rows", rows(1200), tokenizer, TokeniseOptions("sft", 300))])
    assert asked == [2]
    assert (parted.digest, list(parted)) == (whole.digest, list(whole))


@pytest.mark.parametrize("workers", [1, 2])
def test_an_error_comes_where_one_process_meets_it(tokenizer: Any, workers: int) -> None:
    with pytest.raises(DataError, match="rows:1600: broken JSON"):
        encoded(tokenizer, workers, broken=1600)


def double(settings: int, batch: int) -> int:
    """What the workers below do; one number is refused, one is a bug, and one kills its process."""
    if batch == settings:
        raise DataError(f"{batch} is refused")
    if batch == -2:
        raise ZeroDivisionError("a bug")
    if batch == -3:
        os._exit(9)
    time.sleep(0.05 * (batch % 3))
    return 2 * batch


DOUBLE = f"{__name__}.double"


@pytest.fixture(autouse=True)
def importable(monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers look for modules where this process does."""
    monkeypatch.syspath_prepend(str(ROOT))


@pytest.fixture
def workers_alive() -> Callable[[], int]:
    """How many processes this one has started in the test; other tests may have left some."""
    before = set(psutil.Process().children())
    return lambda: len(set(psutil.Process().children()) - before)


def test_results_come_in_order() -> None:
    assert list(shared_out(DOUBLE, -1, range(12), 3)) == [2 * number for number in range(12)]


@pytest.mark.parametrize(
    ("last", "kind", "message"),
    [(-1, DataError, "-1 is refused"), (-2, RuntimeError, "ZeroDivisionError: a bug"), (-3, DataError, "died .exit code")],
)
def test_what_stands_before_an_error_is_yielded_first(
    last: int, kind: type[Exception], message: str, workers_alive: Callable[[], int]
) -> None:
    results = shared_out(DOUBLE, -1, [1, 2, 3, last, 5, 6], 2)
    assert [next(results) for _ in range(3)] == [2, 4, 6]
    with pytest.raises(kind, match=message):
        next(results)
    assert workers_alive() == 0


def test_an_error_of_the_source_comes_behind_its_rows() -> None:
    def source() -> Iterator[int]:
        yield from range(5)
        raise DataError("unreadable")

    results = shared_out(DOUBLE, -1, source(), 2)
    assert [next(results) for _ in range(5)] == [0, 2, 4, 6, 8]
    with pytest.raises(DataError, match="unreadable"):
        next(results)


def test_workers_end_with_who_no_longer_wants_them(workers_alive: Callable[[], int]) -> None:
    results = shared_out(DOUBLE, -1, range(1000), 2)
    assert next(results) == 0
    assert workers_alive() == 2
    results.close()  # type: ignore[attr-defined]
    assert workers_alive() == 0


def test_batches_of_a_stream_that_breaks() -> None:
    assert list(in_batches(range(5), 2)) == [[0, 1], [2, 3], [4]]

    def source() -> Iterator[int]:
        yield from range(3)
        raise DataError("unreadable")

    batches = in_batches(source(), 2)
    assert [next(batches), next(batches)] == [[0, 1], [2]]
    with pytest.raises(DataError, match="unreadable"):
        next(batches)


INTERRUPTED = """
import sys
from tulu.data.workers import shared_out
print("ready", flush=True)
for result in shared_out({function!r}, -1, range(10**6), 2):
    print("going", flush=True)
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_no_worker_survives(number: int) -> None:
    script = INTERRUPTED.format(function=DOUBLE)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(
        [sys.executable, "-c", script], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert [process.stdout.readline().strip() for _ in range(2)] == ["ready", "going"]
    workers = psutil.Process(process.pid).children()
    assert len(workers) == 2
    process.send_signal(number)
    _, told = process.communicate(timeout=120)
    assert process.returncode != 0
    assert "BrokenPipeError" not in told
    _, alive = psutil.wait_procs(workers, timeout=60)
    assert alive == []


def test_ids_of_any_spelling_come_back(tokenizer: Any, tmp_path: Path) -> None:
    names = ["a:1", "ö:2", "日本:3", "x\ud800:4"]
    source = [Row(name, {"prompt": "q", "completion": json.dumps(place)}) for place, name in enumerate(names)]
    part = encode_part("rows", source, tokenizer, TokeniseOptions("sft", 300), tmp_path / "entry")
    groups: list[Group] = list(Groups([part]))
    assert [group.id for group in groups] == names

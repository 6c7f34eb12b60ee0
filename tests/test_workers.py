"""Workers share nothing that is costly: the tests of a file run in one of them, and so do files that belong together."""

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from tests.workers import LONGEST, TOGETHER, ByFile

ROOT = Path(__file__).resolve().parents[1]


def test_every_file_that_is_named_is_there() -> None:
    files = [path.relative_to(ROOT).as_posix() for path in ROOT.glob("tests/**/test_*.py")]
    for beginning in (beginning for paths in TOGETHER.values() for beginning in paths):
        assert any(file.startswith(beginning) for file in files), beginning
    assert [name for name in LONGEST if name not in TOGETHER and name not in files] == []


def test_files_that_belong_together_are_one_work() -> None:
    config: Any = SimpleNamespace(option=SimpleNamespace(), getvalue=lambda _: ["popen"])
    split = ByFile(config)._split_scope
    assert split("tests/ranks/test_matrix.py::test_a[x::y]") == split("tests/model/test_spreading.py::test_b")
    assert split("tests/losses/test_x.py::test_a[b::c]") == "tests/losses/test_x.py"


def test_each_file_has_one_worker_and_the_longest_is_begun_first(tmp_path: Path) -> None:
    """With the files of a project of its own, by the pytest and the xdist that are installed."""
    (tmp_path / "tests" / "ranks").mkdir(parents=True)
    body = """
import os, pytest, time
@pytest.mark.parametrize("number", range(6))
def test_it(number, record):
    time.sleep(0.02)
    record()
"""
    (tmp_path / "tests" / "conftest.py").write_text(
        (ROOT / "tests" / "conftest.py").read_text()
        + """
@pytest.fixture
def record(request):
    import time
    from pathlib import Path
    first = [Path("begun-test_resume.py"), Path("begun-test_matrix.py")]
    begun = Path(f"begun-{request.node.path.name}")
    until = time.monotonic() + 30
    line = f"{os.environ['PYTEST_XDIST_WORKER']} {request.node.path.name} {time.monotonic()}\\n"
    begun.touch()
    # However long the other worker takes to begin, nobody is done before.
    while begun in first and not all(one.exists() for one in first) and time.monotonic() < until:
        time.sleep(0.01)
    def write():
        with open("seen", "a") as file:
            file.write(line)
    return write
"""
    )
    (tmp_path / "tests" / "workers.py").write_text((ROOT / "tests" / "workers.py").read_text())
    names = ["test_a.py", "test_b.py", "test_c.py", "test_resume.py", "ranks/test_matrix.py", "ranks/test_precisions.py"]
    for name in names:
        (tmp_path / "tests" / name).write_text(body)
    command = [sys.executable, "-m", "pytest", "-q", "-n", "2", "--dist", "loadfile", "-p", "no:cacheprovider", "tests"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    rows = [line.split() for line in (tmp_path / "seen").read_text().splitlines()]
    workers = {Path(name).name: {worker for worker, file, _ in rows if file == Path(name).name} for name in names}
    assert all(len(found) == 1 for found in workers.values()), workers
    assert len(set.union(*workers.values())) == 2
    assert workers["test_matrix.py"] == workers["test_precisions.py"]
    begun = {name: min(float(at) for _, file, at in rows if file == name) for name in workers}
    assert max(begun["test_resume.py"], begun["test_matrix.py"]) < min(
        begun[name] for name in ("test_a.py", "test_b.py", "test_c.py")
    )

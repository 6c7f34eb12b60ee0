"""The command `tulu report`."""

import signal
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tests.report.made_run import make_run
from tulu.cli import app


def test_it_writes_a_file_beside_the_run_or_where_it_is_told(tmp_path: Path) -> None:
    run = make_run(tmp_path / "runs" / "demo", steps=2)
    result = CliRunner().invoke(app, ["report", "demo", "--runs", str(tmp_path / "runs")])
    assert result.exit_code == 0, result.output
    assert "report.html" in result.output
    assert (run / "report.html").read_text().startswith("<!doctype html>")
    result = CliRunner().invoke(app, ["report", str(run / "rlvr"), str(run), "--out", str(tmp_path / "new" / "both.html")])
    assert result.exit_code == 0, result.output
    assert "demo/rlvr · demo" in (tmp_path / "new" / "both.html").read_text()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nothing"], "there is no such run"),
        (["demo", "--out", "."], "is a folder; name a file"),
        (["demo", "--live", "--out", "x.html"], "--live serves a page and --out writes a file"),
        (["demo", "--port", "80"], "--port belongs to --live"),
    ],
)
def test_mistakes_are_told_before_anything_is_done(arguments: list[str], message: str, tmp_path: Path) -> None:
    make_run(tmp_path / "runs" / "demo", steps=1)
    result = CliRunner().invoke(app, ["report", *arguments, "--runs", str(tmp_path / "runs")])
    assert result.exit_code == 2
    assert message in " ".join(result.output.split())


def test_a_port_that_is_taken_is_told(tmp_path: Path) -> None:
    run = make_run(tmp_path / "demo", steps=1)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        result = CliRunner().invoke(app, ["report", str(run), "--live", "--port", str(taken.getsockname()[1])])
    assert result.exit_code == 2
    assert "name another, or leave it out" in " ".join(result.output.split())


def test_a_disk_that_refuses_is_a_message(tmp_path: Path) -> None:
    run = make_run(tmp_path / "demo", steps=1)
    (tmp_path / "file").write_text("")
    result = CliRunner().invoke(app, ["report", str(run), "--out", str(tmp_path / "file" / "x.html")])
    assert result.exit_code == 2
    assert "a file stands where a folder belongs" in " ".join(result.output.split())


def test_it_serves_until_it_is_interrupted(tmp_path: Path) -> None:
    run = make_run(tmp_path / "demo", steps=2)
    command = [sys.executable, "-m", "tulu", "report", str(run), "--live"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        url, cure = process.stdout.readline().split()[0], process.stdout.readline()
        with urllib.request.urlopen(url, timeout=60) as answer:
            assert b"tulu report" in answer.read()
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    finally:
        process.kill()
    assert (process.returncode, errors) == (0, "ended\n")
    assert cure == "Ctrl-C ends it; the run goes on.\n"

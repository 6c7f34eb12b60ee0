"""The server of `tulu report --live`: what it answers, to whom, and how fast."""

import http.client
import json
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest

from tests.report.made_run import make_run, metrics_of, write_rollouts, write_rows
from tulu.report import live
from tulu.report.live import LiveServer


@contextmanager
def serving(*folders: Path) -> Iterator[LiveServer]:
    server = LiveServer(folders)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def ask(
    server: LiveServer, path: str, method: str = "GET", headers: Mapping[str, str] = {}, body: bytes | None = None
) -> tuple[int, bytes, Mapping[str, str]]:
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=60)
    try:
        connection.request(method, path, body=body, headers=dict(headers))
        answer = connection.getresponse()
        return answer.status, answer.read(), dict(answer.getheaders())
    finally:
        connection.close()


def found(server: LiveServer, path: str, **fields: Any) -> Any:
    status, content, _ = ask(server, f"{path}?{urlencode(fields)}")
    assert status == 200, content
    return json.loads(content)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    with serving(make_run(tmp_path_factory.mktemp("live") / "demo")) as made:
        yield made


def test_all_rollouts_are_there_by_page_and_by_group(server: LiveServer) -> None:
    first = found(server, "/rollouts", limit=5)
    assert first["total"] == 12 * 16
    assert [row["step"] for row in first["rows"]] == [12] * 5
    assert len(found(server, "/rollouts", offset=190, limit=5)["rows"]) == 2
    assert found(server, "/rollouts", offset=500)["rows"] == []
    row = found(server, "/rollouts", step_max=3, verifier="ifeval", truncated="yes", limit=1)["rows"][0]
    group = found(server, "/group", stage=f"{row['run']}/{row['stage']}", step=row["step"], group=row["group"])
    assert len(group["rows"]) == 4
    assert "".join(group["rows"][row["member"]]["pieces"]).startswith(row["preview"][:20])
    assert group["rows"][3]["finish"] == "length"


@pytest.mark.parametrize(
    "path",
    [
        *("/../../etc/passwd", "/%2e%2e/%2e%2e/etc/passwd", "//etc/passwd", "/rlvr/manifest.json", "/page/", "/group/../"),
        *("/favicon.ico", "/rollouts/..%2f", "/.%00/", "/version/"),
    ],
)
def test_no_other_path_leads_anywhere(server: LiveServer, path: str) -> None:
    status, content, _ = ask(server, path)
    assert (status, json.loads(content)) == (404, {"error": "there is no such page"})


@pytest.mark.parametrize(
    "query",
    [
        *("limit=1e9", "limit=-1", "offset=x", "offset=1.5", "masked=1", "reward_min=a", "stage=0/../sft", "stage=0/rlvr/../.."),
        "&".join(f"f{n}=1" for n in range(60)),
    ],
)
def test_questions_without_sense_are_refused(server: LiveServer, query: str) -> None:
    status, content, _ = ask(server, f"/rollouts?{query}")
    assert status == 400
    assert json.loads(content)["error"]


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"stage": "0/rlvr", "step": 99},
        {"stage": "0/rlvr", "step": 1, "group": 77},
        {"stage": "../../etc", "step": 1, "group": 0},
    ],
)
def test_a_group_that_is_not_there(server: LiveServer, fields: Mapping[str, Any]) -> None:
    assert ask(server, f"/group?{urlencode(fields)}")[0] == 400


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "HEAD", "OPTIONS", "PATCH", "BREW"])
def test_nothing_but_get_is_answered(server: LiveServer, method: str) -> None:
    status, _, headers = ask(server, "/", method, body=b"x" if method in ("POST", "PUT") else None)
    assert status == 405
    assert headers["Allow"] == "GET"


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Host": "localhost"}, 200),
        ({"Host": "LOCALHOST:9999"}, 200),
        ({"Host": "[::1]:80"}, 200),
        ({"Host": "evil.example"}, 403),
        ({"Host": "evil.example:8000"}, 403),
        ({"Host": "localhost.evil.example"}, 403),
        ({"Host": "127.0.0.1@evil.example"}, 403),
        ({"Host": ""}, 403),
        ({"Sec-Fetch-Site": "same-origin", "Sec-Fetch-Mode": "cors"}, 200),
        ({"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors"}, 403),
        ({"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}, 200),
    ],
)
def test_it_answers_under_the_names_of_this_machine_alone(server: LiveServer, headers: dict[str, str], status: int) -> None:
    answered, _, sent = ask(server, "/version", headers=headers)
    assert answered == status
    assert "Access-Control-Allow-Origin" not in sent
    assert sent["Cross-Origin-Resource-Policy"] == "same-origin"
    assert sent["X-Frame-Options"] == "DENY"


def test_it_listens_on_the_loopback_address(server: LiveServer) -> None:
    assert server.server_address[0] == "127.0.0.1"


def test_a_run_that_goes_on_is_followed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "AGAIN_AFTER", 0.0)
    folder = make_run(tmp_path / "demo", steps=2)
    with serving(folder) as server:
        before = found(server, "/version")["version"]
        assert found(server, "/version")["version"] == before
        assert found(server, "/rollouts", limit=1)["total"] == 32
        with (folder / "rlvr/metrics.jsonl").open("a") as stream:
            stream.write(json.dumps(metrics_of(3)) + "\n")
        write_rollouts(folder / "rlvr", [3], 4, 4)
        assert found(server, "/version")["version"] != before
        assert found(server, "/rollouts", limit=1)["rows"][0]["step"] == 3
        assert b'"total":48' in ask(server, "/")[1]
        # A damaged file is passed over in the list, and named on the page.
        (folder / "rlvr/rollouts/step-000003.parquet").write_bytes(b"PAR1")
        assert found(server, "/rollouts", limit=1)["total"] == 32
        assert b"step-000003.parquet: cannot be read" in ask(server, "/")[1]


def test_a_hundred_thousand_rollouts_do_not_stall_it(tmp_path: Path) -> None:
    """The processor's time of an answer counts, because tests share a machine: under half a second once all was read."""
    folder = make_run(tmp_path / "demo", steps=1)
    from tests.report.made_run import rollout_row

    rows = [rollout_row(1, group, member) for group in range(500) for member in range(4)]
    first = folder / "rlvr/rollouts/step-000001.parquet"
    write_rows(first, rows)
    for step in range(2, 51):
        (folder / f"rlvr/rollouts/step-{step:06d}.parquet").write_bytes(first.read_bytes())
    with serving(folder) as server:
        assert found(server, "/rollouts", limit=1)["total"] == 100_000
        for fields in ({"offset": 99_000}, {"masked": "yes"}, {"reward_min": 1, "tokens_max": 20, "verifier": "ifeval"}):
            began = time.process_time()
            answer = found(server, "/rollouts", limit=40, **fields)
            assert time.process_time() - began < 0.5
            assert len(answer["rows"]) == 40

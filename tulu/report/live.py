"""A page that follows a run while it goes on, served to this machine alone.

What the server gives away is private, so it listens on the loopback address, answers GET and nothing else, and only under this
machine's own names: a page of another site whose name was made to point here (DNS rebinding) is refused by its Host header, and
may read nothing by its origin either. No part of an address is ever a path of a file.
"""

import json
import logging
import threading
import time
from collections.abc import Callable, Sequence
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import numpy as np

from tulu.files import finite
from tulu.report.filters import MOST_LISTED, BadQuestion, Wanted, listing, stages_with_rollouts, whole
from tulu.report.page import Gathered, gather, render
from tulu.report.rollout_files import Damaged, Indexes, Version, rollout_files
from tulu.report.rollout_views import group_view, load_tokenizer, read_group
from tulu.report.sampling import Tally

log = logging.getLogger("tulu")

LOOPBACK = "127.0.0.1"
NAMES = ("127.0.0.1", "localhost", "[::1]")
"""Hosts under which the server is asked; the port may be another one, that of a tunnel."""
AGAIN_AFTER = 2.0
"""Seconds in which the files of the runs are not looked at again."""
TEXT = 12_000
"""Characters of a completion that are sent."""
MEMBERS = 256
"""Completions of a group that are sent."""
_WATCHED = ("metrics.jsonl", "manifest.json", "status.json", "recipe.yaml")
_HEADERS = {
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
}


class Watched:
    """The runs as they are now; they are read again where a file of theirs changed."""

    def __init__(self, folders: Sequence[Path]) -> None:
        self.folders = folders
        self.indexes = Indexes()
        self._tallies: dict[Version, Tally] = {}
        self._lock = threading.Lock()
        self._looked = 0.0
        self._version = ""
        self._gathered = Gathered([])
        self._page = b""

    def version(self) -> str:
        """What changes when a file of the runs does."""
        return self._look()[0]

    def page(self) -> bytes:
        """The page."""
        return self._look()[2]

    def gathered(self) -> Gathered:
        """The runs."""
        return self._look()[1]

    def _look(self) -> tuple[str, Gathered, bytes]:
        with self._lock:
            if time.monotonic() - self._looked > AGAIN_AFTER:
                if (version := self._signature()) != self._version:
                    self._gathered = gather(self.folders, self.indexes, self._tallies)
                    self._page = render(self._gathered, live=True).encode()
                    self._version = version
                self._looked = time.monotonic()
            return self._version, self._gathered, self._page

    def _signature(self) -> str:
        """Times and sizes of the files that a page is made of."""
        facts: list[tuple[str, int, int]] = []
        for folder in self.folders:
            for stage in (folder, *sorted(path for path in folder.glob("*") if path.is_dir())):
                files = [*(stage / name for name in _WATCHED), *sorted(stage.glob("rollouts/step-*.parquet"))[-1:]]
                files += sorted(folder.glob(f"evaluate/{stage.name}/results.json")) if stage != folder else []
                for file in files:
                    try:
                        found = file.stat()
                    except OSError:
                        continue
                    facts.append((str(file), found.st_mtime_ns, found.st_size))
        return f"{hash(tuple(facts)) & 0xFFFFFFFFFFFF:x}"


class Handler(BaseHTTPRequestHandler):
    """Answers a browser of this machine."""

    server: "LiveServer"
    # A connection for each request: on one machine that costs nothing, and none is left open.
    protocol_version = "HTTP/1.0"
    server_version, sys_version = "tulu", ""
    timeout = 30

    def do_GET(self) -> None:
        """The page, its version, a list of rollouts, or one group."""
        host = self.headers.get("Host", "")
        if len(self.headers.get_all("Host", [])) != 1 or _name_of(host) not in NAMES:
            return self._refuse(HTTPStatus.FORBIDDEN, "this server answers to localhost alone")
        fetched = self.headers.get("Sec-Fetch-Mode", "navigate") != "navigate"
        if fetched and self.headers.get("Sec-Fetch-Site", "none") not in ("none", "same-origin"):
            return self._refuse(HTTPStatus.FORBIDDEN, "this server answers no other site")
        address = urlsplit(self.path)
        answer = _ANSWERS.get(address.path)
        if answer is None:
            return self._refuse(HTTPStatus.NOT_FOUND, "there is no such page")
        try:
            kind, content = answer(self.server.watched, dict(parse_qsl(address.query, max_num_fields=40)))
        except (BadQuestion, ValueError) as error:
            return self._refuse(HTTPStatus.BAD_REQUEST, str(error))
        except (Damaged, OSError) as error:
            return self._refuse(HTTPStatus.NOT_FOUND, str(error))
        return self._send(HTTPStatus.OK, kind, content)

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """What is no GET is refused as everything else is."""
        allowed = "this server answers GET and nothing else"
        status = HTTPStatus.METHOD_NOT_ALLOWED if code == HTTPStatus.NOT_IMPLEMENTED else HTTPStatus(code)
        self._refuse(status, allowed if status == HTTPStatus.METHOD_NOT_ALLOWED else message or status.phrase)

    def log_message(self, format: str, *arguments: Any) -> None:
        """The terminal shows no requests."""

    def _refuse(self, status: HTTPStatus, reason: str) -> None:
        self._send(status, "application/json", json.dumps({"error": reason}).encode())

    def _send(self, status: HTTPStatus, kind: str, content: bytes) -> None:
        try:
            self.send_response(status)
            for name, value in {"Content-Type": kind, "Content-Length": str(len(content)), **_HEADERS}.items():
                self.send_header(name, value)
            if status == HTTPStatus.METHOD_NOT_ALLOWED:
                self.send_header("Allow", "GET")
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(content)
        except ConnectionError:
            # The browser went away.
            return


def _name_of(host: str) -> str:
    """A Host header without its port."""
    name, colon, port = host.rpartition(":")
    return (name if colon and port.isdigit() else host).lower()


def _page(watched: Watched, _fields: dict[str, str]) -> tuple[str, bytes]:
    return "text/html; charset=utf-8", watched.page()


def _version(watched: Watched, _fields: dict[str, str]) -> tuple[str, bytes]:
    return _json({"version": watched.version()})


def _rollouts(watched: Watched, fields: dict[str, str]) -> tuple[str, bytes]:
    offset, limit = whole(fields, "offset", 0, 10**12), whole(fields, "limit", 40, MOST_LISTED)
    return _json(listing(watched.gathered().runs, Wanted.of(fields), offset, limit, watched.indexes))


def _group(watched: Watched, fields: dict[str, str]) -> tuple[str, bytes]:
    stages = stages_with_rollouts(watched.gathered().runs)
    named = fields.get("stage", "")
    if named not in stages:
        raise BadQuestion(f"stage: there is no {named[:80]!r}")
    step, group = whole(fields, "step", 0, 10**12), whole(fields, "group", 0, 10**12)
    place, stage = stages[named]
    file = next((file for file in rollout_files(stage.folder) if file.step == step), None)
    if file is None:
        raise BadQuestion(f"step: {named} has no rollouts of step {step}")
    index = watched.indexes.of(file)
    if not np.any(index.group == group):
        raise BadQuestion(f"group: step {step} has no group {group}")
    rows = read_group(file, index, group, MEMBERS)
    view = group_view(step, group, rows, load_tokenizer(stage.folder), TEXT)
    return _json({"run": place, "stage": stage.name, **view})


def _json(content: Any) -> tuple[str, bytes]:
    text = json.dumps(finite(content), ensure_ascii=False, allow_nan=False)
    return "application/json", text.encode("utf-8", "backslashreplace")


_ANSWERS: dict[str, Callable[[Watched, dict[str, str]], tuple[str, bytes]]] = {
    "/": _page,
    "/version": _version,
    "/rollouts": _rollouts,
    "/group": _group,
}


class LiveServer(ThreadingHTTPServer):
    """The server of some runs, on the loopback address."""

    daemon_threads = True
    allow_reuse_address = True

    def __init__(self, folders: Sequence[Path], port: int = 0) -> None:
        """Port 0 takes any that is free. Raises OSError where the port is taken."""
        self.watched = Watched(folders)
        super().__init__((LOOPBACK, port), Handler)

    @property
    def url(self) -> str:
        """Where a browser finds it."""
        return f"http://{LOOPBACK}:{self.server_port}/"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A browser that goes away in the middle of an answer is no error; anything else is told, and serving goes on."""
        import sys

        error = sys.exc_info()[1]
        if not isinstance(error, ConnectionError | TimeoutError):
            log.warning("a request was not answered (%s: %s)", type(error).__name__, error)

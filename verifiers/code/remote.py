"""The same sandbox on another machine, over HTTP: TULU_SANDBOX_URL names it.

`python -m tulu.verifiers.code.remote 8500` serves this machine's.
"""

import json
import os
import sys
import urllib.error
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from tulu.verifiers.code.testing import Result

ADDRESS = "TULU_SANDBOX_URL"
_SECONDS = 55.0
_LARGEST = 16 << 20


class RemoteFault(Exception):
    """The remote sandbox did not answer as it should: a fault of ours, so the sample is masked."""


def remote_url() -> str | None:
    """Where programs are to run, if not here."""
    return os.environ.get(ADDRESS)


def remote_results(verifier: str, program: str, tests: list[Any], seconds: float) -> list[Result]:
    """Results of the tests, run elsewhere; RemoteFault where there are none."""
    body = json.dumps({"verifier": verifier, "program": program, "tests": tests, "time_limit": seconds}).encode()
    request = urllib.request.Request(f"{remote_url()}/run", body, {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=_SECONDS) as answer:
            results = json.loads(answer.read(_LARGEST))["results"]
        found = [Result(entry["passed"] is True, str(entry["detail"])) for entry in results]
    except (urllib.error.URLError, OSError, ValueError, KeyError, TypeError) as fault:
        raise RemoteFault(f"sandbox at {remote_url()}: {fault}") from fault
    if len(found) != len(tests):
        raise RemoteFault(f"sandbox at {remote_url()}: {len(found)} results for {len(tests)} tests")
    return found


class _Handler(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        from tulu.verifiers.code.verifier import answer_remote

        try:
            length = int(self.headers.get("Content-Length", "0"))
            if self.path != "/run" or not 0 < length <= _LARGEST:
                raise ValueError("POST a JSON object to /run")
            status, said = 200, {"results": answer_remote(json.loads(self.rfile.read(length)))}
        except (ValueError, KeyError, TypeError) as fault:
            status, said = 400, {"results": [], "error": [{"detail": str(fault)}]}
        body = json.dumps(said).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_arguments: Any) -> None:
        """Requests are not logged: they hold programs."""


def server(port: int, host: str = "127.0.0.1") -> ThreadingHTTPServer:
    """A server of this machine's sandbox; port 0 takes a free one."""
    return ThreadingHTTPServer((host, port), _Handler)


if __name__ == "__main__":
    with server(int(sys.argv[1]) if len(sys.argv) > 1 else 8500) as serving:
        serving.serve_forever()

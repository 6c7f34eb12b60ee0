"""A server that runs programs in this machine's sandbox for others: `python -m tulu.verifiers.code.remote 8500`."""

import json
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from tulu.verifiers.code.remote_client import LARGEST_MESSAGE
from tulu.verifiers.code.verifier import run_job


class _Handler(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        try:
            length = int(self.headers.get("Content-Length", "0"))
            if self.path != "/run" or not 0 < length <= LARGEST_MESSAGE:
                raise ValueError("POST a JSON object to /run")
            status, answer = 200, {"results": run_job(json.loads(self.rfile.read(length)))}
        except (ValueError, KeyError, TypeError) as fault:
            status, answer = 400, {"results": [], "error": [{"detail": str(fault)}]}
        body = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_arguments: Any) -> None:
        """Requests are not logged: they hold programs."""


def server(port: int, host: str = "127.0.0.1") -> ThreadingHTTPServer:
    """A server that runs programs in this machine's sandbox; port 0 takes a free port."""
    return ThreadingHTTPServer((host, port), _Handler)


if __name__ == "__main__":
    with server(int(sys.argv[1]) if len(sys.argv) > 1 else 8500) as serving:
        serving.serve_forever()

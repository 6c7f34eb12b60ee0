"""A judge in this process for `--tiny`: an OpenAI-compatible endpoint whose scores follow from a hash of what it is asked."""

import hashlib
import json
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

_MODEL = "made-up-judge"


class _Handler(BaseHTTPRequestHandler):
    """Answers a chat completion with a score from 0 to 2, which every judging verifier takes."""

    def do_POST(self) -> None:
        """Score one request."""
        asked = self.rfile.read(int(self.headers["Content-Length"]))
        score = hashlib.blake2b(asked, digest_size=1).digest()[0] % 3
        reply = json.dumps({"REASONING": "made up", "SCORE": score})
        choice = {"message": {"role": "assistant", "content": reply}, "finish_reason": "stop"}
        raw = json.dumps({"choices": [choice], "usage": {"prompt_tokens": 0, "completion_tokens": 0}}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(raw)))
        self.end_headers()
        self.wfile.write(raw)

    def log_message(self, *args: Any, **named: Any) -> None:
        """Say nothing of requests."""


@contextmanager
def judge() -> Iterator[None]:
    """While the context lasts, the environment names a judge that scores at random, in place of any other."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    own = {"TULU_JUDGE_URL": f"http://127.0.0.1:{server.server_address[1]}/v1", "TULU_JUDGE_MODEL": _MODEL}
    before = {name: os.environ.get(name) for name in own}
    os.environ.update(own)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
        server.shutdown()
        server.server_close()
        thread.join()

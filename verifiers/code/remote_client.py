"""Asking another machine to run programs in its sandbox: TULU_SANDBOX_URL names it, and remote.py is what answers there."""

import os
from typing import Any

from tulu.verifiers.code.testing import Result
from tulu.verifiers.endpoint import EndpointError, post_json

ADDRESS = "TULU_SANDBOX_URL"
_SECONDS = 55.0
"""Seconds to wait for the results of one program; below the deadline of a verdict."""
LARGEST_MESSAGE = 16 << 20
"""Bytes of a request or an answer."""


class RemoteFault(Exception):
    """The other machine did not answer as it should: that is no fault of the program, so the sample is masked."""


def remote_url() -> str | None:
    """The address of the machine that runs programs; None where this machine does."""
    return os.environ.get(ADDRESS)


def remote_results(verifier: str, program: str, tests: list[Any], seconds: float, fields: dict[str, Any]) -> list[Result]:
    """Results of the tests that the other machine ran, in order; RemoteFault where it gave none."""
    job = {"verifier": verifier, "program": program, "tests": tests, "time_limit": seconds, "fields": fields}
    try:
        answer = post_json(f"{remote_url()}/run", job, timeout=_SECONDS, most=LARGEST_MESSAGE)
        results = [Result(entry["passed"] is True, str(entry["detail"])) for entry in answer["results"]]
    except (EndpointError, KeyError, TypeError) as fault:
        raise RemoteFault(f"sandbox at {remote_url()}: {fault}") from fault
    if len(results) != len(tests):
        raise RemoteFault(f"sandbox at {remote_url()}: {len(results)} results for {len(tests)} tests")
    return results

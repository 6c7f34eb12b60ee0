"""The Ray cluster at RAY_ADDRESS, and the connection of this process to it. Ray is imported when that is asked for."""

import logging
import os
import socket
from typing import Any

from tulu.errors import EngineError, RecipeError

log = logging.getLogger("tulu")

VARIABLE = "RAY_ADDRESS"
ATTEMPTS = 3
"""How often it is tried to start a Ray of one's own."""
KNOCK_SECONDS = 10.0
"""How long the head of a cluster may take to accept a connection. Ray itself would try for minutes, without a word."""


def cluster_address() -> str | None:
    """Where the cluster is, as HOST:PORT or `auto`; None where Ray has nothing but this machine."""
    return os.environ.get(VARIABLE) or None


def connect(address: str) -> None:
    """Connect this process to a cluster. Raises RecipeError where none answers."""
    import ray
    from ray.exceptions import RayError

    if address.startswith("ray://"):
        raise RecipeError(f"{VARIABLE}={address}: that is Ray's client server; name the cluster itself, as HOST:6379 or auto")
    try:
        host, colon, port = address.rpartition(":")
        if colon and port.isdigit():
            socket.create_connection((host.strip("[]"), int(port)), KNOCK_SECONDS).close()
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
    except (OSError, RuntimeError, ValueError, RayError) as error:
        why = in_one_line(error)
        raise RecipeError(
            f"{VARIABLE}={address}: no Ray cluster can be reached there ({why})\n"
            f"Start one with `ray start --head`, give its address, or unset {VARIABLE} to use this machine alone. "
            "If it is there, it may ask for a token: set RAY_AUTH_MODE=token, and RAY_AUTH_TOKEN if ~/.ray/auth_token lacks it."
        ) from error


def in_one_line(error: Exception) -> str:
    """What Ray says of an error. Where an actor could not be made, the cause stands last, behind a traceback."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if not lines:
        return type(error).__name__
    return lines[-1] if "creation task" in lines[0] else lines[0]


def start_alone(**settings: Any) -> None:
    """Start a Ray for this process on this machine alone. Raises EngineError if it does not start.

    Ray gives up after 30 seconds, which a busy machine may take, and so it is tried again.
    """
    import ray

    for attempt in range(ATTEMPTS):
        try:
            ray.init(address="local", include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR, **settings)
        except Exception as error:
            # Ray says most of what can go wrong here with a plain Exception.
            ray.shutdown()
            why = in_one_line(error)
            if attempt + 1 == ATTEMPTS:
                raise EngineError(
                    f"Ray does not start on this machine ({why})\n"
                    "The machine may be too busy, or its memory or disk full (Ray's logs say more). Run the same command again."
                ) from error
            log.warning("Ray did not start (%s); it is tried again", why)
        else:
            return

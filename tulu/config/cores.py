"""How many cores this process may use."""

import os


def cores() -> int:
    """The cores that this process is bound to; all of the machine where the system binds none, as macOS."""
    bound = getattr(os, "sched_getaffinity", None)
    return len(bound(0)) if bound is not None else os.cpu_count() or 1
